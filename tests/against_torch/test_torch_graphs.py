"""Steps captured in CUDA graphs: replays make the steps that ``step()`` would have made.

The tensors are the host's, and the stand-in for CuPy records what this library launches. What
PyTorch itself would launch is done at once: it is no part of these graphs.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch_graph_twins import Twins, compile_kernels, gpu_that_captures
from torch_pairs import same, snapshot
from torch_pretended_gpu import moved

from fastadam.kernels.gpu.uploads import SPARE


@pytest.fixture(scope="module")
def _kernels() -> None:
    compile_kernels()


@pytest.fixture(autouse=True)
def gpu(_kernels: None) -> Iterator[Any]:
    with gpu_that_captures() as pretended:
        yield pretended


def host(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor as the one of the host's that it is."""
    return tensor.detach().as_subclass(torch.Tensor)


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


@pytest.mark.parametrize(
    ("options", "changed"),
    [
        ({"maximize": True}, lambda g, p: -g),
        ({"weight_decay": 0.5}, lambda g, p: g + 0.5 * p),
        ({"max_grad_value": 0.25}, lambda g, p: g.clamp(-0.25, 0.25)),
    ],
    ids=["maximize", "weight decay", "value"],
)
def test_changed_gradients_are_those_of_the_capture(
    gpu: Any, options: dict[str, Any], changed: Any
) -> None:
    twins = Twins(gpu, "Adam", lr=0.1, **options)
    twins.step()
    graph = twins.capture()
    twins.gradients()
    # here PyTorch's part of the graph is done by hand
    made = [host(changed(p.grad, p)).ravel().numpy().copy() for p in twins.params[0]]
    for k, array in twins.captured._graphs[0].replaced.items():
        array.set(made[k])
    gpu[0].cuda.runtime.deviceSynchronize()
    twins.captured.prepare_replay()
    graph.launch(gpu[2])
    gpu[2].synchronize()
    twins.plain.step()
    twins.check()
    # what was changed for the graph is no gradient of other steps
    for opt in (twins.captured, twins.plain):
        opt.param_groups[0].update(maximize=False, weight_decay=0)
        opt.max_grad_value = None
    twins.capture()
    twins.step()
    twins.check()


def test_gradients_changed_for_a_capture_are_none_of_the_next_step(gpu: Any) -> None:
    twins = Twins(gpu, "Adam", lr=0.1, maximize=True)
    twins.step()
    twins.capture()
    for opt in (twins.captured, twins.plain):
        opt.param_groups[0]["maximize"] = False
    twins.step()
    twins.check()


def test_moments_that_are_forgotten(gpu: Any) -> None:
    twins = Twins(gpu, lr=0.1, betas=(0.0, 0.9))
    twins.step()
    graph = twins.capture()
    # by hand, as above
    for p in twins.params[0]:
        twins.captured.state[p]["exp_avg"].zero_()
    twins.replay(graph)
    twins.check()


def test_parameters_with_gaps(gpu: Any) -> None:
    twins = Twins(gpu, lr=0.1)
    for params in twins.params:
        wide = next(p for p in params if p.ndim == 2)
        with torch.no_grad():
            apart = moved(torch.ones(wide.shape[0], 2 * wide.shape[1]))[:, ::2]
            wide.data = apart.copy_(wide)
    twins.step()
    graph = twins.capture()
    ((param, copied),) = twins.captured._replay.plan._copies
    # by hand, as above
    host(copied).copy_(host(param))
    twins.gradients()
    twins.captured.prepare_replay()
    graph.launch(gpu[2])
    gpu[2].synchronize()
    host(param).copy_(host(copied))
    twins.plain.step()
    twins.check()


def test_groups_at_other_counts(gpu: Any) -> None:
    twins = Twins(gpu, lr=0.1)
    twins.step()
    for params, opt in zip(twins.params, (twins.captured, twins.plain), strict=True):
        params.append(moved(torch.nn.Parameter(torch.ones(3))))
        opt.add_param_group({"params": params[-1:], "lr": 0.5})
    twins.step()
    graph = twins.capture()
    for _ in range(3):
        twins.replay(graph)
        twins.check()


def test_a_replay_that_was_not_prepared_steps_nothing(gpu: Any) -> None:
    twins = Twins(gpu, lr=0.1)
    twins.step()
    graph = twins.capture()
    for _ in range(2):
        before = snapshot(twins.captured)
        graph.launch(gpu[2])
        gpu[2].synchronize()
        assert same(snapshot(twins.captured), before)
        twins.replay(graph)
        twins.check()


def test_captures_one_after_the_other(gpu: Any) -> None:
    """In the mode in which nothing can be allocated, each with gradients in memory of its own."""
    twins = Twins(gpu, lr=0.1)
    twins.step()
    for _ in range(2):
        graphs, sets = [], []
        for _ in range(SPARE):
            twins.captured.zero_grad()
            twins.gradients()
            graphs.append(twins.capture())
            sets.append([p.grad for p in twins.params[0]])
        for which in (0, 2, 1, 3):
            for p, grad in zip(twins.params[0], sets[which], strict=True):
                p.grad = grad
            twins.replay(graphs[which])
            twins.check()
    for _ in range(2):
        twins.step()
        for _ in range(SPARE):
            twins.captured.zero_grad()
            twins.gradients()
            twins.capture()
    twins.captured.zero_grad()
    twins.gradients()
    with pytest.raises(RuntimeError, match="make one more such update"):
        twins.capture()


def test_graphs_with_other_steps_in_between(gpu: Any) -> None:
    """All of them read their scalars in one place, whatever has been described meanwhile."""
    twins = Twins(gpu, lr=0.1)
    twins.step()
    graphs = [twins.capture()]
    first, rest = twins.params[0][0], twins.params[0][1:]
    twins.captured.param_groups[0]["eps"] = -1.0
    with pytest.raises(ValueError, match="eps"):
        twins.captured.step()
    twins.captured.param_groups[0]["eps"] = 1e-8
    kept, first.grad = first.grad, None
    with pytest.raises(RuntimeError, match="Make a step with gradients of the same"):
        twins.capture()
    first.grad = kept
    twins.step()
    graphs.append(twins.capture())
    for which in (1, 0, 0, 1):
        twins.replay(graphs[which])
        twins.check()
    assert all(p.grad is not None for p in rest)


def test_graphs_that_are_forgotten(gpu: Any) -> None:
    twins = Twins(gpu, lr=0.1)
    twins.step()
    twins.capture()
    grads = [weakref.ref(p.grad) for p in twins.params[0]]
    twins.captured.zero_grad()
    assert None not in [grad() for grad in grads]
    twins.captured.forget_graphs()
    assert {grad() for grad in grads} == {None}
    with pytest.raises(RuntimeError, match="no captured step"):
        twins.captured.prepare_replay()
    twins.step()
    twins.replay(twins.capture())
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


def test_autograd_knows_of_a_replay(gpu: Any) -> None:
    twins = Twins(gpu, lr=0.1)
    twins.step()
    graph = twins.capture()
    p = next(p for p in twins.params[0] if p.ndim)
    loss = (p * p).sum()
    twins.replay(graph)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
