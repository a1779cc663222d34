"""``fastadam.torch`` on a GPU: beside PyTorch's own optimizers on the same GPU.

Without a GPU, ``tests/against_torch/test_torch_gpu.py`` does this with tensors of the host's.
"""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch")

import fastadam.torch  # noqa: E402
from fastadam.kernels.gpu import engine  # noqa: E402
from fastadam.torch import tensors  # noqa: E402

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this test needs a GPU"),
]

SHAPES = [(3, 4), (7,), (), (2, 3, 4, 5), (300, 500)]


class Pair:
    """An optimizer of this library's and one of PyTorch's, on equal parameters."""

    def __init__(self, kind: str, dtype: Any, own: dict[str, Any], **options: Any) -> None:
        self.theirs = [torch.nn.Parameter(torch.randn(s, device="cuda").to(dtype)) for s in SHAPES]
        self.ours = [torch.nn.Parameter(q.detach().clone()) for q in self.theirs]
        self.own = getattr(fastadam.torch, kind)(self.ours, **options, **own)
        self.opt = getattr(torch.optim, kind)(self.theirs, **options)

    def gradients(self) -> None:
        for p, q in zip(self.ours, self.theirs, strict=True):
            q.grad = torch.randn_like(q)
            p.grad = q.grad.clone()

    def step(self, bound: float | None = None) -> None:
        self.gradients()
        self.own.step()
        if bound is not None:
            torch.nn.utils.clip_grad_norm_(self.theirs, bound)
        self.opt.step()

    def check(self, rtol: float = 1e-5) -> None:
        for p, q in zip(self.ours, self.theirs, strict=True):
            torch.testing.assert_close(p, q, rtol=rtol, atol=rtol)


def test_the_fast_way_to_read_them() -> None:
    reader = tensors.reader()
    x = torch.arange(6.0, device="cuda").reshape(2, 3).t()
    assert reader.array_of(x) is None
    array = reader.array_of(x, True)
    assert (array.data.ptr, array.shape, array.data.device_id) == (
        x.data_ptr(),
        (6,),
        x.get_device(),
    )
    assert array.get().tolist() == list(range(6))


