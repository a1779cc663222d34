"""GradientClipping: the common norm, of whom, and what is done with it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastadam
from fastadam.kernels.sums import global_norm
from fastadam.optimizer_hooks import GradientClipping


class Foreign:
    """An optimizer of another library, as far as the hook needs it."""

    def __init__(self, *params: Any) -> None:
        self.target = self
        self._params = params

    def params(self) -> Any:
        """Return the parameters, as a link does."""
        return iter(self._params)


def with_gradient(g: Any, dtype: Any = np.float64) -> fastadam.Parameter:
    """A parameter of ones with its gradient."""
    g = np.array(g, dtype)
    param = fastadam.Parameter(np.ones(g.shape, dtype))
    param.grad = g
    return param


@pytest.mark.parametrize("threshold", [0.0, 0.25, 1.5, 1e6, math.inf])
def test_formula_of_one(
    threshold: float, param: fastadam.Parameter, assert_close: Callable[..., None]
) -> None:
    g = param.grad.astype(np.float64)
    norm = np.sqrt(np.sum(g * g))
    rate = min(1.0, threshold / norm) if norm else 1.0
    GradientClipping(threshold)(Foreign(param))
    assert_close(param.grad, rate * g, np.abs(rate * g), roundings=4)


@pytest.mark.parametrize("threshold", [0.5, 20.0])
def test_formula_of_all(threshold: float, link_of: Callable[..., Any]) -> None:
    """The norm is of all gradients together, whatever their dtypes and layouts."""
    rng = np.random.default_rng(2)
    arrays = [
        rng.standard_normal((4, 5)),
        rng.standard_normal((9, 4)).astype(np.float32)[::2],
        rng.standard_normal(7).astype(np.float16),
        np.asfortranarray(rng.standard_normal((3, 3))),
        np.array(2.5),
        np.zeros((0, 4)),
    ]
    params = {f"p{i}": fastadam.Parameter(np.ones_like(a)) for i, a in enumerate(arrays)}
    for param, array in zip(params.values(), arrays, strict=True):
        param.grad = array
    before = [array.astype(np.float64) for array in arrays]
    norm = math.sqrt(sum(float(np.sum(g * g)) for g in before))
    assert 0.5 < norm < 20
    opt = fastadam.Adam().setup(link_of(**params))
    opt.add_hook(GradientClipping(threshold))
    opt.call_hooks()
    rate = min(1, threshold / norm)
    for param, array, g in zip(params.values(), arrays, before, strict=True):
        assert param.grad is array
        rtol = {2: 5e-4, 4: 2e-7, 8: 1e-15}[array.dtype.itemsize]
        np.testing.assert_allclose(array.astype(np.float64), rate * g, rtol=rtol)
    if rate < 1:
        clipped = math.sqrt(sum(float(np.sum(p.grad.astype(float) ** 2)) for p in params.values()))
        assert clipped == pytest.approx(threshold, rel=1e-4)


def test_a_norm_that_is_just_not_above() -> None:
    """Not one bit is changed."""
    for threshold in (5.0, np.nextafter(5.0, 6), 6):
        param = with_gradient([3, 4])
        GradientClipping(threshold)(Foreign(param))
        assert param.grad.tolist() == [3, 4]
    param = with_gradient([3, 4])
    GradientClipping(np.nextafter(5.0, 4))(Foreign(param))
    assert global_norm([param.grad]) < 5


def test_float16_does_not_overflow() -> None:
    """Chainer's norm is infinite, and all gradients become 0."""
    param = with_gradient([300.0] * 3, np.float16)
    GradientClipping(1)(Foreign(param))
    expected = np.float16(1 / math.sqrt(3))
    assert param.grad.tolist() == [expected] * 3
    param = with_gradient([3e38] * 4, np.float32)
    GradientClipping(1)(Foreign(param))
    np.testing.assert_allclose(param.grad, 0.5, rtol=1e-6)
    param = with_gradient([1e200] * 4)
    GradientClipping(1)(Foreign(param))
    np.testing.assert_allclose(param.grad, 0.5, rtol=1e-15)


