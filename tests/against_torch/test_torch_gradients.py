"""Gradients and parameters in every form that PyTorch has: layouts, dtypes, views, scales."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch_pairs import KINDS, Pair, same, snapshot, values

import fastadam.torch
from fastadam.torch import tensors

LAYOUTS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "contiguous": lambda x: x.contiguous(),
    "channels last": lambda x: x.to(memory_format=torch.channels_last),
    "transposed": lambda x: x.permute(3, 0, 2, 1).contiguous().permute(1, 3, 2, 0),
    "strided": lambda x: torch.stack([x, -x], -1)[..., 0],
    "broken": lambda x: torch.cat([x, x], 1)[:, : x.shape[1]],
}

ADAMS = [fastadam.torch.Adam, torch.optim.Adam]


@pytest.mark.parametrize("of_grad", list(LAYOUTS))
@pytest.mark.parametrize("of_param", list(LAYOUTS))
def test_layouts(of_param: str, of_grad: str) -> None:
    value = torch.randn(4, 3, 5, 6)
    params = [torch.nn.Parameter(LAYOUTS[of_param](value.clone())) for _ in range(2)]
    ours = fastadam.torch.Adam(params[:1], lr=0.1, weight_decay=0.1, amsgrad=True)
    theirs = torch.optim.Adam(params[1:], lr=0.1, weight_decay=0.1, amsgrad=True)
    for _ in range(3):
        grad = torch.randn(4, 3, 5, 6)
        for p in params:
            p.grad = LAYOUTS[of_grad](grad)
        ours.step()
        theirs.step()
        torch.testing.assert_close(params[0], params[1], rtol=1e-6, atol=1e-6)
    strides = params[0].stride()
    assert strides == params[1].stride()


def test_a_parameter_that_becomes_another_layout() -> None:
    pair = Pair("AdamW", [torch.randn(2, 3, 4, 5)], lr=0.1)
    pair.step()
    for change in ("channels last", "strided", "contiguous", "transposed"):
        for params in pair.params:
            params[0].data = LAYOUTS[change](params[0].data)
        for _ in range(2):
            pair.step()
            pair.check()


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_a_parameter_that_somebody_writes_between_steps(layout: str) -> None:
    start = LAYOUTS[layout](torch.randn(2, 3, 4, 5))
    params = [torch.nn.Parameter(LAYOUTS[layout](start.clone())) for _ in range(2)]
    opts = [kind(params[i : i + 1], lr=0.1) for i, kind in enumerate(ADAMS)]
    for _ in range(3):
        grad = torch.randn(2, 3, 4, 5)
        for p, opt in zip(params, opts, strict=True):
            p.grad = grad.clone()
            opt.step()
            with torch.no_grad():
                p.mul_(2)
        torch.testing.assert_close(params[0], params[1], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_mixed_dtypes_and_no_elements(kind: str) -> None:
    start = [
        *values(torch.float32, torch.float64, torch.complex64),
        torch.zeros(0),
        torch.zeros(3, 0),
    ]
    pair = Pair(kind, start, lr=0.1, weight_decay=0.1)
    for _ in range(3):
        pair.step()
    pair.check()


@pytest.mark.skipif(
    not hasattr(torch.Tensor, "grad_dtype"), reason="this PyTorch has no grad_dtype"
)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_gradients_of_another_dtype(dtype: torch.dtype) -> None:
    grads = [torch.randn(100).to(dtype) for _ in range(4)]
    p, q = (torch.nn.Parameter(torch.ones(100)) for _ in range(2))
    p.grad_dtype = dtype
    ours, theirs = fastadam.torch.Adam([p], lr=0.1), torch.optim.Adam([q], lr=0.1)
    for grad in grads:
        p.grad, q.grad = grad, grad.float()
        ours.step()
        theirs.step()
    torch.testing.assert_close(p, q)


def test_missing_gradients_are_skipped_and_not_counted() -> None:
    pair = Pair("AdamW", values(torch.float32, torch.float64), lr=0.1, weight_decay=0.1)
    for missing in ([], [0, 3], [1], range(8), [], [7]):
        pair.gradients()
        for params in pair.params:
            for i in missing:
                params[i].grad = None
        for opt, _ in pair.both:
            opt.step()
        pair.check()
    counts = {int(state["step"]) for state in pair.ours.state.values()}
    assert counts == {4, 5}


def test_late_parameters_with_gradients() -> None:
    pair = Pair("Adam", values(torch.float32), lr=0.1)
    for params in pair.params:
        params[2].requires_grad_(False)
    for i in range(4):
        pair.gradients()
        for params in pair.params:
            if i < 2:
                params[2].grad = None
        for opt, _ in pair.both:
            opt.step()
        pair.check()
    assert int(pair.ours.state[pair.params[0][2]]["step"]) == 2


def test_gradients_with_their_conjugate_or_negative_bit() -> None:
    p, q = (torch.nn.Parameter(torch.ones(3, 2, dtype=torch.complex64)) for _ in range(2))
    r, s = (torch.nn.Parameter(torch.ones(1)) for _ in range(2))
    ours, theirs = fastadam.torch.Adam([p, r], lr=0.1), torch.optim.Adam([q, s], lr=0.1)
    for k in range(3):
        grad = torch.randn(3, 2, dtype=torch.complex64)
        single = torch.randn(1, dtype=torch.complex64)
        # with the bits, and without them in between
        p.grad = grad.conj() if k != 1 else grad.clone()
        r.grad = single.conj().imag if k != 1 else single.real.clone()
        # which PyTorch cannot step
        q.grad, s.grad = p.grad.resolve_conj(), r.grad.resolve_neg()
        assert (p.grad.is_conj(), r.grad.is_neg()) == (k != 1, k != 1)
        ours.step()
        theirs.step()
        torch.testing.assert_close(p, q)
        torch.testing.assert_close(r, s)


def test_gradient_that_is_the_parameter_itself() -> None:
    pair = Pair("Adam", [torch.randn(50), torch.randn(50)], lr=0.1)
    for _ in range(3):
        for params in pair.params:
            params[0].grad = params[0].detach()
            params[1].grad = params[0].detach()
        expected = [params[0].detach().clone() for params in pair.params]
        pair.ours.step()
        # PyTorch steps one after the other, and its second gradient is no longer what it was
        pair.params[1][0].grad, pair.params[1][1].grad = expected[1], expected[1]
        pair.theirs.step()
        pair.check()


def test_sparse_gradients_are_refused_as_by_pytorch() -> None:
    param = torch.nn.Parameter(torch.ones(4, 2))
    other = torch.nn.Parameter(torch.ones(2))
    opt = fastadam.torch.Adam([other, param], lr=0.1)
    other.grad = torch.ones(2)
    param.grad = torch.sparse_coo_tensor([[1]], [[1.0, 2.0]], (4, 2), check_invariants=True)
    with pytest.raises(RuntimeError, match="Adam does not support sparse gradients") as caught:
        opt.step()
    assert torch.equal(other.detach(), torch.ones(2))
    assert not opt.state
    with pytest.raises(RuntimeError) as expected:
        torch.optim.Adam([param], foreach=False).step()
    assert str(caught.value) == str(expected.value)


def test_version_counters_are_raised() -> None:
    param = torch.nn.Parameter(torch.tensor(2.0))
    opt = fastadam.torch.Adam([param], lr=3.0)
    for _ in range(2):
        loss = param**3
        version = param._version
        param.grad = torch.tensor(1.0)
        opt.step()
        assert param._version == version + 1
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


def test_inference_tensors_are_refused() -> None:
    with torch.inference_mode():
        param = torch.ones(2)
    opt = fastadam.torch.Adam([param], lr=0.1)
    with torch.inference_mode():
        param.grad = torch.ones(2)
        with pytest.raises(RuntimeError, match="inference tensor"):
            opt.step()
    assert param.tolist() == [1.0, 1.0]
    assert not opt.state


def test_tensors_that_cannot_be_stepped() -> None:
    good = torch.nn.Parameter(torch.ones(2))
    good.grad = torch.ones(2)
    meta = torch.nn.Parameter(torch.ones(2, device="meta"))
    meta.grad = torch.ones(2, device="meta")
    shared = torch.nn.Parameter(torch.ones(1).expand(3))
    shared.grad = torch.ones(3)
    for bad, error, message in (
        (meta, TypeError, "'bad'.*on meta"),
        (shared, RuntimeError, "'bad'.*share memory"),
    ):
        opt = fastadam.torch.Adam([good, bad], lr=0.1)
        opt.param_groups[0]["param_names"] = ["good", "bad"]
        with pytest.raises(error, match=message):
            opt.step()
        assert good.tolist() == [1.0, 1.0]
        assert not opt.state


class Own(torch.nn.Parameter):
    """A class of a user's that leaves everything to PyTorch."""