@pytest.mark.parametrize("kind", ["Adam", "AdamW"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "options", [{}, {"amsgrad": True}, {"weight_decay": 0.1, "maximize": True}], ids=str
)
def test_steps(kind: str, dtype: Any, options: dict[str, Any]) -> None:
    pair = Pair(kind, dtype, {}, lr=0.05, **options)
    for _ in range(5):
        pair.step()
        pair.check()
    pair.own.load_state_dict(pair.opt.state_dict())
    pair.step()
    pair.check()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_masters(dtype: Any) -> None:
    pair = Pair("AdamW", dtype, {"master_weights": True}, lr=1e-3, eps=1e-3)
    exact = [torch.nn.Parameter(p.detach().float()) for p in pair.ours]
    opt = fastadam.torch.AdamW(exact, lr=1e-3, eps=1e-3)
    for _ in range(5):
        pair.gradients()
        for p, q in zip(pair.ours, exact, strict=True):
            q.grad = p.grad.float()
        pair.own.step()
        opt.step()
    for p, q in zip(pair.ours, exact, strict=True):
        assert torch.equal(pair.own.state[p]["master_param"], q)
        assert torch.equal(p, q.detach().to(dtype))


def test_norm() -> None:
    pair = Pair("AdamW", torch.float32, {"max_grad_norm": 0.5}, lr=0.05, eps=1e-3)
    for _ in range(5):
        pair.step(0.5)
        pair.check()
    norm = torch.cat([p.grad.double().ravel() for p in pair.ours]).norm()
    assert pair.own.last_update.grad_norm == pytest.approx(float(norm), rel=1e-6)


def test_one_launch_and_no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = Pair("AdamW", torch.float32, {"max_grad_norm": 0.5}, lr=0.05)
    launched: list[str] = []
    made = engine.KeptLaunch.of

    def counted(self: engine.KeptLaunch, *args: Any) -> engine.Launch | None:
        # every launch is asked for here
        launched.append(self._kernel)
        return made(self, *args)

    monkeypatch.setattr(engine.KeptLaunch, "of", counted)
    pair.gradients()
    pair.own.step()
    pair.gradients()
    launched.clear()
    done = torch.cuda.Event()
    torch.cuda.synchronize()
    # about a second, which the host does not wait for
    torch.cuda._sleep(2_000_000_000)
    pair.own.step()
    done.record()
    assert not done.query()
    torch.cuda.synchronize()
    assert launched == ["squares", "add_chunks", "bound_rate", "adam"]


def test_current_stream() -> None:
    pair = Pair("AdamW", torch.float32, {}, lr=0.05)
    stream = torch.cuda.Stream()
    for _ in range(3):
        pair.gradients()
        grads = [p.grad.clone() for p in pair.ours]
        for p in pair.ours:
            p.grad.fill_(torch.nan)
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            # the gradients are written late, on the stream that the step is made on
            torch.cuda._sleep(100_000_000)
            for p, grad in zip(pair.ours, grads, strict=True):
                p.grad.copy_(grad)
            pair.own.step()
        torch.cuda.current_stream().wait_stream(stream)
        pair.opt.step()
        pair.check()


@pytest.mark.parametrize("own", [{}, {"max_grad_norm": 0.5}], ids=str)
@pytest.mark.parametrize("options", [{}, {"maximize": True}], ids=str)
def test_captured_steps(own: dict[str, Any], options: dict[str, Any]) -> None:
    pair = Pair("AdamW", torch.float32, own, lr=0.05, **options)
    bound = own.get("max_grad_norm")
    static = [torch.zeros_like(p) for p in pair.ours]

    def backward() -> None:
        pair.own.zero_grad()
        sum((x * p).sum() for x, p in zip(static, pair.ours, strict=True)).backward()

    def reference() -> None:
        for x, q in zip(static, pair.theirs, strict=True):
            q.grad = x.clone()
        if bound is not None:
            torch.nn.utils.clip_grad_norm_(pair.theirs, bound)
        pair.opt.step()

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            for x in static:
                x.normal_()
            backward()
            pair.own.step()
            reference()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        backward()
        pair.own.step()
    pair.check()
    for k in range(5):
        for x in static:
            x.normal_()
        for opt in (pair.own, pair.opt):
            opt.param_groups[0]["lr"] = 0.05 / (k + 1)
        pair.own.prepare_replay()
        graph.replay()
        reference()
        pair.check()
        assert pair.own.last_update.t == 4 + k


def test_capture_that_comes_too_early() -> None:
    pair = Pair("AdamW", torch.float32, {}, lr=0.05)
    pair.gradients()
    x = torch.zeros(3, device="cuda")
    with torch.cuda.graph(torch.cuda.CUDAGraph()):
        # an empty graph is one that PyTorch warns of
        x.add_(1)
        with pytest.raises(RuntimeError, match="Make a step with gradients of the same"):
            pair.own.step()
    pair.step()
    pair.check()


@pytest.mark.parametrize("fused", [None, True])
def test_grad_scaler(fused: bool | None) -> None:
    pair = Pair("AdamW", torch.float32, {}, lr=0.05, fused=fused)
    scalers = [torch.amp.GradScaler("cuda", init_scale=4.0, growth_interval=2) for _ in range(2)]
    for k in range(4):
        xs = [torch.randn_like(q) for q in pair.theirs]
        sides = zip(scalers, (pair.own, pair.opt), (pair.ours, pair.theirs), strict=True)
        for scaler, opt, params in sides:
            opt.zero_grad()
            loss = sum((x * p**2).sum() for x, p in zip(xs, params, strict=True))
            scaler.scale(loss * (torch.inf if k == 2 else 1)).backward()
            scaler.step(opt)
            scaler.update()
        pair.check()


def test_steps_in_backward() -> None:
    pair = Pair("AdamW", torch.float32, {}, lr=0.05)
    handle = fastadam.torch.step_in_backward(pair.own, bucket_bytes=100)
    for _ in range(3):
        xs = [torch.randn_like(q) for q in pair.theirs]
        for opt, params in ((pair.own, pair.ours), (pair.opt, pair.theirs)):
            opt.zero_grad()
            sum((x * p).sum() for x, p in zip(xs, params, strict=True)).backward()
            opt.step()
        pair.check()
    handle.remove()
