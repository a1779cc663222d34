"""Steps captured in CUDA graphs: replays make the steps that ``step()`` would have made.

The tensors are the host's, and the stand-in for CuPy records what this library launches. What
PyTorch itself would launch is done at once: it is no part of these graphs.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
import torch
from torch_pairs import same, snapshot, values
from torch_pretended_gpu import Second, moved, pretended_gpu

import fastadam.torch
from fastadam.kernels.gpu.source import SOURCE

FLAGS = "false", "true"
# What is compiled for this file.
KERNELS = [
    *(f"adam<float, float, float, {a}, {b}, AS_IT_IS, false>" for a in FLAGS for b in FLAGS),
    "adam<float, float, float, false, false, PREPARED, false>",
    "adam<float, float, bfloat16, false, false, AS_IT_IS, true>",
    *("squares<float, float, false, false>", "add_chunks", "bound_rate"),
]


@pytest.fixture(scope="module")
def _kernels() -> None:
    """Compile the kernels for the CPU."""
    from cuda_on_cpu import cuda, emulator

    if emulator.compiler() is None:
        pytest.skip("CUDA on a CPU needs a C++ compiler: apt-get install g++")
    cuda.precompile(SOURCE, KERNELS)


@pytest.fixture(autouse=True)
def gpu(_kernels: None) -> Iterator[Any]:
    """Pretend that there is a GPU, with a stream that can capture as PyTorch's current one."""
    with pretended_gpu() as (cupy, counts):
        stream = cupy.cuda.Stream(non_blocking=True)
        cupy.torch_streams[0] = stream.ptr
        yield cupy, counts, stream


class Twins:
    """Two optimizers on equal parameters: one is captured, the other makes ordinary steps."""

    def __init__(
        self, gpu: Any, kind: str = "AdamW", dtype: Any = torch.float32, **options: Any
    ) -> None:
        self._cupy, _, self._stream = gpu
        start = [torch.nn.Parameter(value) for value in values(dtype)]
        self.params = [[moved(p) for p in start] for _ in range(2)]
        self.captured, self.plain = (
            getattr(fastadam.torch, kind)(params, **options) for params in self.params
        )

    def gradients(self) -> None:
        """Give both new gradients, each in the memory that it has, if it has any."""
        for p, q in zip(*self.params, strict=True):
            grad = torch.randn(p.shape).to(p.dtype)
            for one in (p, q):
                if one.grad is None:
                    one.grad = moved(grad)
                else:
                    one.grad.copy_(grad)

    def step(self) -> None:
        self.gradients()
        self.captured.step()
        self.plain.step()

    def capture(self, step: Callable[[], Any] | None = None) -> Any:
        """Return a graph of a step, in the mode of ``torch.cuda.graph``."""
        with self._stream:
            self._stream.begin_capture(self._cupy.cuda.runtime.streamCaptureModeGlobal)
            try:
                (step or self.captured.step)()
            except BaseException:
                # what CUDA has refused has ended the capture
                with suppress(self._cupy.cuda.runtime.CUDARuntimeError):
                    self._stream.end_capture()
                raise
            return self._stream.end_capture()

    def replay(self, graph: Any) -> None:
        self.gradients()
        self.captured.prepare_replay()
        graph.launch(self._stream)
        self._stream.synchronize()
        self.plain.step()

    def check(self) -> None:
        self._cupy.cuda.runtime.deviceSynchronize()
        assert same(snapshot(self.captured), snapshot(self.plain))
        assert self.captured.last_update == self.plain.last_update


OPTIONS: list[tuple[str, Any, dict[str, Any]]] = [
    ("AdamW", torch.float32, {"lr": 0.05, "betas": (0.7, 0.97), "eps": 1e-4}),
    ("Adam", torch.float32, {"lr": 0.05, "amsgrad": True}),
    ("AMSBound", torch.float32, {"lr": 0.05, "final_lr": 0.2}),
    ("AdaBound", torch.float32, {"lr": 0.05, "gamma": 0.1}),
    ("AdamW", torch.float32, {"lr": 0.05, "max_grad_norm": 0.7}),
    ("AdamW", torch.bfloat16, {"lr": 0.05, "master_weights": True}),
]