class Wrapped(torch.Tensor):
    """A class that does what tensors do in its own way."""

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return NotImplemented


def test_classes_of_tensors() -> None:
    start = torch.randn(5)
    p, q = Own(start.clone()), torch.nn.Parameter(start.clone())
    ours, theirs = fastadam.torch.Adam([p], lr=0.1), torch.optim.Adam([q], lr=0.1)
    for _ in range(3):
        p.grad = q.grad = torch.randn(5)
        ours.step()
        theirs.step()
    torch.testing.assert_close(p.detach(), q.detach())
    wrapped = torch.Tensor._make_wrapper_subclass(Wrapped, (3,))
    with pytest.raises(TypeError, match="'w' is a Wrapped"):
        tensors.refuse_tensor("w", wrapped)


def test_state_that_does_not_fit() -> None:
    good, bad = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    opt = fastadam.torch.Adam([good, bad], lr=0.1)
    good.grad = bad.grad = torch.ones(2)
    opt.step()
    for key, value, error in (
        ("exp_avg", torch.zeros(3), "has the shape"),
        ("exp_avg_sq", None, "must be a tensor"),
        ("step", torch.tensor(-5.0), "at least 0"),
        ("step", torch.tensor(torch.inf), "a number of steps"),
        ("exp_avg", opt.state[good]["exp_avg"], "share memory"),
        ("exp_avg", bad.detach(), "share memory"),
    ):
        was = opt.state[bad][key]
        opt.state[bad][key] = value
        before = snapshot(opt)
        with pytest.raises((TypeError, ValueError), match=error):
            opt.step()
        assert same(snapshot(opt), before)
        opt.state[bad][key] = was
    del opt.state[bad]["exp_avg"]
    with pytest.raises(ValueError, match="has no exp_avg"):
        opt.step()


