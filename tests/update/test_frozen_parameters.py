"""Parameters that whoever has their array has frozen, and states whose dtype follows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastadam
from fastadam.optimizer_hooks import GradientClipping, WeightDecay


def made(**values: Any) -> tuple[Any, Any]:
    link = fastadam.Link()
    with link.init_scope():
        for name, value in values.items():
            setattr(link, name, fastadam.Parameter(np.full(3, value)))
    return link, fastadam.Adam(alpha=0.1).setup(link)


def step(link: Any, opt: Any) -> None:
    for param in link.params():
        param.grad = np.full(3, 2.0)
    opt.update()


@pytest.mark.parametrize("how", ["plain", "hooks", "monitor", "single"])
def test_a_frozen_parameter_is_left_alone_and_thaws(how: str) -> None:
    link, opt = made(a=1.0, b=2.0)
    other, beside = made(a=1.0, b=2.0)
    for each in (opt, beside):
        if how == "hooks":
            each.add_hook(WeightDecay(0.1))
            each.add_hook(GradientClipping(1.0))
        each.monitor = how == "monitor"
        if how == "single":
            each.parameters["b"].update_rule.add_hook(WeightDecay(0.1))
    for frozen in (False, True, True, False, True, False):
        link.b.frozen = frozen
        beside.parameters["b"].update_rule.enabled = not frozen
        kept = link.b.array.copy()
        for pair in ((link, opt), (other, beside)):
            step(*pair)
        np.testing.assert_array_equal(link.a.array, other.a.array)
        np.testing.assert_array_equal(link.b.array, other.b.array)
        assert np.array_equal(kept, link.b.array) == frozen
        assert opt.last_update.applied == beside.last_update.applied
        assert opt.last_update.grad_norm == beside.last_update.grad_norm
        assert (" frozen " in repr(opt.parameters)) == frozen
    assert link.b.update_rule.t == 3
    link.b.frozen = True
    link.b.update()
    assert link.b.update_rule.t == 3
    assert not fastadam.Parameter(np.ones(2)).frozen


def test_gradients_that_are_not_finite_do_not_count() -> None:
    link, opt = made(a=1.0, b=2.0)
    opt.on_nonfinite = "raise"
    step(link, opt)
    link.b.frozen = True
    for param, value in ((link.a, 1.0), (link.b, np.nan)):
        param.grad = np.full(3, value)
    opt.update()
    assert opt.last_update.nonfinite == ()


def test_a_state_follows_the_dtype() -> None:
    link, opt = made(a=1.0, b=2.0)
    step(link, opt)
    rule = link.a.update_rule
    wide = dict(rule.state)
    rule.follow_dtype(link.a)
    assert all(rule.state[key] is wide[key] for key in wide)
    link.a.array = link.a.array.astype(np.float32)
    with pytest.raises(TypeError, match="after a change of dtype"):
        opt.apply_gradients({"a": np.ones(3), "b": np.ones(3)})
    rule.follow_dtype(link.a)
    for key, value in rule.state.items():
        np.testing.assert_array_equal(value, wide[key].astype(np.float32))
        assert value.dtype == np.float32
    opt.apply_gradients({"a": np.ones(3), "b": np.ones(3)})
    assert rule.t == 2
    lazy = fastadam.Parameter()
    fastadam.Adam().create_update_rule().follow_dtype(lazy)
