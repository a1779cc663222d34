"""CUDA tensors, which are tensors of the host's here: the stand-in for CuPy steps them."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch_pairs import KINDS, named, same, slack_of_a_step, snapshot, values
from torch_pretended_gpu import HAS_EXCHANGE, OnGpu, Second, moved, pretended_gpu

import fastadam.torch
from fastadam.bench.contender import check
from fastadam.bench.cuda_steps import FastadamOnTorch
from fastadam.bench.settings import VARIANTS
from fastadam.kernels.gpu.source import SOURCE
from fastadam.torch import tensors

EPS = {torch.float32: 2.0**-23, torch.float64: 2.0**-52}
HALVES = [torch.float16, torch.bfloat16]

needs_grad_dtype = pytest.mark.skipif(
    not hasattr(torch.Tensor, "grad_dtype"), reason="this PyTorch has no grad_dtype"
)

FLAGS = "false", "true"
HALF_NAMES = "float16", "bfloat16"
# What is compiled for this file, together: it takes half a minute, once.
KERNELS = [
    *(f"adam<float, float, float, {a}, {b}, AS_IT_IS, false>" for a in FLAGS for b in FLAGS),
    *(f"adam<double, double, double, {a}, false, AS_IT_IS, false>" for a in FLAGS),
    *(f"adam<float, {half}, {half}, false, false, AS_IT_IS, false>" for half in HALF_NAMES),
    *(f"adam<float, float, {half}, false, false, AS_IT_IS, true>" for half in HALF_NAMES),
    "adam<float, float16, float, false, false, AS_IT_IS, false>",
    *(f"squares<float, {g}, false, false>" for g in ("float", "float16")),
    "squares<double, double, false, false>",
    *("add_chunks", "bound_rate"),
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
    """Pretend that there is a GPU."""
    with pretended_gpu() as pretended:
        yield pretended


def host(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor as the one of the host's that it is."""
    return tensor.detach().as_subclass(torch.Tensor)


class Beside:
    """An optimizer on a GPU, and another on the CPU with equal parameters."""

    def __init__(
        self, kind: str, start: list[torch.Tensor], other: Any = torch.optim, **options: Any
    ) -> None:
        theirs = [torch.nn.Parameter(value.clone()) for value in start]
        # with the layout that they have, gaps and all
        for p, value in zip(theirs, start, strict=True):
            p.data = value.clone() if value.is_contiguous() else value
        self.theirs = theirs
        self.ours = [moved(p) for p in theirs]
        for p, value in zip(self.ours, start, strict=True):
            if not value.is_contiguous():
                with torch.no_grad():
                    p.data = laid_out_as(value)
        self.gpu = getattr(fastadam.torch, kind)(self.ours, **options)
        self.bounds = {}
        if other is torch.optim:
            bounds = ("max_grad_norm", "max_grad_value")
            self.bounds = {key: options.pop(key) for key in bounds if key in options}
        self.cpu = getattr(other, kind)(self.theirs, **options)

    def gradients(self, scale: float = 1.0, dtype: torch.dtype | None = None) -> None:
        for p, q in zip(self.ours, self.theirs, strict=True):
            q.grad = torch.randn_like(q) * scale
            p.grad = moved(q.grad)

    def step(self, scale: float = 1.0) -> None:
        self.gradients(scale)
        self.gpu.step()
        kept = [q.grad.clone() for q in self.theirs]
        if "max_grad_value" in self.bounds:
            torch.nn.utils.clip_grad_value_(self.theirs, self.bounds["max_grad_value"])
        if "max_grad_norm" in self.bounds:
            torch.nn.utils.clip_grad_norm_(self.theirs, self.bounds["max_grad_norm"])
        self.cpu.step()
        # those on the GPU are only read
        for p, grad in zip(self.ours, kept, strict=True):
            assert torch.equal(host(p.grad), grad)

    def check(self, equal: bool = False, rtol: float = 1e-6) -> None:
        for p, q in zip(self.ours, self.theirs, strict=True):
            pairs = [(p, q)]
            if q in self.cpu.state:
                ours, theirs = self.gpu.state[p], self.cpu.state[q]
                assert float(ours["step"]) == float(theirs["step"])
                assert type(ours["step"]) is torch.Tensor
                pairs += [(ours[key], theirs[key]) for key in theirs if key != "step"]
            for ours, theirs in pairs:
                assert type(ours) is OnGpu
                if equal:
                    assert torch.equal(host(ours), theirs)
                else:
                    torch.testing.assert_close(
                        host(ours).to(theirs.dtype), theirs.detach(), rtol=rtol, atol=rtol
                    )