class Scaled:
    """What GradScaler sets on an optimizer that can scale by itself."""

    def __init__(self, opt: Any, scale: float, found: float) -> None:
        opt.grad_scale, opt.found_inf = torch.tensor(scale), torch.tensor(found)


def test_scale_and_found_inf() -> None:
    pair = Pair("AdamW", values(torch.float32), lr=0.1, fused=True)
    for found in (0.0, 1.0, 0.0):
        pair.gradients(8.0)
        for opt, _ in pair.both:
            Scaled(opt, 8.0, found)
            opt.step()
            del opt.grad_scale, opt.found_inf
        pair.check()
        # the true gradient is left
        for p, q in zip(*pair.params, strict=True):
            torch.testing.assert_close(p.grad, q.grad)
        assert pair.ours.last_update.skipped == bool(found)
        assert pair.ours.last_update.loss_scale == 8.0
    assert pair.ours.last_update.t == 2


def test_scale_of_gradients_with_gaps() -> None:
    # which are read as dense copies: of what they are once they are divided
    pair = Pair("AdamW", values(torch.float32), lr=0.1)
    for _ in range(3):
        pair.gradients()
        for p in pair.params[0]:
            p.grad = torch.stack([p.grad * 8] * 2, -1)[..., 0]
        Scaled(pair.ours, 8.0, 0.0)
        for opt, _ in pair.both:
            opt.step()
        pair.check()
        for p, q in zip(*pair.params, strict=True):
            torch.testing.assert_close(p.grad, q.grad)


