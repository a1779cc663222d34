"""A gradient and its loss scale always mean the same true gradient, whoever looks at it when."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest

import fastadam
from fastadam.optimizer_hooks import (
    GradientClipping,
    GradientHardClipping,
    GradientNoise,
    Lasso,
    WeightDecay,
)
from fastadam.update.gradients import gradient_pass, is_scaled, unscale_gradients

HYPER = {"alpha": 0.02, "beta1": 0.8, "beta2": 0.95, "eps": 1e-3, "eta": 0.7}
DTYPES = ("float16", "bfloat16", "float32", "float64")


def dtype_of(name: str) -> np.dtype:
    """The dtype of a name, or a skip where bfloat16 is not to be had."""
    if name == "bfloat16":
        reason = "needs ml_dtypes, which has bfloat16"
        return np.dtype(pytest.importorskip("ml_dtypes", reason=reason).bfloat16)
    return np.dtype(name)


def param_of(gradient: Any, scale: float | None = None, dtype: Any = None) -> fastadam.Parameter:
    """A parameter of ones whose gradient is as a backward pass with a loss scale leaves it."""
    gradient = np.asarray(gradient, dtype)
    param = fastadam.Parameter(np.ones(gradient.shape, gradient.dtype))
    param.grad = (gradient * gradient.dtype.type(scale or 1)).astype(gradient.dtype)
    param._loss_scale = scale
    return param


def link_of(**params: fastadam.Parameter) -> fastadam.Link:
    """A link with these parameters."""
    link = fastadam.Link()
    with link.init_scope():
        for name, param in params.items():
            setattr(link, name, param)
    return link


class Look:
    """A hook that remembers the gradients and loss scales that it sees."""

    def __init__(self, name: str, each: bool, timing: str) -> None:
        self.name, self.call_for_each_param, self.timing = name, each, timing
        self.seen: list[tuple[list[float], Any, str]] = []

    def __call__(self, first: Any, param: Any = None) -> None:
        params = [param] if self.call_for_each_param else first.target.params()
        for one in params:
            scale = getattr(one, "_loss_scale", "missing")
            self.seen.append((one.grad.astype(float).tolist(), scale, one.grad.dtype.name))


@pytest.mark.parametrize("fp32", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_hook_sees_the_true_gradient(dtype: str, fp32: bool) -> None:
    param = param_of([0.5, -2.0, 3.0], 1024, dtype_of(dtype))
    opt = fastadam.Adam(**HYPER).setup(link_of(w=param))
    opt.use_fp32_update(fp32)
    looks = [
        Look("for all", False, "pre"),
        Look("for each", True, "pre"),
        Look("rule pre", True, "pre"),
        Look("rule post", True, "post"),
        Look("after", False, "post"),
    ]
    for look in looks[:2] + looks[4:]:
        opt.add_hook(look)
    for look in looks[2:4]:
        param.update_rule.add_hook(look)
    for _ in range(2):
        opt.update()
    wide = "float64" if dtype == "float64" else "float32"
    for look in looks:
        assert look.seen == [([0.5, -2.0, 3.0], None, wide)] * 2, look.name


@pytest.mark.parametrize("by_itself", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_updates_without_a_new_backward_pass(dtype: str, by_itself: bool) -> None:
    """In Chainer each of them divides again: 10, 1, 0.1."""
    scaled = param_of([10.0, -3.0], 16, dtype_of(dtype))
    plain = param_of([10.0, -3.0], None, dtype_of(dtype))
    optimizers = [fastadam.AdamW(**HYPER).setup(link_of(w=param)) for param in (scaled, plain)]
    if by_itself:
        scaled.update_rule.add_hook(lambda rule, param: None, "nothing")
    for _ in range(3):
        for opt in optimizers:
            opt.update()
        np.testing.assert_array_equal(scaled.array, plain.array)
        assert scaled.grad.astype(float).tolist() == [10.0, -3.0]
        assert scaled._loss_scale is None
    for key in "mv":
        np.testing.assert_array_equal(scaled.update_rule.state[key], plain.update_rule.state[key])


@pytest.mark.parametrize("dtype", DTYPES)
def test_param_update_divides_once_too(dtype: str) -> None:
    scaled = param_of([10.0, -3.0], 16, dtype_of(dtype))
    plain = param_of([10.0, -3.0], None, dtype_of(dtype))
    for param in (scaled, plain):
        param.update_rule = fastadam.AdamRule(**HYPER)
        param.update()
        param.update()
    np.testing.assert_array_equal(scaled.array, plain.array)
    assert scaled._loss_scale is None


def test_every_parameter_has_a_scale_of_its_own() -> None:
    scales = {"a": 8.0, "b": None, "c": 1000.0, "d": 0.5}
    params = {name: param_of([1.0, -0.25, 7.0], scale, "f4") for name, scale in scales.items()}
    opt = fastadam.Adam(**HYPER).setup(link_of(**params))
    params["b"].cleargrad()
    params["d"].update_rule.enabled = False
    opt.update()
    for name in "acd":
        assert params[name].grad.tolist() == [1.0, -0.25, 7.0]
        assert params[name]._loss_scale is None
    assert params["b"].grad.tolist() == [0, 0, 0]
    np.testing.assert_array_equal(params["a"].array, params["c"].array)
    assert params["d"].array.tolist() == [1, 1, 1]
    # the gradient of one that was disabled is not divided again when it is enabled
    params["d"].update_rule.enabled = True
    opt.update()
    assert params["d"].grad.tolist() == [1.0, -0.25, 7.0]


def test_the_quotient_of_a_half_gradient_keeps_its_digits() -> None:
    """2**-24 is the smallest float16; a 1024th of it is far below, and none of it is lost."""
    param = param_of(np.zeros(2, np.float16))
    param.grad = np.array([2.0**-24, -3 * 2.0**-24], np.float16)
    param._loss_scale = 1024
    opt = fastadam.Adam(alpha=0.125).setup(link_of(w=param))
    opt.monitor = True
    opt.update()
    assert param.grad.dtype == np.float32
    assert param.grad.tolist() == [2.0**-34, -3 * 2.0**-34]
    assert opt.last_update.grad_norm == math.sqrt(10) * 2.0**-34
    np.testing.assert_array_equal(
        param.update_rule.state["m"], np.float32(1 - 0.9) * param.grad, strict=True
    )


def test_a_callers_gradient_is_not_written() -> None:
    params = {"w": np.ones((2, 3), np.float16), "x": np.ones(3), "s": np.ones(())}
    gradients = {
        "w": np.full((2, 3), 8, np.float16),
        "x": np.broadcast_to(np.float64(16), 3),
        "s": np.float32(4),
    }
    gradients["w"].flags.writeable = False
    opt = fastadam.Adam(**HYPER).setup(params)
    opt.add_hook(WeightDecay(0.5))
    seen = {}

    def look(opt: Any) -> None:
        seen.update({path: param.grad.copy() for path, param in opt.parameters.items()})

    opt.add_hook(look, "look")
    opt.apply_gradients(gradients, loss_scale=8)
    # the true gradients and half of the parameters, which are 1
    for path, expected in {"w": 1.5, "x": 2.5, "s": 1.0}.items():
        np.testing.assert_array_equal(seen[path], np.full_like(seen[path], expected))
    assert gradients["w"].tolist() == [[8, 8, 8], [8, 8, 8]]
    assert gradients["x"].tolist() == [16, 16, 16]
    # nor is it kept, or its scale
    for param in opt.parameters.values():
        assert (param.grad, param._loss_scale) == (None, None)


class Interrupt(Exception):
    """What the hook of the next test raises."""


def test_a_pair_survives_a_hook_that_raises() -> None:
    def interrupt(opt: Any) -> None:
        raise Interrupt

    params = [param_of([10.0, -3.0], scale, "f2") for scale in (64, None)]
    optimizers = [fastadam.Adam(**HYPER).setup(link_of(w=param)) for param in params]
    optimizers[0].add_hook(interrupt, "interrupt")
    with pytest.raises(Interrupt):
        optimizers[0].update()
    optimizers[0].remove_hook("interrupt")
    for opt in optimizers:
        opt.update()
    np.testing.assert_array_equal(params[0].array, params[1].array)
    assert optimizers[0].t == 1


def true_gradient(param: fastadam.Parameter) -> list[float]:
    """What a pair means."""
    assert param.grad is not None
    return (param.grad.astype(float) / (param._loss_scale or 1)).tolist()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scales", [(8, 8), (8, 2), (8, None), (None, 8), (1, None), (3, 7)])
def test_adding_gradients_of_any_scales(scales: tuple[Any, Any], dtype: str) -> None:
    mine = param_of([1.0, -2.5], scales[0], dtype_of(dtype))
    theirs = param_of([0.5, 0.125], scales[1], dtype_of(dtype))
    before = theirs.grad.copy()
    mine.addgrad(theirs)
    assert true_gradient(mine) == pytest.approx([1.5, -2.375], rel=2e-7)
    # the other keeps its own
    np.testing.assert_array_equal(theirs.grad, before)
    assert theirs._loss_scale == scales[1]
    opt = fastadam.Adam(**HYPER).setup(link_of(w=mine))
    opt.monitor = True
    opt.update()
    assert opt.last_update.grad_norm == pytest.approx(math.hypot(1.5, 2.375), rel=2e-7)


def test_accumulating_keeps_what_a_half_type_cannot_hold() -> None:
    """The scaled gradients are float16; the sum of the true ones is not."""
    total = param_of(np.zeros(2, np.float16))
    total.cleargrad()
    for scale in (1024.0, 4096.0, 512.0, None):
        part = param_of(np.zeros(2, np.float16))
        part.grad = np.array([2.0**-20, -(2.0**-22)], np.float16)
        part._loss_scale = scale
        total.addgrad(part)
    sums = [g * (2.0**-10 + 2.0**-12 + 2.0**-9 + 1) for g in (2.0**-20, -(2.0**-22))]
    assert true_gradient(total) == sums
    assert total.grad.dtype == np.float32
    assert total._loss_scale is None


def test_a_shared_gradient_is_divided_for_each_of_its_parameters() -> None:
    """addgrad to a cleared parameter shares the array; one division must not reach the other."""
    first, second = param_of(np.zeros(2, "f4")), param_of([4.0, -8.0], 2, "f4")
    first.cleargrad()
    first.addgrad(second)
    assert first.grad is second.grad
    assert first._loss_scale == 2
    opt = fastadam.Adam(**HYPER).setup(link_of(a=first, b=second))
    for _ in range(2):
        opt.update()
        assert first.grad.tolist() == second.grad.tolist() == [4.0, -8.0]
    np.testing.assert_array_equal(first.array, second.array)


def test_clearing_and_copying_pairs() -> None:
    param = param_of([1.0], 8, "f4")
    again = copy.deepcopy(param)
    assert (again.grad.tolist(), again._loss_scale) == ([8.0], 8)
    param.cleargrad()
    assert param._loss_scale is None
    with pytest.warns(DeprecationWarning, match="zerograd"):
        again.zerograd()
    assert (again.grad.tolist(), again._loss_scale) == ([0.0], None)


# What the hooks make of true gradients (2, 2, 2) of parameters (1, 1, 1). Chainer's hooks see
# gradients multiplied by the loss scale: at 1024 clipping to a norm of 1 left 0.00056.
HOOKS = {
    "decay": (WeightDecay(1), 3.0),
    "lasso": (Lasso(1), 3.0),
    "hard clipping": (GradientHardClipping(-1, 1), 1.0),
    "noise": (GradientNoise(1, lambda xp, shape, dtype, hook, rule: np.ones(shape, dtype)), 3.0),
    # the last one, since a rule cannot have it: it takes an optimizer
    "clipping": (GradientClipping(1), math.sqrt(1 / 3)),
}


@pytest.mark.parametrize("scale", [None, 1.0, 1024.0])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("name", "where"),
    [(name, where) for name in HOOKS for where in ("optimizer", "rule")][:-1],
)
def test_hooks_at_any_loss_scale(name: str, where: str, dtype: str, scale: float | None) -> None:
    """Weight decay of a rule gave 1026 in Chainer at a scale of 1024, instead of 3."""
    hook, expected = HOOKS[name]
    param = param_of([2.0, 2.0, 2.0], scale, dtype_of(dtype))
    opt = fastadam.Adam(**HYPER).setup(link_of(w=param))
    (opt if where == "optimizer" else param.update_rule).add_hook(hook)
    look = Look("look", True, "pre")
    param.update_rule.add_hook(look)
    opt.update()
    [(gradient, left, _)] = look.seen
    tolerance = {"float16": 2e-3, "bfloat16": 1e-2}.get(dtype, 1e-7) if scale is None else 1e-7
    assert gradient == pytest.approx([expected] * 3, rel=tolerance if name == "clipping" else 0)
    assert left is None


@pytest.mark.parametrize("name", HOOKS)
def test_hooks_that_are_called_by_hand(name: str) -> None:
    """Outside of an update the gradient may still be scaled: they divide, and say so."""
    hook, expected = HOOKS[name]
    param = param_of([2.0, 2.0, 2.0], 1024, "float16")
    opt = fastadam.Adam(**HYPER).setup(link_of(w=param))
    opt.add_hook(hook)
    opt.call_hooks("pre")
    assert param.grad.tolist() == pytest.approx([expected] * 3, rel=1e-6)
    assert param._loss_scale is None


def facts(*gradients: Any, **kinds: Any) -> Any:
    """What the pass finds in these gradients."""
    params = {str(i): param_of(gradient, **kinds) for i, gradient in enumerate(gradients)}
    return gradient_pass(params, {})


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_norm_is_that_of_float64(dtype: str) -> None:
    random = np.random.default_rng(5)
    gradients = [random.normal(size=n).astype(dtype_of(dtype)) for n in (1, 0, 5000, 17)]
    exact = math.sqrt(math.fsum(float(x) ** 2 for g in gradients for x in g))
    found = facts(*gradients)
    assert found.norm == pytest.approx(exact, rel=1e-14)
    assert found.nonfinite == ()


def test_a_norm_that_the_gradients_dtype_cannot_hold() -> None:
    """Three float16 of 300 have a sum of squares of 270000; float16 ends at 65504."""
    assert facts(np.full(3, 300, np.float16)) == ((), math.sqrt(270_000))
    assert facts(np.full(4, 65504, np.float16)) == ((), 2 * 65504.0)
    big = np.full(4, 3e38, np.float32)
    # the norm is finite, and the second moment would not be
    assert facts(big) == (("0",), 2 * float(big[0]))
    found = facts(np.array([3e200]), np.array([-4e200]), np.ones(2))
    assert found.nonfinite == ("0", "1")
    assert found.norm == pytest.approx(5e200)


@pytest.mark.parametrize("scale", [1.0, 1024.0])
def test_clipping_does_not_erase_gradients_whose_float16_norm_overflows(scale: float) -> None:
    """Chainer's norm of three float16 of 300 is infinite, and it sets all gradients to 0."""
    param = param_of(np.full(3, 300 / scale), scale, np.float16)
    opt = fastadam.Adam(**HYPER).setup(link_of(w=param))
    opt.add_hook(GradientClipping(math.sqrt(3)))
    opt.monitor = True
    opt.update()
    assert opt.last_update.grad_norm == pytest.approx(math.sqrt(3) * 300 / scale, rel=1e-3)
    size = min(1.0, 300 / scale)
    assert param.grad.astype(float).tolist() == pytest.approx([size] * 3, rel=1e-3)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_gradients_that_are_not_finite_are_named(bad: float, dtype: str) -> None:
    good = np.ones(5000)
    worse = good.copy()
    worse[4999] = bad
    found = facts(good, worse, good, [bad, bad], dtype=dtype_of(dtype))
    assert found.nonfinite == ("1", "3")
    assert not math.isfinite(found.norm)


