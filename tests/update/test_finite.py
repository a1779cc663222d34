"""What counts as finite: what the step uses, and its square, where the step computes it."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

import fastadam
from fastadam import Adam, Link, Parameter
from fastadam.optimizer_hooks import GradientClipping, GradientHardClipping

try:
    from ml_dtypes import bfloat16
except ImportError:
    bfloat16 = None

LARGEST = float(np.finfo(np.float32).max)

# dtype of the parameter, gradient, whether it counts as finite
CASES: list[tuple[Any, Any, bool]] = [
    ("f4", np.float64(3.4028235677973366e38), False),
    ("f4", np.float64(3.4028235e38), False),
    ("f4", np.float64(1e300), False),
    ("f4", np.float32(2e19), False),
    ("f4", np.float64(2e19), False),
    ("f4", np.float32(1.8446742e19), True),
    ("f4", np.float64(1.8446742e19), True),
    ("f4", np.float32(np.inf), False),
    ("f4", np.float16(65504), True),
    ("f2", np.float16(65504), True),
    ("f2", np.float64(1e6), True),
    ("f2", np.float64(1e39), False),
    ("f2", np.float32(2e19), False),
    ("f8", np.float64(1.4e154), False),
    ("f8", np.float64(1.3e154), True),
    ("f8", np.float32(3e38), True),
    ("f8", np.longdouble("1e400"), False),
    ("f4", np.longdouble("1e400"), False),
    ("f4", np.longdouble("1e39"), False),
]
if bfloat16 is not None:
    CASES += [
        (bfloat16, np.float32(2e19), False),
        (bfloat16, bfloat16(1e19), True),
        (bfloat16, bfloat16(3e38), False),
    ]


def three(value: Any) -> Any:
    return np.array([0.5, value, -0.25], np.asarray(value).dtype)


def quiet(opt: Any, grads: Any, scale: float | None = None) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the gradient of")
        opt.apply_gradients(grads, loss_scale=scale)


@pytest.mark.parametrize("mode", ["skip", "raise", "dynamic", "monitor"])
@pytest.mark.parametrize("repeated", [False, True])
def test_what_is_judged(mode: str, repeated: bool) -> None:
    for dtype, value, finite in CASES:
        for hook in (None, GradientHardClipping(-1.0, 1.0), GradientClipping(1.0)):
            where = (dtype, value, finite, hook)
            params = {"w": np.zeros(3, dtype), "b": np.zeros(3, dtype)}
            opt = Adam(alpha=0.01, eps=1e-3).setup(params)
            if mode == "dynamic":
                opt.loss_scaling(interval=3)
            elif mode == "monitor":
                opt.monitor = True
            else:
                opt.on_nonfinite = mode
            if hook is not None:
                opt.add_hook(hook)
            plain = np.full(3, 0.5, np.asarray(value).dtype)
            for _ in range(3 if repeated else 0):
                opt.apply_gradients({"w": plain, "b": plain})
            before = fastadam.snapshot(opt)
            grads = {"w": three(value), "b": plain}
            if mode == "raise" and not finite:
                with pytest.raises(FloatingPointError, match="'w'"):
                    opt.apply_gradients(grads)
                assert not fastadam.compare(opt, before), where
                continue
            t = opt.t
            quiet(opt, grads)
            report = opt.last_update
            assert report.nonfinite == (() if finite else ("w",)), where
            assert report.skipped == (not finite and mode != "monitor"), where
            assert opt.t == t + 1, where
            if mode != "monitor":
                state = opt.parameters["w"].update_rule.state or {}
                assert all(np.isfinite(array).all() for array in state.values()), where
            if report.skipped:
                assert opt.parameters["w"].update_rule.t == t, where


def test_of_scaled_gradients_the_true_one_counts() -> None:
    for dtype, value, scale, finite in (
        ("f4", np.float64(1e40), 2.0**30, False),
        ("f4", np.float64(1e40), 2.0**80, True),
        ("f4", np.float32(1e38), 2.0**-2, False),
        ("f4", np.float32(1e30), 2.0**60, True),
        ("f2", np.float16(6e4), 2.0**-60, False),
        ("f2", np.float64(1e30), 2.0**60, True),
        ("f8", np.float64(1e200), 2.0**300, True),
    ):
        for repeats in (0, 3):
            opt = Adam().setup({"w": np.zeros(3, dtype)})
            opt.on_nonfinite = "skip"
            for _ in range(repeats):
                opt.apply_gradients({"w": np.ones(3, np.asarray(value).dtype)}, loss_scale=scale)
            opt.apply_gradients({"w": three(value)}, loss_scale=scale)
            assert opt.last_update.nonfinite == (() if finite else ("w",)), (dtype, value, scale)


def test_the_gradients_of_links() -> None:
    for value, finite in ((2e19, False), (1.8e19, True), (1e18, True)):
        link = Link()
        with link.init_scope():
            link.w = Parameter(np.zeros(200, np.float32))
        opt = Adam().setup(link)
        opt.on_nonfinite = "skip"
        for _ in range(4):
            # 200 squares of 1.8e19 are more than float32 holds, together
            link.w.grad = np.full(200, value, np.float32)
            opt.update()
            assert opt.last_update.skipped is not finite, value


def test_propagate_is_chainers_formula() -> None:
    params = {"w": np.zeros(1, np.float32)}
    opt = Adam().setup(params)
    opt.apply_gradients({"w": np.full(1, 2e19, np.float32)})
    assert opt.parameters["w"].update_rule.state["v"][0] == np.inf
    assert params["w"][0] == 0
    assert opt.last_update.nonfinite is None


def test_no_floating_point_setting_reaches_into_an_update() -> None:
    """Nor do warnings that are errors."""

    def run(guard: Any) -> list[Any]:
        found = []
        for dtype, fp32 in (("f2", True), ("f2", False), ("f4", False), ("f8", False)):
            params = {"w": np.full(9, 1e-7, dtype), "s": np.full(18, 1e-7, dtype)[::2]}
            opt = Adam(alpha=1e-9).setup(params)
            opt.use_fp32_update(fp32)
            for step in range(6):
                if step == 3:
                    opt.add_hook(GradientClipping(1e-3))
                    opt.parameters["w"].update_rule.add_hook(lambda rule, param: None, "x")
                grad = np.linspace(1e-30, 1e5, 9)
                given = [grad, grad.astype("f4"), grad * 1e-300, grad * 1e300, grad.astype("g")]
                with guard(), warnings.catch_warnings():
                    warnings.simplefilter("error")
                    grads = {"w": given[step % 5], "s": given[(step + 1) % 5]}
                    opt.apply_gradients(grads, loss_scale=[None, 1e-3, 1e30][step % 3])
            found.append([array.tobytes() for array in fastadam.snapshot(opt).arrays.values()])
        return found

    plain = run(lambda: np.errstate(all="ignore"))
    assert run(lambda: np.errstate(all="raise")) == plain
    assert run(lambda: np.errstate(all="warn")) == plain


@pytest.mark.parametrize("group", [False, True])
def test_no_setting_reaches_into_what_is_looked_at_before_a_step_of_its_own(group: bool) -> None:
    """A master that is rounded to a subnormal half, where a rule has a hook or is of a class."""

    class Own(type(Adam().create_update_rule())):  # type: ignore[misc]
        @classmethod
        def check_batch(cls, rules: Any, params: Any) -> None:
            assert np.float32(1e-30) * np.float32(1e-30) == 0
            super().check_batch(rules, params)

        def batch_key(self) -> Any:
            return "own"

    opt = Adam(alpha=1e-9).setup({key: np.full(9, 1e-7, "f2") for key in "ab"})
    opt.use_fp32_update()
    rule = opt.parameters["a"].update_rule
    for step in range(6):
        if step == 2 and group:
            opt.parameters["a"].update_rule = Own(opt.hyperparam)
            opt.parameters["a"].update_rule.use_fp32_update()
        elif step == 2:
            rule.add_hook(lambda rule, param: None, "nothing")
        with np.errstate(all="raise"):
            opt.apply_gradients({key: np.full(9, 1e-3, "f2") for key in "ab"})
    assert opt.t == 6


def test_the_callers_settings_hold_in_the_loss_function() -> None:
    opt = Adam().setup({"w": np.ones(3)})

    def lossfun() -> Any:
        return np.float64(1) / np.zeros(1), {"w": np.ones(3)}

    with np.errstate(all="raise"), pytest.raises(FloatingPointError):
        opt.update(lossfun)
    assert opt.t == 0