@pytest.mark.parametrize("threshold", [0, 1])
def test_zero_norm_without_warnings(threshold: float, dtype: np.dtype) -> None:
    param = with_gradient([0, 0], dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        GradientClipping(threshold)(Foreign(param))
        GradientClipping(threshold)(Foreign())
    assert param.grad.astype(float).tolist() == [0, 0]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite(bad: float, dtype: np.dtype) -> None:
    """The gradients are left as they are: on_nonfinite says what is done."""
    params = [with_gradient([3, 4], dtype), with_gradient([bad, 1], dtype)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        GradientClipping(1)(Foreign(*params))
    assert params[0].grad.astype(float).tolist() == [3, 4]
    np.testing.assert_array_equal(params[1].grad.astype(float), [bad, 1])


def test_the_norm_is_that_of_the_report(link_of: Callable[..., Any]) -> None:
    """Both sum in one order, so that a threshold is met exactly."""
    rng = np.random.default_rng(1)
    param = with_gradient(rng.standard_normal(10_000), np.float32)
    opt = fastadam.Adam().setup(link_of(W=param))
    opt.monitor = True
    opt.update()
    before = param.grad.copy()
    opt.add_hook(GradientClipping(opt.last_update.grad_norm))
    opt.update()
    np.testing.assert_array_equal(param.grad, before)


class TestOfAnotherLibrary:
    def test_shared_parameters_count_once(self) -> None:
        param = with_gradient([3, 4])
        GradientClipping(2.5)(Foreign(param, param))
        assert param.grad.tolist() == [1.5, 2]

    def test_who_has_nothing_does_not_count(self) -> None:
        param, cleared, lazy = with_gradient([3, 4]), with_gradient([9]), fastadam.Parameter(0)
        cleared.grad = None
        GradientClipping(2.5)(Foreign(cleared, param, lazy))
        assert param.grad.tolist() == [1.5, 2]
        assert cleared.grad is None

    def test_who_is_disabled_does_not_count(self) -> None:
        param, disabled, rule = with_gradient([3, 4]), with_gradient([9]), fastadam.AdamRule()
        rule.enabled = False
        disabled.update_rule = rule
        param.update_rule = fastadam.AdamRule()
        GradientClipping(2.5)(Foreign(disabled, param))
        assert param.grad.tolist() == [1.5, 2]
        assert disabled.grad.tolist() == [9]

    def test_scaled_gradients(self) -> None:
        params = [with_gradient([3 * 8]), with_gradient([4 * 2])]
        params[0]._loss_scale, params[1]._loss_scale = 8, 2
        GradientClipping(2.5)(Foreign(*params))
        assert [param.grad.tolist() for param in params] == [[1.5], [2]]
        assert [param._loss_scale for param in params] == [None, None]


def test_without_setup() -> None:
    with pytest.raises(RuntimeError, match="setup"):
        GradientClipping(1)(fastadam.Adam())


def test_the_threshold_may_change() -> None:
    hook = GradientClipping(1)
    param = with_gradient([3, 4])
    hook.threshold = 2.5
    hook(Foreign(param))
    assert param.grad.tolist() == [1.5, 2]
    hook.threshold = np.float32(1.25)
    hook(Foreign(param))
    assert param.grad.tolist() == [0.75, 1]


@pytest.mark.parametrize(
    ("threshold", "error", "message"),
    [
        (-1, ValueError, r"GradientClipping\(threshold=-1\).*below 0"),
        (math.nan, ValueError, r"GradientClipping\(threshold=nan\).*NaN"),
        ("1", TypeError, r"GradientClipping\(threshold='1'\).*number"),
        (None, TypeError, r"GradientClipping\(threshold=None\).*number"),
        ([1], TypeError, r"GradientClipping\(threshold=\[1\]\).*number"),
    ],
)
def test_arguments(threshold: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        GradientClipping(threshold)