def laid_out_as(value: torch.Tensor) -> Any:
    """Return a copy of a tensor, with its gaps, that says it is on a GPU."""
    room = torch.zeros(value.untyped_storage().nbytes() // value.element_size(), dtype=value.dtype)
    copied = room.as_strided(value.shape, value.stride(), value.storage_offset())
    copied.copy_(value)
    return copied.as_subclass(OnGpu)


OPTIONS: list[dict[str, Any]] = [
    {"lr": 0.05, "betas": (0.7, 0.97), "eps": 1e-4},
    {"amsgrad": True, "lr": 0.03},
    {"maximize": True, "weight_decay": 0.2},
    {"weight_decay": 0.3, "amsgrad": True, "lr": 0.02, "eps": 1e-6},
    {"betas": (0.0, 0.9), "lr": 0.02},
    {"betas": (0.5, 0.0), "lr": 0.02},
    {"max_grad_value": 0.4, "lr": 0.02},
]


@pytest.mark.parametrize("kind", KINDS)
def test_one_step_from_the_same_state(
    kind: str, case: Callable[..., AbstractContextManager[None]]
) -> None:
    for options in OPTIONS:
        for dtype, eps in EPS.items():
            with case(options=options, dtype=dtype):
                pair = Beside(kind, values(dtype), **options)
                for _ in range(6):
                    before = [q.detach().clone() for q in pair.theirs]
                    pair.step()
                    for p, q, old in zip(pair.ours, pair.theirs, before, strict=True):
                        slack = slack_of_a_step(q, old, eps, options.get("lr", 1e-3))
                        assert ((host(p) - q).abs() <= slack).all()
                        p.data.copy_(q)
                        for key, value in pair.cpu.state[q].items():
                            pair.gpu.state[p][key].copy_(value)


@pytest.mark.parametrize("kind", [*KINDS, "AdaBound", "AMSBound"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_bits_of_the_cpu(kind: str, dtype: torch.dtype) -> None:
    pair = Beside(kind, values(dtype), fastadam.torch, lr=0.05, eps=1e-6)
    for _ in range(5):
        pair.step()
        pair.check(equal=True)


def test_half_precision() -> None:
    pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")
    pair = Beside("AdamW", values(*HALVES), fastadam.torch, lr=0.05)
    for _ in range(5):
        pair.step()
        pair.check(equal=True)
    assert pair.gpu.state[pair.ours[0]]["exp_avg"].dtype is torch.float32


def test_half_precision_with_weight_decay_in_the_gradient() -> None:
    # what is made of a gradient in half precision is rounded to it, as in PyTorch
    start = values(torch.float16)
    pair = Beside("Adam", start, lr=0.05, weight_decay=0.1, maximize=True, eps=1e-2)
    for _ in range(3):
        pair.step()
        pair.check(rtol=1e-2)


@pytest.mark.parametrize("dtype", HALVES)
def test_masters(dtype: torch.dtype) -> None:
    if dtype is torch.bfloat16:
        pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")
    options = {"lr": 1e-3, "weight_decay": 0.3, "master_weights": True}
    start = [*values(dtype), torch.randn(6, 8).to(dtype)[:, ::2], torch.randn(3)]
    pair = Beside("AdamW", start, fastadam.torch, **options)
    for k in range(8):
        pair.step()
        pair.check(equal=True)
        if k == 3:
            # what is written into a parameter, its master takes over
            for p, q in zip(pair.ours, pair.theirs, strict=True):
                with torch.no_grad():
                    p.mul_(0.5)
                    q.mul_(0.5)
        if k == 5:
            # a step without one of them
            pair.gradients()
            pair.ours[1].grad = pair.theirs[1].grad = None
            pair.gpu.step()
            pair.cpu.step()
            pair.check(equal=True)
    assert pair.gpu.state[pair.ours[0]]["master_param"].dtype is torch.float32


def test_one_launch_and_no_wait(gpu: Any) -> None:
    _, counts = gpu
    pair = Beside("AdamW", values(torch.float32), lr=0.1)
    pair.step()
    for _ in range(3):
        counts.reset()
        pair.step()
        assert counts.kernels == ["adam"]
        # the addresses of the gradients, which are new
        assert (counts.uploads, counts.downloads, counts.synchronisations) == (1, 0, 0)
    counts.reset()
    pair.gpu.step()
    assert (counts.kernels, counts.uploads, counts.synchronisations) == (["adam"], 0, 0)


def test_a_launch_for_each_type_and_variant(gpu: Any) -> None:
    _, counts = gpu
    params = [moved(torch.nn.Parameter(value)) for value in values(*EPS)]
    groups = [{"params": params[:6]}, {"params": params[6:], "amsgrad": True, "lr": 0.5}]
    opt = fastadam.torch.AdamW(groups)
    for p in params:
        p.grad = torch.ones_like(p)
    opt.step()
    counts.reset()
    opt.step()
    assert sorted(name for name, *_ in counts.launches) == [
        "adam<double, double, double, false, false, AS_IT_IS, false>",
        "adam<double, double, double, true, false, AS_IT_IS, false>",
        "adam<float, float, float, false, false, AS_IT_IS, false>",
    ]


def test_norm_stays_on_the_gpu(gpu: Any) -> None:
    _, counts = gpu
    for dtype in (torch.float32, torch.float64, torch.float16):
        for scale in (1e-3, 1.0):
            half = dtype is torch.float16
            rtol = 1e-2 if half else 1e-6
            # PyTorch's own moments underflow in half precision
            other = fastadam.torch if half else torch.optim
            pair = Beside("AdamW", values(dtype), other, lr=0.1, max_grad_norm=0.7, eps=1e-3)
            for _ in range(3):
                counts.reset()
                pair.step(scale)
                pair.check(rtol=rtol)
            assert counts.kernels == ["squares", "add_chunks", "bound_rate", "adam"]
            assert (counts.downloads, counts.synchronisations) == (0, 0)
            norm = torch.cat([host(p.grad).double().ravel() for p in pair.ours]).norm()
            assert pair.gpu.last_update.grad_norm == pytest.approx(float(norm), rel=1e-6)
            assert counts.downloads > 0
            assert pair.gpu.last_update.nonfinite == ()
    pair.gpu.max_grad_norm = pair.cpu.max_grad_norm = None
    pair.step()
    pair.check(rtol=1e-2)
    assert pair.gpu.last_update.grad_norm is None


def test_norm_that_is_tiny() -> None:
    # where what clip_grad_norm_ adds to the norm is a tenth of it
    options = {"max_grad_norm": 1e-6, "eps": 1e-7}
    pair = Beside("AdamW", values(torch.float64), lr=0.1, **options)
    for _ in range(3):
        pair.step(1e-6)
        pair.check()


def test_norm_that_is_not_finite() -> None:
    pair = Beside("AdamW", values(torch.float32), lr=0.1, max_grad_norm=1.0)
    pair.gradients()
    pair.ours[2].grad.fill_(torch.inf)
    pair.gpu.step()
    assert pair.gpu.last_update.nonfinite == ("param_groups[0]['params'][2]",)
    assert host(pair.ours[2]).isnan().all()


def test_norm_after_values_and_a_sign() -> None:
    options = {"max_grad_norm": 0.5, "max_grad_value": 0.3, "maximize": True}
    pair = Beside("Adam", values(torch.float32), lr=0.1, eps=1e-3, **options)
    for _ in range(4):
        pair.step()
        pair.check()


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("Adam", {"weight_decay": 0.1}, "weight decay of a group"),
        ("AdamW", {"second": True}, r"several places \(cuda:0, cuda:1\)"),
        ("AdamW", {"beside": True}, r"several places \(cpu, cuda:0\)"),
        ("AdamW", {"shared": True}, "share memory"),
    ],
)
def test_norm_that_is_refused(kind: str, options: dict[str, Any], words: str) -> None:
    params = [moved(torch.nn.Parameter(torch.randn(4))) for _ in range(2)]
    if options.pop("second", False):
        params.append(moved(torch.nn.Parameter(torch.randn(4)), Second))
    if options.pop("beside", False):
        params.append(torch.nn.Parameter(torch.randn(4)))
    if options.pop("shared", False):
        params.append(params[0].detach()[1:].requires_grad_())
    opt = getattr(fastadam.torch, kind)(params, max_grad_norm=1.0, **options)
    for p in params:
        p.grad = torch.ones_like(p)
    before = snapshot(opt)
    with pytest.raises(ValueError, match=rf"max_grad_norm cannot .*{words}.*clip_grad_norm_"):
        opt.step()
    assert same(snapshot(opt), before)
    opt.max_grad_norm = None
    opt.step()
    assert len(opt.last_update.applied) == len(params)


LAYOUTS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "channels last": lambda x: x.to(memory_format=torch.channels_last),
    "permuted": lambda x: x.permute(2, 0, 3, 1),
    "every second": lambda x: x[..., ::2],
    "a column": lambda x: x[0, :, :, 1],
    "expanded axis of one": lambda x: x[:, :1],
    "empty": lambda x: x[:0],
}


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("kind", KINDS)
def test_layouts(name: str, kind: str, gpu: Any) -> None:
    _, counts = gpu
    change = LAYOUTS[name]
    start = [change(torch.randn(2, 3, 4, 6)), torch.randn(5)]
    pair = Beside(kind, start, lr=0.05, weight_decay=0.1)
    assert pair.ours[0].stride() == start[0].stride()
    for _ in range(3):
        counts.reset()
        pair.step()
        pair.check()
    assert counts.kernels == ["adam"]