def test_what_unscaling_has_summed_is_not_summed_again() -> None:
    params = {"a": param_of([3.0]), "b": param_of([8.0], 2), "none": param_of([1.0])}
    params["none"].cleargrad()
    squares = unscale_gradients(params.values())
    assert {key: square() for key, square in squares.items()} == {id(params["b"]): 64.0}
    assert gradient_pass(params, squares) == ((), math.sqrt(9 + 64))
    assert gradient_pass(params, {id(params["b"]): lambda: 16.0}) == ((), 5.0)
    assert unscale_gradients(params.values()) == {}


def test_what_counts_as_scaled() -> None:
    assert is_scaled(param_of([1.0], 2.0))
    assert is_scaled(param_of([1.0], 1.0))
    assert not is_scaled(param_of([1.0]))
    lazy = fastadam.Parameter()
    lazy._loss_scale = 2.0
    assert not is_scaled(lazy)
    # a scale without a gradient means nothing, and does not stay for the next one
    param = param_of([1.0])
    param._grad, param._loss_scale = None, 4.0
    assert unscale_gradients([param]) == {}
    assert param._loss_scale is None


def test_a_quotient_that_overflows_is_not_finite() -> None:
    param = param_of(np.ones(2, np.float32))
    param.grad = np.array([1e38, 1.0], np.float32)
    param._loss_scale = 1e-3
    opt = fastadam.Adam().setup(link_of(w=param))
    opt.on_nonfinite = "skip"
    opt.update()
    assert opt.last_update.nonfinite == ("w",)
    assert opt.last_update.skipped is True
    assert param.array.tolist() == [1, 1]
