"""Gradients clipped inside the step, beside clip_grad_norm_ and clip_grad_value_."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch_pairs import KINDS, Pair, same, snapshot, values

import fastadam.torch


@pytest.mark.parametrize("option", [{}, {"maximize": True, "weight_decay": 0.2}])
@pytest.mark.parametrize("bound", [0.5, 3.0, 1e6])
@pytest.mark.parametrize("kind", KINDS)
def test_norm(kind: str, bound: float, option: dict[str, Any]) -> None:
    start = [*values(torch.float32), torch.randn(70000), *values(torch.float64)[:2]]
    pair = Pair(kind, start, lr=0.05, **option)
    pair.ours.max_grad_norm = bound
    for k in range(4):
        pair.gradients(10.0 ** (k - 3))
        for params in pair.params:
            params[k].grad = None
        kept = [None if p.grad is None else p.grad.clone() for p in pair.params[0]]
        norm = torch.nn.utils.clip_grad_norm_(pair.params[1], bound)
        for opt, _ in pair.both:
            opt.step()
        pair.check(3e-6)
        assert math.isclose(pair.ours.last_update.grad_norm, norm.item(), rel_tol=1e-5)
        assert pair.ours.last_update.nonfinite == ()
        # the gradients in p.grad stay what they are
        for p, grad in zip(pair.params[0], kept, strict=True):
            assert (p.grad is None and grad is None) or torch.equal(p.grad, grad)


def test_the_norm_of_gradients_that_lie_apart() -> None:
    shape = (12, 9)
    params = [torch.nn.Parameter(torch.ones(shape)) for _ in range(3)]
    opt = fastadam.torch.Adam(params, lr=0.1, max_grad_norm=0.5)
    for step in range(4):
        params[0].grad = torch.tensor(2.0 + step).expand(shape)
        params[1].grad = torch.randn(9, 12).t()
        params[2].grad = torch.randn(12, 18)[:, ::2]
        grads = [p.grad.clone() for p in params]
        expected = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))
        opt.step()
        assert math.isclose(opt.last_update.grad_norm, expected.item(), rel_tol=1e-6)


@pytest.mark.skipif(not hasattr(torch.Tensor, "grad_dtype"), reason="gradients have p's dtype")
@pytest.mark.parametrize("value", [None, 1.5])
def test_the_norm_of_gradients_of_another_dtype(value: float | None) -> None:
    params = [torch.nn.Parameter(torch.ones(12, 9)) for _ in range(2)]
    opt = fastadam.torch.Adam(params, lr=0.1, max_grad_norm=0.5, max_grad_value=value)
    for _ in range(3):
        for p in params:
            p.grad_dtype = torch.float64
            p.grad = torch.randn(12, 9, dtype=torch.float64)
        grads = [p.grad.float() for p in params]
        if value is not None:
            grads = [grad.clamp(-value, value) for grad in grads]
        expected = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))
        opt.step()
        assert math.isclose(opt.last_update.grad_norm, expected.item(), rel_tol=1e-6)
        assert all(torch.isfinite(p).all() for p in params)


@pytest.mark.parametrize("kind", KINDS)
def test_value(kind: str) -> None:
    pair = Pair(kind, values(torch.float32), lr=0.05, weight_decay=0.1)
    pair.ours.max_grad_value = 0.3
    for _ in range(3):
        pair.gradients()
        torch.nn.utils.clip_grad_value_(pair.params[1], 0.3)
        for opt, _ in pair.both:
            opt.step()
        pair.check()
    assert pair.ours.last_update.grad_norm is None


def test_value_comes_before_norm() -> None:
    pair = Pair("Adam", values(torch.float32), lr=0.05)
    pair.ours.max_grad_value, pair.ours.max_grad_norm = 0.3, 0.9
    for _ in range(3):
        pair.gradients()
        torch.nn.utils.clip_grad_value_(pair.params[1], 0.3)
        norm = torch.nn.utils.clip_grad_norm_(pair.params[1], 0.9)
        for opt, _ in pair.both:
            opt.step()
        pair.check()
        assert math.isclose(pair.ours.last_update.grad_norm, norm.item(), rel_tol=1e-5)


def test_gradients_that_the_loops_cannot_walk() -> None:
    pair = Pair("Adam", [torch.randn(4, 3, 5, 6), torch.randn(6, 4), torch.randn(2, 2)], lr=0.05)
    pair.ours.max_grad_norm = 1.0
    for _ in range(3):
        for params in pair.params:
            torch.manual_seed(int(pair.ours.last_update.t if pair.ours.last_update else 0))
            params[0].grad = torch.randn(4, 3, 5, 6).to(memory_format=torch.channels_last)
            params[1].grad = torch.randn(4, 6).t()
            params[2].grad = torch.randn(1).expand(2, 2)
        params[2].grad = params[2].grad.clone()
        norm = torch.nn.utils.clip_grad_norm_(pair.params[1], 1.0)
        for opt, _ in pair.both:
            opt.step()
        pair.check()
        assert math.isclose(pair.ours.last_update.grad_norm, norm.item(), rel_tol=1e-5)


@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_gradients_that_are_not_finite(bad: float) -> None:
    pair = Pair("Adam", [torch.randn(3), torch.randn(2)], lr=0.1, named=True)
    pair.ours.max_grad_norm = 1.0
    pair.gradients()
    for params in pair.params:
        params[1].grad[0] = bad
    torch.nn.utils.clip_grad_norm_(pair.params[1], 1.0)
    for opt, _ in pair.both:
        opt.step()
    for p, q in zip(*pair.params, strict=True):
        assert torch.equal(p.isnan(), q.isnan())
    assert pair.ours.last_update.nonfinite == ("w1",)
    assert not math.isfinite(pair.ours.last_update.grad_norm)


def test_bounds_are_checked() -> None:
    param = torch.nn.Parameter(torch.ones(2))
    for name in ("max_grad_norm", "max_grad_value"):
        for bad, error in (
            (0.0, ValueError),
            (-1, ValueError),
            (math.nan, ValueError),
            ("1", TypeError),
        ):
            with pytest.raises(error, match=name):
                fastadam.torch.AdamW([param], **{name: bad})
        opt = fastadam.torch.AdamW([param], lr=0.1, **{name: 1.0})
        param.grad = torch.ones(2)
        setattr(opt, name, True)
        before = snapshot(opt)
        with pytest.raises(TypeError, match=name):
            opt.step()
        assert same(snapshot(opt), before)
        setattr(opt, name, None)
        opt.step()


def test_report_of_what_was_stepped() -> None:
    params = [torch.nn.Parameter(torch.ones(2)) for _ in range(3)]
    opt = fastadam.torch.Adam([{"params": params[:2]}, {"params": params[2:]}], lr=0.1)
    assert opt.last_update is None
    params[1].grad = params[2].grad = torch.ones(2)
    opt.step()
    found = opt.last_update
    assert found.applied == ("param_groups[0]['params'][1]", "param_groups[1]['params'][0]")
    assert (found.t, found.skipped, found.grad_norm, found.nonfinite) == (1, False, None, None)
    params[1].grad = None
    opt.step()
    assert opt.last_update.applied == ("param_groups[1]['params'][0]",)
    assert opt.last_update.t == 2