def test_parameters_with_gaps_that_move() -> None:
    pair = Beside("AdamW", [torch.randn(8)[::2], torch.randn(8)], fastadam.torch, lr=0.05)

    def move(change: Callable[[torch.Tensor], torch.Tensor]) -> None:
        for params in (pair.ours, pair.theirs):
            params[0].grad = None
            params[0].data = change(params[0].data)

    def apart(p: torch.Tensor) -> torch.Tensor:
        return torch.stack([p, p], -1)[..., 0]

    changes: list[Callable[[torch.Tensor], torch.Tensor]] = [
        lambda p: apart(p * 0.5),
        # what they are computed in becomes another
        lambda p: apart(p.double()),
        lambda p: apart(p.float()),
        lambda p: p.clone(),
        apart,
    ]
    for change in changes:
        pair.step()
        move(change)
        for _ in range(2):
            pair.step()
            pair.check(equal=True)
            for p, q in zip(pair.ours, pair.theirs, strict=True):
                assert p.stride() == q.stride()
                assert pair.gpu.state[p]["exp_avg"].dtype == pair.cpu.state[q]["exp_avg"].dtype
    # into the other, which is stepped where it lies
    for place in (slice(0, 8, 2), slice(1, 8, 2)):
        for params, opt in ((pair.ours, pair.gpu), (pair.theirs, pair.cpu)):
            params[0].data = params[1].data[place]
            before = snapshot(opt)
            with pytest.raises(ValueError, match="share memory"):
                opt.step()
            assert same(snapshot(opt), before)
    # its last element is the other's first, or lies just before that
    room = torch.randn(15)
    for params, opt, block in (
        (pair.ours, pair.gpu, moved(room)),
        (pair.theirs, pair.cpu, room),
    ):
        params[0].data, params[1].data = block[:8:2], block[6:14]
        with pytest.raises(ValueError, match="share memory"):
            opt.step()
        params[1].data = block[7:]
        opt.step()
    pair.check(equal=True)