@pytest.mark.parametrize(("kind", "dtype", "options"), OPTIONS)
def test_replays_are_steps(gpu: Any, kind: str, dtype: Any, options: dict[str, Any]) -> None:
    twins = Twins(gpu, kind, dtype, **options)
    for _ in range(2):
        twins.step()
    before = snapshot(twins.captured)
    report = twins.captured.last_update
    graph = twins.capture()
    # neither made nor counted
    assert same(snapshot(twins.captured), before)
    assert twins.captured.last_update == report
    for k in range(5):
        for opt in (twins.captured, twins.plain):
            decay = 0.1 if kind == "AdamW" else 0
            opt.param_groups[0].update(lr=0.1 / (k + 1), betas=(0.8, 0.9), weight_decay=decay)
        twins.replay(graph)
        twins.check()


def test_one_upload_a_replay(gpu: Any) -> None:
    _, counts, _ = gpu
    twins = Twins(gpu, max_grad_norm=0.5)
    for _ in range(2):
        twins.step()
    graph = twins.capture()
    twins.replay(graph)
    for _ in range(2):
        counts.reset()
        twins.captured.prepare_replay()
        assert (counts.kernels, counts.uploads) == ([], 1)
        graph.launch(gpu[2])
        assert counts.kernels == ["squares", "add_chunks", "bound_rate", "adam"]
        assert (counts.downloads, counts.synchronisations) == (0, 0)


def test_steps_and_replays_take_turns(gpu: Any) -> None:
    twins = Twins(gpu, lr=0.1)
    twins.step()
    graph = twins.capture()
    for k in range(6):
        if k % 3:
            twins.replay(graph)
        else:
            # gradients in memory that the graph does not read
            kept = [p.grad for p in twins.params[0]]
            twins.captured.zero_grad()
            twins.step()
            twins.check()
            for p, grad in zip(twins.params[0], kept, strict=True):
                p.grad = grad
            continue
        twins.check()


def test_a_step_that_others_had_a_gradient_for(gpu: Any) -> None:
    """What an ordinary step has described anew does not matter to the graph."""
    twins = Twins(gpu, lr=0.1)
    twins.step()
    graph = twins.capture()
    kept = [params[0].grad for params in twins.params]
    for params in twins.params:
        params[0].grad = None
    twins.captured.step()
    twins.plain.step()
    for params, grad in zip(twins.params, kept, strict=True):
        params[0].grad = grad
    with pytest.raises(RuntimeError, match="make a step, and capture another"):
        # the first parameter is at another step than all others
        twins.captured.prepare_replay()
    twins.step()
    twins.check()
    del graph


def test_gradients_of_the_graph_need_not_be_the_parameters(gpu: Any) -> None:
    twins = Twins(gpu, lr=0.1, max_grad_norm=1.0)
    for _ in range(2):
        twins.step()
    graph = twins.capture()
    kept = [p.grad for p in twins.params[0]]
    twins.captured.zero_grad()
    twins.captured.prepare_replay()
    graph.launch(gpu[2])
    gpu[2].synchronize()
    twins.plain.step()
    for p, grad in zip(twins.params[0], kept, strict=True):
        assert p.grad is None
        p.grad = grad
    twins.check()


def test_two_graphs(gpu: Any) -> None:
    twins = Twins(gpu, lr=0.1)
    twins.step()
    sets = [[p.grad for p in twins.params[0]]]
    graphs = [twins.capture()]
    twins.captured.zero_grad()
    twins.step()
    sets.append([p.grad for p in twins.params[0]])
    graphs.append(twins.capture())
    for which in (0, 1, 1, 0):
        for p, grad in zip(twins.params[0], sets[which], strict=True):
            p.grad = grad
        twins.replay(graphs[which])
        twins.check()