def test_scale_of_gradients_whose_elements_share_memory() -> None:
    pair = Pair("AdamW", [torch.ones(3, 2), torch.ones(4)], lr=0.1)
    for k in range(3):
        for (p, other), scale in zip(pair.params, (8.0, 1.0), strict=True):
            p.grad = torch.tensor(scale * (2 + k)).expand(3, 2)
            other.grad = scale * torch.arange(1.0, 5.0)
        Scaled(pair.ours, 8.0, 0.0)
        for opt, _ in pair.both:
            opt.step()
        pair.check()
        # each was divided once
        for p, q in zip(*pair.params, strict=True):
            assert torch.equal(p.grad, q.grad)


@pytest.mark.parametrize("fused", [None, True])
def test_grad_scaler(fused: bool | None) -> None:
    pair = Pair("Adam", values(torch.float32), lr=0.1, fused=fused)
    scalers = [torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=2) for _ in range(2)]
    for k in range(5):
        xs = torch.randn(len(pair.params[0]))
        for scaler, (opt, params) in zip(scalers, pair.both, strict=True):
            opt.zero_grad()
            loss = sum(x * (p**2).sum() for x, p in zip(xs, params, strict=True))
            scaler.scale(loss * (torch.inf if k == 2 else 1)).backward()
            scaler.step(opt)
            scaler.update()
        assert scalers[0].get_scale() == scalers[1].get_scale()
        pair.check()
    assert int(pair.ours.state[pair.params[0][0]]["step"]) == 4


@pytest.mark.parametrize("error", [TypeError, RuntimeError])
def test_versions_that_are_raised_one_by_one(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def one(tensor: Any) -> None:
        if not isinstance(tensor, torch.Tensor):
            raise error("as older versions do, that of 2.4 with a RuntimeError")
        torch.autograd.graph.increment_version(tensor)
        raised.append(tensor)

    raised: list[torch.Tensor] = []
    inner = types.SimpleNamespace(TensorBase=torch._C.TensorBase, _increment_version=one)
    names = ("Tensor", "nn", "zeros", "frombuffer", "float32")
    old = types.SimpleNamespace(_C=inner, **{name: getattr(torch, name) for name in names})
    monkeypatch.setattr(tensors, "_reader", tensors.new_reader(True, old))
    params = [torch.nn.Parameter(torch.ones(2)) for _ in range(3)]
    opt = fastadam.torch.Adam(params, lr=0.1)
    params[0].grad = params[2].grad = torch.ones(2)
    versions = [p._version for p in params]
    opt.step()
    assert [p._version - version for p, version in zip(params, versions, strict=True)] == [1, 0, 1]
    # each with two moments
    assert len(raised) == 6


def test_slow_door_reads_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = tensors.new_reader(False)
    assert not slow.fast
    if hasattr(torch.Tensor, "__dlpack_c_exchange_api__"):
        assert tensors.new_reader(True).fast
    monkeypatch.setattr(tensors, "_reader", slow)
    start = [*values(torch.float32, torch.float64, torch.complex64), torch.zeros(0)]
    start += [LAYOUTS[name](torch.randn(2, 3, 4, 5)) for name in LAYOUTS]
    pair = Pair("AdamW", start, lr=0.1, amsgrad=True)
    for _ in range(3):
        pair.step()
        pair.check()
    pair.params[0][0].grad = torch.randn(4, 3).t()
    pair.params[1][0].grad = pair.params[0][0].grad.clone()
    for opt, _ in pair.both:
        opt.step()
    pair.check()
