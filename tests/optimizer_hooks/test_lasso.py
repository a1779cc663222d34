"""Lasso: g + rate * sign(p)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastadam
from fastadam.optimizer_hooks import Lasso


@pytest.mark.parametrize("rate", [0.3, 1e-4, -0.7, 0])
def test_formula(rate: float, param: fastadam.Parameter, assert_close: Callable[..., None]) -> None:
    p, g = param.array.astype(np.float64), param.grad.astype(np.float64)
    Lasso(rate)(None, param)
    assert_close(param.grad, g + rate * np.sign(p), np.abs(g) + 2 * abs(rate))


def test_signs(dtype: np.dtype) -> None:
    """Nothing is added where the parameter is 0, of either sign, or too small to be anything."""
    tiny = {"float16": 2.0**-24, "bfloat16": 2.0**-133, "float32": 2.0**-149, "float64": 5e-324}
    p = np.array([0.0, -0.0, tiny[dtype.name], -tiny[dtype.name], 2, -3, np.inf, -np.inf], dtype)
    param = fastadam.Parameter(p)
    param.grad = np.ones(8, dtype)
    Lasso(0.5)(None, param)
    assert param.grad.astype(float).tolist() == [1, 1, 1.5, 0.5, 1.5, 0.5, 1.5, 0.5]


def test_nan_stays_nan() -> None:
    param = fastadam.Parameter(np.array([np.nan, 1.0]))
    param.grad = np.array([1.0, np.nan])
    Lasso(0.5)(None, param)
    assert np.isnan(param.grad).all()


def test_half_types_round_once() -> None:
    """The rate rounded to float16 would be a tie, which goes to 1."""
    param = fastadam.Parameter(np.ones(1, np.float16))
    param.grad = np.ones(1, np.float16)
    Lasso(2.0**-11 + 2.0**-23)(None, param)
    assert param.grad.tolist() == [1 + 2.0**-10]


def test_weights_are_driven_to_zero() -> None:
    """What an L1 penalty is for: of two weights, the one that the loss hardly needs vanishes."""
    x, y = np.array([3.0, 0.05]), np.array([3.0, 0.05])
    w = np.zeros(2)
    opt = fastadam.Adam(alpha=0.01).setup({"w": w})
    opt.add_hook(Lasso(0.1))
    for _ in range(2000):
        opt.apply_gradients({"w": x * (x * w - y)})
    assert w[0] == pytest.approx(1 - 0.1 / 9, abs=0.02)
    assert abs(w[1]) < 0.02


def test_the_rate_may_change() -> None:
    param = fastadam.Parameter(np.array([2.0, -2.0]))
    hook = Lasso(0.5)
    hook.rate = 0.25
    param.grad = np.zeros(2)
    hook(None, param)
    assert param.grad.tolist() == [0.25, -0.25]


@pytest.mark.parametrize("rate", ["0.1", None, [0.1], np.ones(2)])
def test_no_number(rate: Any) -> None:
    with pytest.raises(TypeError, match=r"Lasso\(rate=.*must be a number"):
        Lasso(rate)


def test_not_a_number() -> None:
    with pytest.raises(ValueError, match=r"Lasso\(rate=nan.*NaN"):
        Lasso(float("nan"))