def test_changed_gradients_are_those_of_the_capture(gpu: Any) -> None:
    twins = Twins(gpu, "Adam", lr=0.1, maximize=True)
    twins.step()
    graph = twins.capture()
    twins.gradients()
    # here PyTorch's part of the graph is done by hand
    for k, array in twins.captured._graphs[0].replaced.items():
        array.set(-twins.params[0][k].grad.as_subclass(torch.Tensor).detach().ravel().numpy())
    gpu[0].cuda.runtime.deviceSynchronize()
    twins.captured.prepare_replay()
    graph.launch(gpu[2])
    gpu[2].synchronize()
    twins.plain.step()
    twins.check()


def test_gradients_that_lie_otherwise_are_those_of_the_capture(gpu: Any) -> None:
    twins = Twins(gpu, lr=0.1)
    for params in twins.params:
        wide = next(p for p in params if p.ndim == 2)
        wide.grad = moved(torch.ones(wide.shape[::-1])).t()
    twins.step()
    graph = twins.capture()
    twins.captured.prepare_replay()
    graph.launch(gpu[2])
    gpu[2].synchronize()
    twins.plain.step()
    twins.check()


def test_parameters_of_another_group_that_have_no_gradients(gpu: Any) -> None:
    twins = Twins(gpu, lr=0.1)
    for opt in (twins.captured, twins.plain):
        opt.add_param_group({"params": [moved(torch.nn.Parameter(torch.ones(3)))], "lr": 1.0})
    twins.step()
    graph = twins.capture()
    for opt in (twins.captured, twins.plain):
        opt.param_groups[1]["lr"] = 0.5
    twins.replay(graph)
    twins.check()


@pytest.mark.parametrize(
    "change",
    [
        lambda opt: opt.param_groups[0].update(maximize=True),
        lambda opt: opt.param_groups[0].update(amsgrad=True),
        lambda opt: opt.param_groups[0].update(betas=(0.0, 0.9)),
        lambda opt: setattr(opt, "max_grad_norm", 2.0),
        lambda opt: setattr(opt, "max_grad_norm", None),
        lambda opt: setattr(opt, "max_grad_value", 2.0),
        lambda opt: opt.load_state_dict(opt.state_dict()),
        lambda opt: opt.param_groups[0]["params"].pop(),
        lambda opt: setattr(opt.param_groups[0]["params"][0], "data", moved(torch.ones(3, 4))),
    ],
    ids=["maximize", "amsgrad", "betas", "norm", "no norm", "value", "load", "removed", "data"],
)
def test_changes_that_a_graph_does_not_follow(gpu: Any, change: Callable[[Any], Any]) -> None:
    twins = Twins(gpu, "AdamW", lr=0.1, max_grad_norm=1.0)
    for _ in range(2):
        twins.step()
    graph = twins.capture()
    twins.replay(graph)
    change(twins.captured)
    before = snapshot(twins.captured)
    with pytest.raises(RuntimeError, match="make a step, and capture another"):
        twins.captured.prepare_replay()
    assert same(snapshot(twins.captured), before)
    twins.gradients()
    twins.captured.step()


def test_what_has_not_been_described_is_refused(gpu: Any) -> None:
    twins = Twins(gpu, lr=0.1)
    twins.gradients()
    before = snapshot(twins.captured)
    with pytest.raises(RuntimeError, match=r"on cuda:0: .* Make a step with gradients of the same"):
        twins.capture()
    assert same(snapshot(twins.captured), before)
    twins.captured.step()
    twins.params[0][1].grad = None
    with pytest.raises(RuntimeError, match="Make a step with gradients of the same"):
        twins.capture()
    with pytest.raises(RuntimeError, match="no captured step"):
        twins.captured.prepare_replay()


def test_a_norm_that_has_not_been_made_before_is_refused(gpu: Any) -> None:
    twins = Twins(gpu, lr=0.1)
    twins.step()
    before = snapshot(twins.captured)
    twins.captured.max_grad_norm = 1.0
    with pytest.raises(RuntimeError, match="make one more such update"):
        twins.capture()
    assert same(snapshot(twins.captured), before)
    twins.plain.max_grad_norm = 1.0
    twins.step()
    twins.check()
    twins.replay(twins.capture())
    twins.check()


