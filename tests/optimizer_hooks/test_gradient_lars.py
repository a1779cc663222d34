"""GradientLARS: r * (g + weight_decay * p), r the quotient of the norms."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastadam
from fastadam.optimizer_hooks import GradientLARS


def with_gradient(p: Any, g: Any, dtype: Any = np.float64) -> fastadam.Parameter:
    """A parameter with its gradient."""
    param = fastadam.Parameter(np.array(p, dtype), name="W")
    param.grad = np.array(g, dtype)
    return param


def test_formula(
    param: fastadam.Parameter, assert_close: Callable[..., None], case: Callable[..., Any]
) -> None:
    grad = param.grad
    start = grad.copy()
    for threshold in (0.0, 0.01, 2.0, 100.0):
        for decay, eps in ((0.0, 1e-9), (0.3, 0.5), (0.3, 0.0)):
            with case(threshold=threshold, decay=decay, eps=eps):
                # written into, so that it keeps its layout
                grad[...] = start
                param.grad = grad
                check_formula(threshold, decay, eps, param, assert_close)


def check_formula(
    threshold: float,
    decay: float,
    eps: float,
    param: fastadam.Parameter,
    assert_close: Callable[..., None],
) -> None:
    p, g = param.array.astype(np.float64), param.grad.astype(np.float64)
    p_norm, g_norm = np.sqrt(np.sum(p * p)), np.sqrt(np.sum(g * g))
    scaled = p_norm > threshold
    rate = p_norm / (eps + g_norm + decay * p_norm) if scaled else 1.0
    GradientLARS(threshold, decay, eps)(None, param)
    terms = rate * (np.abs(g) + 2 * np.abs(decay * p))
    assert_close(param.grad, rate * (g + decay * p), terms, roundings=5)


@pytest.mark.parametrize(("threshold", "scaled"), [(4.999, True), (5.0, False), (5.001, False)])
def test_the_threshold_is_for_the_parameter(threshold: float, scaled: bool) -> None:
    param = with_gradient([3, 4], [60, 80])
    GradientLARS(threshold, eps=0)(None, param)
    assert param.grad.tolist() == pytest.approx([3, 4] if scaled else [60, 80], rel=1e-15)


def test_a_decayed_gradient_below_the_threshold() -> None:
    param = with_gradient([3, 4], [60, 80])
    GradientLARS(100, 0.5)(None, param)
    assert param.grad.tolist() == [61.5, 82]


@pytest.mark.parametrize("eps", [0, 1e-9, 1])
@pytest.mark.parametrize("decay", [0, 0.5])
def test_zero_gradient(eps: float, decay: float, dtype: np.dtype) -> None:
    """No warning, no NaN, whatever eps; a decay remains."""
    param = with_gradient([3, 4], [0, 0], dtype)
    GradientLARS(weight_decay=decay, eps=eps)(None, param)
    rate = 5 / (eps + decay * 5) if decay else 0
    expected = np.array([3, 4]) * decay * rate
    np.testing.assert_allclose(param.grad.astype(float), expected, rtol=4e-3, atol=0)


@pytest.mark.parametrize("threshold", [0, 0.01])
def test_zero_parameter(threshold: float, dtype: np.dtype) -> None:
    """It is not scaled: the rate would be 0 for ever."""
    param = with_gradient([0, 0], [60, 80], dtype)
    GradientLARS(threshold, 0.5)(None, param)
    assert param.grad.astype(float).tolist() == [60, 80]


def test_norms_do_not_overflow() -> None:
    """In float16 the norm of three times 300 would be infinite."""
    param = with_gradient([300] * 3, [150] * 3, np.float16)
    GradientLARS(eps=0)(None, param)
    assert param.grad.tolist() == [300] * 3
    param = with_gradient([1e30] * 3, [2e30] * 3, np.float32)
    GradientLARS(eps=0)(None, param)
    np.testing.assert_allclose(param.grad, 1e30, rtol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite(bad: float) -> None:
    """The parameter that has it becomes NaN, as without the hook; nobody is warned."""
    param = with_gradient([3, 4], [bad, 1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        GradientLARS()(None, param)
    assert np.isnan(param.grad[0])
    assert not param.grad[1] > 0


def test_the_gradient_gets_the_size_of_the_parameter() -> None:
    """What it is for: steps do not depend on the scale of the loss."""
    rng = np.random.default_rng(0)
    p, g = rng.standard_normal(100), rng.standard_normal(100)
    results = []
    for scale in (1e-3, 1, 1e5):
        param = with_gradient(p, scale * g)
        GradientLARS()(None, param)
        results.append(param.grad)
        assert np.linalg.norm(param.grad) == pytest.approx(np.linalg.norm(p), rel=1e-6)
    np.testing.assert_allclose(results[0], results[2], rtol=1e-6)


def test_attributes_may_change() -> None:
    hook = GradientLARS()
    assert (hook.threshold, hook.weight_decay, hook.eps) == (0.01, 0.0, 1e-9)
    hook.threshold, hook.weight_decay, hook.eps = 1, 0.5, 2.5
    param = with_gradient([3, 4], [3, 4])
    hook(None, param)
    np.testing.assert_allclose(param.grad, 5 / (2.5 + 5 + 2.5) * 1.5 * np.array([3, 4]))


@pytest.mark.parametrize("name", ["threshold", "weight_decay", "eps"])
def test_arguments(name: str) -> None:
    for bad in ("1", None, [1]):
        with pytest.raises(TypeError, match=rf"GradientLARS\({name}=.*must be a number"):
            GradientLARS(**{name: bad})  # type: ignore[arg-type]
    for bad in (-1e-9, -np.inf):
        with pytest.raises(ValueError, match=rf"GradientLARS\({name}=.*below 0"):
            GradientLARS(**{name: bad})
    with pytest.raises(ValueError, match=rf"GradientLARS\({name}=nan.*NaN"):
        GradientLARS(**{name: np.nan})
