"""GradientHardClipping: every element between two bounds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastadam
from fastadam.optimizer_hooks import GradientHardClipping


@pytest.mark.parametrize(
    ("lower", "upper"), [(-0.5, 0.25), (-0.3, 0.7), (0.1, 0.1), (0, np.inf), (-np.inf, 0.2)]
)
def test_formula(lower: float, upper: float, param: fastadam.Parameter) -> None:
    g = param.grad.astype(np.float64)
    dtype = param.grad.dtype
    GradientHardClipping(lower, upper)(None, param)
    lower, upper = (float(np.array(bound).astype(dtype)) for bound in (lower, upper))
    expected = [min(max(x, lower), upper) for x in g.ravel().tolist()]
    assert param.grad.astype(np.float64).ravel().tolist() == expected


def test_infinite_bounds_change_nothing(dtype: np.dtype) -> None:
    g = np.array([-np.inf, -3, -0.0, 0, 5, np.inf, np.nan], dtype)
    param = fastadam.Parameter(np.ones(7, dtype))
    param.grad = g.copy()
    GradientHardClipping(-np.inf, np.inf)(None, param)
    assert param.grad.tobytes() == g.tobytes()


def test_what_is_not_finite(dtype: np.dtype) -> None:
    param = fastadam.Parameter(np.ones(3, dtype))
    param.grad = np.array([-np.inf, np.inf, np.nan], dtype)
    GradientHardClipping(-1, 2)(None, param)
    np.testing.assert_array_equal(param.grad.astype(float), [-1, 2, np.nan])


def test_bounds_beyond_the_dtype() -> None:
    """They are infinite there, and no warning."""
    param = fastadam.Parameter(np.ones(2, np.float32))
    param.grad = np.array([-3e38, 3e38], np.float32)
    before = param.grad.copy()
    GradientHardClipping(-1e300, 1e300)(None, param)
    np.testing.assert_array_equal(param.grad, before)


def test_bounds_may_change() -> None:
    param = fastadam.Parameter(np.ones(2))
    param.grad = np.array([-5.0, 5.0])
    hook = GradientHardClipping(-1, 1)
    hook.lower_bound, hook.upper_bound = -4, np.float32(3)
    hook(None, param)
    assert param.grad.tolist() == [-4, 3]


@pytest.mark.parametrize(("lower", "upper"), [(1, -1), (np.inf, -np.inf), (0.5, 0.25)])
def test_bounds_in_the_wrong_order(lower: float, upper: float) -> None:
    with pytest.raises(ValueError, match=r"lower_bound .* must not be above upper_bound"):
        GradientHardClipping(lower, upper)


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("bad", [None, "1", [1], np.ones(2)])
def test_no_number(which: int, bad: Any) -> None:
    bounds = [bad, 1] if which == 0 else [-1, bad]
    name = ("lower_bound", "upper_bound")[which]
    with pytest.raises(TypeError, match=rf"GradientHardClipping\({name}=.*must be a number"):
        GradientHardClipping(*bounds)


@pytest.mark.parametrize("bounds", [(np.nan, 1), (-1, np.nan)])
def test_not_a_number(bounds: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="must not be NaN"):
        GradientHardClipping(*bounds)


def test_order_of_the_arguments() -> None:
    hook = GradientHardClipping(upper_bound=2, lower_bound=-1)
    assert (hook.lower_bound, hook.upper_bound) == (-1, 2)