GRADIENTS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "transposed": lambda g: g.t().contiguous().t(),
    "expanded": lambda g: g[:1].expand_as(g),
    "every second": lambda g: torch.stack([g, g], -1)[..., 0],
    "negative": lambda g: torch._neg_view(g),
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_layouts_of_gradients(name: str) -> None:
    pair = Beside("AdamW", [torch.randn(4, 3), torch.randn(3)], lr=0.05)
    for k in range(4):
        pair.gradients()
        # as it is, and in another layout, in turns
        if k % 2:
            pair.theirs[0].grad = GRADIENTS[name](pair.theirs[0].grad)
            pair.ours[0].grad = GRADIENTS[name](pair.ours[0].grad)
        pair.gpu.step()
        pair.cpu.step()
        pair.check()


@needs_grad_dtype
def test_gradients_of_another_type() -> None:
    pair = Beside("AdamW", [torch.randn(4, 3), torch.randn(3).half()], lr=0.05)
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        pair.gradients()
        for p, q in zip(pair.ours, pair.theirs, strict=True):
            p.grad_dtype = None
            p.grad = moved(q.grad.to(dtype))
            q.grad = q.grad.to(dtype).to(q.dtype)
        pair.gpu.step()
        pair.cpu.step()
        pair.check(rtol=1e-2)


