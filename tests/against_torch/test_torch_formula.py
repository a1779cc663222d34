"""The numbers: one step beside PyTorch's, and many beside 80-bit arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import pytest
import torch
from torch_pairs import KINDS, Pair, slack_of_a_step, values

import fastadam.torch

OPTIONS: list[dict[str, Any]] = [
    {},
    {"lr": 0.05, "betas": (0.7, 0.97), "eps": 1e-4},
    {"amsgrad": True, "lr": 0.03},
    {"maximize": True, "weight_decay": 0.2},
    {"weight_decay": 0.3, "amsgrad": True, "lr": 0.02, "eps": 1e-6},
    {"betas": (0.0, 0.9), "lr": 0.02},
    {"betas": (0.5, 0.0), "lr": 0.02},
    {"foreach": True, "lr": 0.02},
    {"fused": True, "lr": 0.02},
]

EPS = {torch.float32: 2.0**-23, torch.float64: 2.0**-52}


@pytest.mark.parametrize("kind", KINDS)
def test_one_step_from_the_same_state(
    kind: str, case: Callable[..., AbstractContextManager[None]]
) -> None:
    for options in OPTIONS:
        for dtype, eps in EPS.items():
            with case(options=options, dtype=dtype):
                pair = Pair(kind, values(dtype), **options)
                for _ in range(12):
                    before = [q.detach().clone() for q in pair.params[1]]
                    pair.step()
                    for p, q, old in zip(*pair.params, before, strict=True):
                        slack = slack_of_a_step(q, old, eps, options.get("lr", 1e-3))
                        assert ((p - q).abs() <= slack).all()
                        p.data.copy_(q)
                        for key, value in pair.theirs.state[q].items():
                            pair.ours.state[p][key].copy_(value)


def exact_steps(
    p: Any, grads: list[Any], lr: float, betas: tuple[float, float], eps: float, decay: float
) -> Any:
    """AdamW in 80-bit arithmetic, without its rounding."""
    wide = np.longdouble
    p = p.astype(wide)
    m, v = np.zeros_like(p), np.zeros_like(p)
    beta1, beta2 = map(wide, betas)
    for t, g in enumerate(grads, 1):
        g = g.astype(wide)
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g * g
        p = p - wide(lr) * wide(decay) * p
        p = p - wide(lr) * (m / (1 - beta1**t)) / (np.sqrt(v / (1 - beta2**t)) + wide(eps))
    return p


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_two_hundred_steps_beside_80_bits(dtype: torch.dtype) -> None:
    if np.finfo(np.longdouble).eps > 1e-18:
        pytest.skip("long double has 64 bits here")
    options = {"lr": 0.01, "betas": (0.85, 0.98), "eps": 1e-7, "weight_decay": 0.1}
    pair = Pair("AdamW", [torch.randn(2000, dtype=dtype)], **options)
    start = pair.params[1][0].detach().numpy().copy()
    grads = []
    for _ in range(200):
        pair.step()
        grads.append(pair.params[1][0].grad.numpy().copy())
    exact = exact_steps(start, grads, 0.01, (0.85, 0.98), 1e-7, 0.1)
    ours, theirs = (
        np.sqrt(np.mean((params[0].detach().numpy() - exact) ** 2)) for params in pair.params
    )
    assert 0 < ours <= 1.5 * theirs


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_complex_numbers(kind: str, dtype: torch.dtype) -> None:
    pair = Pair(kind, values(dtype), lr=0.05, weight_decay=0.1, amsgrad=True, betas=(0.8, 0.9))
    for _ in range(5):
        pair.step()
    pair.check()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_rounded_once(dtype: torch.dtype) -> None:
    if dtype is torch.bfloat16:
        pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")
    p = torch.nn.Parameter(torch.randn(500).to(dtype))
    q = torch.nn.Parameter(p.detach().float())
    ours = fastadam.torch.AdamW([p], lr=0.02, betas=(0.8, 0.9))
    theirs = torch.optim.AdamW([q], lr=0.02, betas=(0.8, 0.9))
    for _ in range(5):
        p.grad = torch.randn(500).to(dtype)
        q.grad = p.grad.float()
        ours.step()
        theirs.step()
        # the step is that of float32, and its result is rounded
        expected = q.detach().to(dtype)
        near = (p.detach().float() - q.detach()).abs() <= 1.01 * (expected.float() - q).abs() + 1e-5
        assert near.all()
        q.data.copy_(p.detach().float())
        for key in ("exp_avg", "exp_avg_sq"):
            assert ours.state[p][key].dtype is torch.float32
            torch.testing.assert_close(ours.state[p][key], theirs.state[q][key])


def test_no_trace_of_a_moment_without_beta() -> None:
    pair = Pair("Adam", [torch.zeros(3)], betas=(0.0, 0.0), lr=0.1)
    pair.step(1e6)
    pair.step(1e-6)
    pair.check(1e-7)
    state = pair.ours.state[pair.params[0][0]]
    assert torch.equal(state["exp_avg"], pair.params[0][0].grad)
