"""Loss scales that no gradient can be divided by are refused, at whichever door they come."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastadam
from fastadam import Adam, Link, Parameter

ALWAYS: list[Any] = [0, 0.0, -1, -1e-300, math.inf, -math.inf, math.nan, 10**400, np.float32("inf")]
NO_NUMBERS: list[Any] = ["8", b"8", 8j, [8.0], np.ma.masked, np.array([8.0, 8.0]), {}]
NOT_IN_FLOAT32: list[Any] = [1e39, 1e-46, 3.5e38, np.float64(1e300), 1e-300]
GOOD: list[Any] = [8, 0.5, 2.0**100, 1e-30, 1e30, np.float32(8), np.array(8.0)]


def set_up(dtype: str, updates: int) -> Adam:
    """An optimizer of a link with gradients of its own."""
    link = Link()
    with link.init_scope():
        link.w = Parameter(np.ones(2, dtype), name="w")
        link.x = Parameter(np.ones(2, dtype), name="x")
    opt = Adam(alpha=0.1).setup(link)
    for _ in range(updates):
        link.w.grad, link.x.grad = np.ones(2, dtype), np.ones(2, dtype)
        opt.update()
    link.w.grad, link.x.grad = np.ones(2, dtype), np.ones(2, dtype)
    return opt


def left(opt: Adam, scale: Any) -> None:
    """What a backward pass leaves on one parameter."""
    opt.target.x._loss_scale = scale
    opt.update()


def by_the_parameter(opt: Adam, scale: Any) -> None:
    opt.target.x._loss_scale = scale
    opt.target.x.update()


def applied(opt: Adam, scale: Any) -> None:
    dtype = opt.target.w.dtype
    opt.apply_gradients({"w": np.ones(2, dtype), "x": np.ones(2, dtype)}, loss_scale=scale)


DOORS: dict[str, Callable[[Adam, Any], Any]] = {
    "apply_gradients": applied,
    "loss_scaling": lambda opt, scale: opt.loss_scaling(scale=scale),
    "set_loss_scale": lambda opt, scale: opt.set_loss_scale(scale),
    "loss_scale": lambda opt, scale: setattr(opt, "loss_scale", scale),
    "left by a backward pass": left,
    "update of a parameter": by_the_parameter,
}


def everything(opt: Adam) -> Any:
    return [
        (opt.t, opt.loss_scale, opt._loss_scaling_is_dynamic),
        [
            (
                p.array.tobytes(),
                p.grad.tobytes(),
                p.update_rule.t,
                copy.deepcopy(p.update_rule.state),
            )
            for p in opt.parameters.values()
        ],
    ]


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("updates", [0, 1, 3])
def test_refused_with_nothing_changed(door: str, updates: int) -> None:
    for dtype in ("f2", "f4", "f8"):
        bad = [*ALWAYS, *NO_NUMBERS, *(NOT_IN_FLOAT32 if dtype != "f8" else ())]
        for scale in bad:
            opt = set_up(dtype, updates)
            before = everything(opt)
            kind = TypeError if any(scale is each for each in NO_NUMBERS) else ValueError
            with pytest.raises(kind, match=r"loss scale.* must be") as caught:
                DOORS[door](opt, scale)
            assert door[:4] not in ("left", "upda") or "'x'" in str(caught.value)
            opt.target.x._loss_scale = None
            np.testing.assert_equal(everything(opt), before, err_msg=f"{dtype} {scale!r}")


@pytest.mark.parametrize("door", ["loss_scaling", "set_loss_scale", "loss_scale"])
def test_refused_without_a_target(door: str) -> None:
    for scale in ALWAYS:
        opt = Adam()
        with pytest.raises(ValueError, match="must be a finite number above 0"):
            DOORS[door](opt, scale)
        assert (opt.loss_scale, opt._loss_scaling_is_dynamic) == (None, False)


@pytest.mark.parametrize("door", DOORS)
def test_taken(door: str) -> None:
    for dtype in ("f4", "f8"):
        for scale in GOOD + (NOT_IN_FLOAT32 if dtype == "f8" else []):
            opt = set_up(dtype, 2)
            with np.errstate(all="ignore"):
                DOORS[door](opt, scale)
            assert all(
                np.isfinite(p.array).all() or scale < 1e-150 for p in opt.parameters.values()
            )


def test_large_scale_of_float64_divides() -> None:
    for updates in (0, 3):
        opt, twin = set_up("f8", updates), set_up("f8", updates)
        applied(opt, 1e300)
        twin.apply_gradients({"w": np.full(2, 1e-300), "x": np.full(2, 1e-300)})
        assert opt.target.w.array.tobytes() == twin.target.w.array.tobytes()


def test_a_mixed_target_has_what_all_of_it_has() -> None:
    opt = fastadam.Adam().setup({"a": np.ones(2), "b": np.ones(2, "f4")})
    for scale in NOT_IN_FLOAT32:
        with pytest.raises(ValueError, match="float32"):
            opt.loss_scale = scale
        with pytest.raises(ValueError, match="float32"):
            opt.apply_gradients({"a": np.ones(2), "b": np.ones(2)}, loss_scale=scale)
    assert opt.loss_scale is None


def test_a_scale_that_is_there_before_the_target() -> None:
    """The door cannot know the dtype; the update does."""
    opt = Adam()
    opt.loss_scale = 1e39
    params = {"w": np.ones(2, "f4")}
    opt.setup(params)
    with pytest.raises(ValueError, match=r"loss scale.*float32"):
        opt.apply_gradients({"w": np.ones(2, "f4")}, loss_scale=opt.loss_scale)
    np.testing.assert_array_equal(params["w"], 1)