@needs_grad_dtype
def test_gradients_of_a_type_that_no_kernel_reads() -> None:
    p = moved(torch.nn.Parameter(torch.randn(5).half()))
    q = torch.nn.Parameter(host(p).clone())
    opts = [fastadam.torch.AdamW([each], lr=0.1, master_weights=True) for each in (p, q)]
    for dtype in (torch.float16, torch.float64, torch.float16):
        grad = torch.randn(5).half()
        for each in (p, q):
            each.grad_dtype = None
        p.grad, q.grad = moved(grad.to(dtype)), grad.to(dtype)
        for opt in opts:
            opt.step()
        assert torch.equal(host(p), q.detach())


def test_groups_that_change_gradients_differently() -> None:
    theirs = [torch.nn.Parameter(value) for value in values(torch.float32)]
    ours = [moved(q) for q in theirs]
    opts = []
    for params, module in ((ours, fastadam.torch), (theirs, torch.optim)):
        groups = [
            {"params": params[:1], "maximize": True},
            {"params": params[1:2], "weight_decay": 0.3},
            {"params": params[2:]},
        ]
        opts.append(module.Adam(groups, lr=0.05))
    for _ in range(3):
        for p, q in zip(ours, theirs, strict=True):
            q.grad = torch.randn_like(q)
            p.grad = moved(q.grad)
        for opt in opts:
            opt.step()
        for p, q in zip(ours, theirs, strict=True):
            torch.testing.assert_close(host(p), q.detach(), rtol=1e-6, atol=1e-6)


def test_gradients_that_come_and_go() -> None:
    pair = Beside("AdamW", values(torch.float32), lr=0.05)
    draw = random.Random(1)
    for _ in range(12):
        pair.gradients()
        for i in draw.sample(range(4), draw.randrange(4)):
            pair.ours[i].grad = pair.theirs[i].grad = None
        pair.gpu.step()
        pair.cpu.step()
        pair.check()
    pair.gpu.zero_grad()
    pair.gpu.step()
    assert pair.gpu.last_update.applied == ()


def test_edits_between_steps(gpu: Any) -> None:
    pair = Beside("AdamW", values(torch.float32), lr=0.05, weight_decay=0.1)

    def edit(number: int, params: list[Any], opt: Any) -> None:
        state = opt.state[params[number % 4]]
        if number == 1:
            state["step"].fill_(40)
        elif number == 2:
            state["exp_avg"] = state["exp_avg"] * 2
        elif number == 3:
            params[0].data = params[0].data * 0.5
        elif number == 4:
            opt.param_groups[0].update(lr=0.2, betas=(0.5, 0.8))
        elif number == 5:
            del opt.state[params[2]]
        elif number == 6:
            opt.load_state_dict(opt.state_dict())
        elif number == 7:
            opt.param_groups[0]["lr"] = torch.tensor(0.3)
        elif number == 8:
            with torch.no_grad():
                params[1].add_(1)

    for number in range(10):
        edit(number, pair.ours, pair.gpu)
        edit(number, pair.theirs, pair.cpu)
        for _ in range(2):
            pair.step()
            pair.check()


def test_groups_that_come_later_and_checkpoints() -> None:
    pair = Beside("AdamW", values(torch.float32), lr=0.05)
    pair.step()
    q = torch.nn.Parameter(torch.randn(5))
    pair.theirs.append(q)
    pair.ours.append(moved(q))
    pair.cpu.add_param_group({"params": [q], "lr": 0.3})
    pair.gpu.add_param_group({"params": [pair.ours[-1]], "lr": 0.3})
    pair.step()
    pair.check()
    # PyTorch's state, and back
    pair.gpu.load_state_dict(pair.cpu.state_dict())
    pair.step()
    pair.check()
    saved = pair.gpu.state_dict()
    assert all(type(state["exp_avg"]) is OnGpu for state in saved["state"].values())
    pair.cpu.load_state_dict(saved)