def test_numbers_on_the_gpu_are_refused(gpu: Any) -> None:
    twins = Twins(gpu, lr=0.1)
    twins.step()
    twins.captured.param_groups[0]["lr"] = moved(torch.tensor(0.1))
    with pytest.raises(RuntimeError, match=r"'lr' of param_groups\[0\] is a tensor on a GPU"):
        twins.capture()
    twins.captured.param_groups[0]["lr"] = 0.1
    twins.step()
    twins.captured.param_groups[0].update(lr=0.1, betas=(moved(torch.tensor(0.9)), 0.99))
    with pytest.raises(RuntimeError, match=r"'betas' of param_groups\[0\] is a tensor on a GPU"):
        twins.capture()
    for opt in (twins.captured, twins.plain):
        opt.param_groups[0].update(lr=torch.tensor(0.1), betas=(0.9, 0.999))
    twins.step()
    graph = twins.capture()
    for opt in (twins.captured, twins.plain):
        opt.param_groups[0]["lr"] = torch.tensor(0.03)
    twins.replay(graph)
    assert same(*([p.detach() for p in params] for params in twins.params))


def test_scaling_is_refused(gpu: Any) -> None:
    twins = Twins(gpu, lr=0.1)
    twins.step()
    for name in ("found_inf", "grad_scale"):
        setattr(twins.captured, name, moved(torch.tensor(0.0)))
        with pytest.raises(RuntimeError, match="with GradScaler the host decides"):
            twins.capture()
        delattr(twins.captured, name)


def test_parameters_in_several_places_are_refused(gpu: Any) -> None:
    here, there = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(3))
    for other in (here, moved(there, Second)):
        twins = Twins(gpu, lr=0.1)
        twins.captured.add_param_group({"params": [other]})
        other.grad = torch.ones_like(other)
        twins.step()
        with pytest.raises(RuntimeError, match="only parameters on one GPU"):
            twins.capture()
        twins.captured.step()


def test_parts_in_backward_are_refused(gpu: Any) -> None:
    twins = Twins(gpu, lr=0.1)
    twins.step()
    handle = fastadam.torch.step_in_backward(twins.captured, bucket_bytes=1)
    twins.captured.zero_grad()
    loss = sum((p * p).sum() for p in twins.params[0])
    with pytest.raises(RuntimeError, match="step_in_backward, which makes steps in parts"):
        twins.capture(loss.backward)
    handle.remove()


def test_prepared_outside_of_captures(gpu: Any) -> None:
    twins = Twins(gpu, lr=0.1)
    twins.step()
    graph = twins.capture()
    before = snapshot(twins.captured)
    with pytest.raises(RuntimeError, match="while a CUDA graph is captured"):
        twins.capture(twins.captured.prepare_replay)
    assert same(snapshot(twins.captured), before)
    twins.replay(graph)
    twins.check()


def test_copies_have_no_graphs(gpu: Any) -> None:
    twins = Twins(gpu, lr=0.1)
    twins.step()
    graph = twins.capture()
    with pytest.raises(RuntimeError, match="no captured step"):
        copy.copy(twins.captured).prepare_replay()
    assert not {"_graphs", "_replay"} & twins.captured.__getstate__().keys()
    twins.replay(graph)
    twins.check()


def test_there_is_nothing_to_replay_on_a_cpu() -> None:
    p = torch.nn.Parameter(torch.ones(3))
    opt = fastadam.torch.AdamW([p])
    p.grad = torch.ones(3)
    opt.step()
    opt = pickle.loads(pickle.dumps(opt))
    with pytest.raises(RuntimeError, match="no captured step to replay"):
        opt.prepare_replay()


def test_autograd_knows_of_a_replay(gpu: Any) -> None:
    twins = Twins(gpu, lr=0.1)
    twins.step()
    graph = twins.capture()
    p = next(p for p in twins.params[0] if p.ndim)
    loss = (p * p).sum()
    twins.replay(graph)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