def test_counts_on_the_gpu_are_brought_to_the_cpu() -> None:
    pair = Beside("AdamW", values(torch.float32), lr=0.05)
    pair.step()
    for p in pair.ours:
        pair.gpu.state[p]["step"] = moved(pair.gpu.state[p]["step"])
    pair.step()
    pair.check()


def test_cpu_and_two_gpus_in_one_step(gpu: Any) -> None:
    cupy, counts = gpu
    with cupy.cuda.Device(1):
        stream = cupy.cuda.Stream(non_blocking=True)
    cupy.torch_streams[1] = stream.ptr
    theirs = [torch.nn.Parameter(value) for value in values(torch.float32)]
    kinds: list[Any] = [None, OnGpu, Second, None]
    ours = [
        torch.nn.Parameter(q.detach().clone()) if kind is None else moved(q, kind)
        for q, kind in zip(theirs, kinds, strict=True)
    ]
    for options in ({}, {"weight_decay": 0.1}, {"maximize": True, "max_grad_value": 0.5}):
        bound = options.pop("max_grad_value", None)
        own = fastadam.torch.Adam(ours, lr=0.05, max_grad_value=bound, **options)
        opt = torch.optim.Adam(theirs, lr=0.05, **options)
        for _ in range(3):
            for p, q in zip(ours, theirs, strict=True):
                q.grad = torch.randn_like(q)
                p.grad = torch.zeros_like(p)
                p.grad.copy_(q.grad)
            counts.reset()
            own.step()
            if bound:
                torch.nn.utils.clip_grad_value_(theirs, bound)
            opt.step()
            for p, q in zip(ours, theirs, strict=True):
                torch.testing.assert_close(host(p), q.detach(), rtol=1e-6, atol=1e-6)
        assert sorted(where for *_, where in counts.launches) == [0, 1]
        assert {where: number for *_, number, where in counts.launches} == {0: 0, 1: stream.ptr}


def test_current_stream_of_pytorch(gpu: Any) -> None:
    cupy, counts = gpu
    pair = Beside("AdamW", values(torch.float32), lr=0.05, max_grad_norm=1.0)
    streams = [cupy.cuda.Stream(non_blocking=True) for _ in range(2)]
    own = cupy.cuda.Stream()
    for stream in (streams[0], streams[1], streams[0]):
        cupy.torch_streams[0] = stream.ptr
        counts.reset()
        # whichever is CuPy's, which it stays
        with own:
            pair.step()
            assert cupy.cuda.get_current_stream() is own
        assert {number for _, _, number, _ in counts.launches} == {stream.ptr}
        pair.check()


def test_without_cupy(monkeypatch: pytest.MonkeyPatch) -> None:
    p = moved(torch.nn.Parameter(torch.ones(3)))
    q = torch.nn.Parameter(torch.ones(3))
    opt = fastadam.torch.AdamW(named([("bias", q), ("weight", p)]), lr=0.1)
    p.grad, q.grad = torch.ones_like(p), torch.ones_like(q)
    before = snapshot(opt)
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(
        RuntimeError, match=r"parameter 'weight' is on cuda:0: a GPU needs CuPy.*pip install 'cupy-"
    ):
        opt.step()
    assert same(snapshot(opt), before)
    # as GradScaler does it with fused=True
    opt.grad_scale, opt.found_inf = moved(torch.tensor(2.0)), moved(torch.tensor(0.0))
    with pytest.raises(RuntimeError, match="a GPU needs CuPy"):
        opt.step()
    del opt.grad_scale, opt.found_inf
    # what has no gradient needs none
    p.grad = None
    opt.step()
    assert opt.last_update.applied == ("bias",)


def test_only_those_on_the_cpu_have_gradients() -> None:
    theirs = [torch.nn.Parameter(torch.randn(3)) for _ in range(2)]
    ours = [moved(theirs[0]), torch.nn.Parameter(theirs[1].detach().clone())]
    gpu, cpu = (fastadam.torch.AdamW(ps, lr=0.1, max_grad_norm=None) for ps in (ours, theirs))
    for k in range(6):
        for p, q in zip(ours, theirs, strict=True):
            q.grad = torch.randn(3)
            p.grad = torch.zeros_like(p).copy_(q.grad)
        bound = None
        if k % 2:
            bound = 0.5
            ours[0].grad = theirs[0].grad = None
        gpu.max_grad_norm = cpu.max_grad_norm = bound
        for opt in (gpu, cpu):
            opt.step()
        for p, q in zip(ours, theirs, strict=True):
            assert torch.equal(host(p), q.detach())
            assert torch.equal(host(gpu.state[p]["exp_avg"]), cpu.state[q]["exp_avg"])


def test_rocm_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    p = moved(torch.nn.Parameter(torch.ones(3)))
    p.grad = torch.ones_like(p)
    monkeypatch.setattr(torch.version, "hip", "6.4")
    with pytest.raises(RuntimeError, match="on cuda:0 of a PyTorch for ROCm"):
        fastadam.torch.Adam([p]).step()


def test_autograd_knows() -> None:
    pair = Beside("AdamW", values(torch.float32), lr=0.05)
    for _ in range(2):
        pair.gradients()
        state = pair.gpu.state.get(pair.ours[0], {})
        written = [*pair.ours, *(x for key, x in state.items() if key != "step")]
        versions = [x._version for x in written]
        pair.gpu.step()
        assert [x._version for x in written] == [version + 1 for version in versions]


def test_scale_and_found_inf() -> None:
    pair = Beside("AdamW", values(torch.float32), lr=0.1)
    for found in (0.0, 1.0, 0.0):
        pair.gradients(8.0)
        pair.gpu.grad_scale, pair.gpu.found_inf = (
            moved(torch.tensor(8.0)),
            moved(torch.tensor(found)),
        )
        pair.gpu.step()
        del pair.gpu.grad_scale, pair.gpu.found_inf
        if not found:
            for q in pair.theirs:
                q.grad /= 8
            pair.cpu.step()
        pair.check()
        assert pair.gpu.last_update.skipped == bool(found)


def test_scale_of_gradients_that_are_parameters() -> None:
    # they are divided as well, and the kernels read a copy of them
    start = values(torch.float32)
    pair = Beside("AdamW", start, fastadam.torch, lr=0.1)
    for _ in range(3):
        for params, opt in ((pair.ours, pair.gpu), (pair.theirs, pair.cpu)):
            for p in params:
                p.grad = p.data
            opt.grad_scale, opt.found_inf = torch.tensor(2.0), torch.tensor(0.0)
            opt.step()
        pair.check(equal=True)


def test_scale_of_gradients_that_are_changed_first() -> None:
    pair = Beside("Adam", values(torch.float32), lr=0.1, weight_decay=0.1)
    for _ in range(3):
        pair.gradients(8.0)
        pair.gpu.grad_scale, pair.gpu.found_inf = torch.tensor(8.0), torch.tensor(0.0)
        pair.gpu.step()
        for q in pair.theirs:
            q.grad /= 8
        pair.cpu.step()
        pair.check()


def test_memory_that_is_shared() -> None:
    room = torch.randn(12)
    start, ends = [], []
    for kind in (OnGpu, torch.Tensor):
        block = room.clone().as_subclass(kind)
        params = [block[:8].requires_grad_(), block[4:].requires_grad_()]
        opt = fastadam.torch.AdamW(params, lr=0.1)
        torch.manual_seed(1)
        for _ in range(4):
            for p in params:
                p.grad = torch.randn(8).as_subclass(kind)
            opt.step()
        start.append(opt)
        ends.append(block.detach().as_subclass(torch.Tensor))
    assert torch.equal(*ends)
    p = moved(torch.nn.Parameter(torch.ones(4)))
    q = torch.nn.Parameter(torch.ones(4))
    opts = [fastadam.torch.AdamW([each], lr=0.1) for each in (p, q)]
    for _ in range(3):
        # a gradient that is the parameter
        for each, opt in zip((p, q), opts, strict=True):
            each.grad = each.data
            opt.step()
    assert torch.equal(host(p), q.detach())
    half = moved(torch.nn.Parameter(torch.ones(4).half()))
    half.grad = half.data
    opt = fastadam.torch.AdamW([half], master_weights=True)
    with pytest.raises(ValueError, match=r"share memory .* master_weights"):
        opt.step()
    assert not opt.state
    assert torch.equal(host(half), torch.ones(4).half())


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda p: setattr(p, "grad", torch.ones(4)), ValueError, "on cpu, and the parameter"),
        (lambda p: setattr(p, "grad", torch.ones(4).to_sparse()), RuntimeError, "sparse"),
        (lambda p: setattr(p, "data", p.data.reshape(2, 2)), ValueError, r"shape \(4,\)"),
    ],
)
def test_refused_gradients(
    change: Callable[[Any], None], error: type[Exception], words: str
) -> None:
    params = [moved(torch.nn.Parameter(torch.ones(4))) for _ in range(2)]
    opt = fastadam.torch.AdamW(params, lr=0.1)
    for p in params:
        p.grad = torch.ones_like(p)
    change(params[1])
    before = host(params[0]).clone()
    with pytest.raises(error, match=words):
        opt.step()
    assert torch.equal(host(params[0]), before)
    assert not opt.state


def test_what_is_not_there_on_a_gpu(tmp_path: Path) -> None:
    p = moved(torch.nn.Parameter(torch.ones(4)))
    opt = fastadam.torch.AdamW([p])
    with pytest.raises(TypeError, match="on cuda:0"):
        fastadam.save(tmp_path / "never.npz", opt)
    with pytest.raises(TypeError, match="on cuda:0"):
        fastadam.compare(opt, opt)
    module = torch.nn.Module()
    module.weight = torch.nn.Parameter(moved(torch.ones(4)))
    with pytest.raises(TypeError, match=r"'weight'.*on cuda:0"):
        fastadam.Adam().setup(module)


@pytest.mark.parametrize("fast", [True, False] if HAS_EXCHANGE else [False])
def test_random_programs(fast: bool) -> None:
    with pretended_gpu(fast):
        assert tensors.reader().fast == fast
        run_random_programs(range(0 if fast else 8, 8 if fast else 12))


def run_random_programs(seeds: range) -> None:
    """Run programs on a GPU and on the CPU."""
    for seed in seeds:
        draw = random.Random(seed)
        torch.manual_seed(seed)
        start = [change(torch.randn(2, 3, 4, 6)) for change in draw.sample([*LAYOUTS.values()], 3)]
        start += values(draw.choice([*EPS]))
        options: dict[str, Any] = {"lr": 0.05, "weight_decay": draw.choice([0.0, 0.1])}
        options |= {"amsgrad": draw.random() < 0.3, "maximize": draw.random() < 0.3}
        pair = Beside(draw.choice(KINDS), start, **options)
        for _ in range(10):
            pair.gradients()
            for i in range(len(start)):
                if draw.random() < 0.1:
                    pair.ours[i].grad = pair.theirs[i].grad = None
                elif draw.random() < 0.2:
                    g = torch.stack([pair.theirs[i].grad] * 2, -1)[..., 0]
                    pair.theirs[i].grad, pair.ours[i].grad = g, moved(g).expand_as(g)
            if draw.random() < 0.2:
                for opt in (pair.gpu, pair.cpu):
                    opt.param_groups[0].update(lr=0.01, maximize=draw.random() < 2)
            if draw.random() < 0.1:
                pair.gpu.load_state_dict(pair.cpu.state_dict())
            pair.gpu.step()
            pair.cpu.step()
            pair.check()


def test_the_benchmarks_steps() -> None:
    """What ``bench --cuda`` times as fastadam-torch are the steps of ``apply_gradients``."""

    class Pretended(FastadamOnTorch):
        def sent(self, array: Any, copy: bool = False) -> Any:
            return moved(super(FastadamOnTorch, self).sent(array, copy))

        def values(self) -> list[Any]:
            return [host(p.detach()).numpy() for p in self.parameters]

    Pretended.device = "cpu"
    for name in ("adam", "adamw", "amsgrad"):
        assert check(Pretended, VARIANTS[name], "float32") < 1e-6
