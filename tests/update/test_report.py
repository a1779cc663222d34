"""What an update reports, and what it does about gradients that are not finite."""

from __future__ import annotations

import copy
import dataclasses
import math
import pickle
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import fastadam
from fastadam import Adam, Link, Parameter, UpdateReport
from fastadam.optimizer_hooks import GradientClipping, WeightDecay

NAN, INF = math.nan, math.inf


def an_optimizer(**attributes: Any) -> tuple[Any, dict[str, np.ndarray]]:
    """A set-up optimizer of three parameters, and these."""
    params = {"a": np.ones(2), "b": np.ones(3, np.float32), "c": np.ones((), np.float16)}
    opt = fastadam.AdamW(alpha=0.05, beta1=0.8, eps=1e-3, weight_decay_rate=0.01).setup(params)
    for name, value in attributes.items():
        setattr(opt, name, value)
    return opt, params


def gradients(a: float = 3.0, b: float = 4.0, c: float = 12.0) -> dict[str, Any]:
    """Gradients with the norm 13."""
    return {"a": [a, 0.0], "b": [0.0, b, 0.0], "c": c}


def everything(opt: Any, params: dict[str, np.ndarray]) -> Any:
    """Copies of all parameters, states and counts."""
    rules = [param.update_rule for param in opt.parameters.values()]
    states = [{k: v.tolist() for k, v in (rule.state or {}).items()} for rule in rules]
    return [p.tolist() for p in params.values()], states, [rule.t for rule in rules], opt.t


def test_a_report_is_frozen_and_tells_what_it_holds() -> None:
    opt, _ = an_optimizer(monitor=True)
    opt.apply_gradients(gradients())
    report = opt.last_update
    assert isinstance(report, UpdateReport)
    assert [field.name for field in dataclasses.fields(report)] == [
        "t",
        "skipped",
        "nonfinite",
        "grad_norm",
        "loss_scale",
        "applied",
    ]
    for field in dataclasses.fields(report):
        with pytest.raises((dataclasses.FrozenInstanceError, AttributeError)):
            setattr(report, field.name, None)
    with pytest.raises((dataclasses.FrozenInstanceError, AttributeError, TypeError)):
        report.more = 1
    assert report == UpdateReport(1, False, (), 13.0, None, ("a", "b", "c"))
    assert repr(report) == (
        "UpdateReport(t=1, skipped=False, nonfinite=(), grad_norm=13.0, loss_scale=None, "
        "applied=('a', 'b', 'c'))"
    )
    assert pickle.loads(pickle.dumps(report)) == copy.deepcopy(report) == report
    # the next update makes another one
    opt.apply_gradients(gradients())
    assert (report.t, opt.last_update.t) == (1, 2)


def test_before_the_first_update_there_is_none() -> None:
    assert fastadam.Adam().last_update is None
    assert an_optimizer()[0].last_update is None


# What is set, and whether it asks for a look at the gradients.
ASKED: dict[str, tuple[Callable[[Any], None], bool]] = {
    "nothing": (lambda opt: None, False),
    "propagate": (lambda opt: setattr(opt, "on_nonfinite", "propagate"), False),
    "skip": (lambda opt: setattr(opt, "on_nonfinite", "skip"), True),
    "raise": (lambda opt: setattr(opt, "on_nonfinite", "raise"), True),
    "monitor": (lambda opt: setattr(opt, "monitor", True), True),
    "monitored no more": (lambda opt: setattr(opt, "monitor", False), False),
    "dynamic": (lambda opt: opt.loss_scaling(), True),
    # a static scale of the optimizer alone: these gradients come without one
    "static": (lambda opt: opt.set_loss_scale(8), False),
    "scaling ended": (lambda opt: (opt.loss_scaling(), setattr(opt, "loss_scale", None)), False),
}


@pytest.mark.parametrize("name", ASKED)
def test_norm_and_names_are_there_if_somebody_asked(name: str) -> None:
    opt, _ = an_optimizer()
    ask, asked = ASKED[name]
    ask(opt)
    scale = opt.loss_scale
    opt.apply_gradients(gradients())
    expected = ((), 13.0) if asked else (None, None)
    assert (opt.last_update.nonfinite, opt.last_update.grad_norm) == expected
    assert opt.last_update.loss_scale == scale
    assert opt.last_update.applied == ("a", "b", "c")


@pytest.mark.parametrize("monitor", [False, True])
def test_gradients_with_a_fixed_scale_are_looked_at_if_somebody_asks(monitor: bool) -> None:
    opt, _ = an_optimizer(monitor=monitor)
    for step in range(1, 4):
        scaled = {path: np.multiply(gradient, 64.0) for path, gradient in gradients().items()}
        opt.apply_gradients(scaled, loss_scale=64)
        looked = ((), 13.0) if monitor else (None, None)
        assert opt.last_update == UpdateReport(step, False, *looked, None, ("a", "b", "c"))


def test_the_norm_is_of_true_gradients_before_the_hooks_and_of_what_is_updated() -> None:
    opt, _ = an_optimizer(monitor=True)

    def ten_times(opt: Any) -> None:
        for param in opt.parameters.values():
            param.grad = param.grad * param.grad.dtype.type(10)

    opt.add_hook(ten_times, "ten times")
    opt.parameters["c"].update_rule.enabled = False
    opt.apply_gradients(gradients())
    assert opt.last_update.grad_norm == 5
    assert opt.last_update.applied == ("a", "b")
    m = opt.parameters["a"].update_rule.state["m"]
    assert m.tolist() == [(1 - 0.8) * 30.0, 0.0]


@pytest.mark.parametrize("n", [1, 5000])
def test_the_norm_beside_float64(n: int) -> None:
    random = np.random.default_rng(n)
    params = {name: np.zeros(n, name) for name in ("float16", "float32", "float64")}
    opt = fastadam.Adam().setup(params)
    opt.monitor = True
    given = {name: random.normal(size=n).astype(name) for name in params}
    opt.apply_gradients(given)
    exact = math.sqrt(math.fsum(float(x) ** 2 for g in given.values() for x in g))
    assert opt.last_update.grad_norm == pytest.approx(exact, rel=1e-14)


def test_a_norm_that_float16_cannot_hold() -> None:
    opt = fastadam.Adam().setup({"w": np.zeros(3, np.float16)})
    opt.monitor = True
    opt.apply_gradients({"w": np.full(3, 300, np.float16)})
    assert opt.last_update.grad_norm == math.sqrt(270_000)
    assert opt.last_update.nonfinite == ()


def test_paths_of_what_is_not_finite() -> None:
    opt = fastadam.Adam().setup({"l1": {"W": np.ones(2), "b": np.ones(2)}, "l2": [np.ones(1)]})
    opt.monitor = True
    opt.apply_gradients({"l1": {"W": [1.0, NAN], "b": [1.0, 1.0]}, "l2": [[-INF]]})
    assert opt.last_update.nonfinite == ("l1/W", "l2/0")
    assert opt.last_update.applied == ("l1/W", "l1/b", "l2/0")
    assert not math.isfinite(opt.last_update.grad_norm)


class Hooks:
    """Counts the calls of pre and post hooks, and keeps what the latter see."""

    def __init__(self, opt: Any) -> None:
        self.pre = self.post = 0
        self.seen: list[Any] = []
        opt.add_hook(self.count_pre, "count pre")
        opt.add_hook(self.count_post, "count post", timing="post")

    def count_pre(self, opt: Any) -> None:
        self.pre += 1

    def count_post(self, opt: Any) -> None:
        self.post += 1
        self.seen.append((opt.last_update, opt.loss_scale, opt.t))


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_propagate_is_the_default(bad: float) -> None:
    opt, params = an_optimizer()
    assert opt.on_nonfinite == "propagate"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opt.apply_gradients(gradients(b=bad))
    assert np.isnan(params["b"]).tolist() == [False, True, False]
    assert np.all(np.isfinite(params["a"]))
    assert opt.last_update == UpdateReport(1, False, None, None, None, ("a", "b", "c"))


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
@pytest.mark.parametrize("scale", [None, 4.0])
def test_skip_touches_nothing_and_counts(bad: float, scale: float | None) -> None:
    opt, params = an_optimizer(on_nonfinite="skip")
    hooks = Hooks(opt)
    good = {path: np.multiply(g, scale or 1.0) for path, g in gradients().items()}
    opt.apply_gradients(good, loss_scale=scale)
    before = everything(opt, params)
    rules = [param.update_rule for param in opt.parameters.values()]
    calls: list[Any] = []
    for rule in rules:
        rule.add_hook(lambda rule, param: calls.append(rule), "rule's")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opt.apply_gradients({**good, "b": [0.0, 0.0, bad], "c": NAN}, loss_scale=scale)
    report = opt.last_update
    assert everything(opt, params) == (*before[:3], 2)
    assert (report.t, report.skipped, report.nonfinite, report.applied) == (2, True, ("b", "c"), ())
    assert not math.isfinite(report.grad_norm)
    assert (hooks.pre, hooks.post) == (2, 2)
    assert hooks.seen[1] == (report, None, 2)
    assert calls == []
    # a static scale does not care
    assert opt.loss_scale is None
    # and one goes on
    assert opt.is_safe_to_update() is True
    opt.apply_gradients(good, loss_scale=scale)
    assert opt.t == 3
    assert [rule.t for rule in rules] == [2, 2, 2]
    assert len(calls) == 3


def test_during_a_skipped_update_it_is_not_safe_to_update() -> None:
    opt, _ = an_optimizer(on_nonfinite="skip")
    seen = []
    opt.add_hook(lambda opt: seen.append(opt.is_safe_to_update()), "look")
    opt.apply_gradients(gradients(b=NAN))
    opt.apply_gradients(gradients())
    assert seen == [False, True]


@pytest.mark.parametrize("scale", [None, 4.0])
def test_raise_names_the_parameters_and_changes_nothing(scale: float | None) -> None:
    opt, params = an_optimizer(on_nonfinite="raise")
    hooks = Hooks(opt)
    good = {path: np.multiply(g, scale or 1.0) for path, g in gradients().items()}
    opt.apply_gradients(good, loss_scale=scale)
    before, report = everything(opt, params), opt.last_update
    rules = [param.update_rule for param in opt.parameters.values()]
    with pytest.raises(FloatingPointError, match=r"'a', 'c' are not finite at t = 1;"):
        opt.apply_gradients({**good, "a": [1.0, -INF], "c": NAN}, loss_scale=scale)
    assert everything(opt, params) == before
    assert opt.last_update is report
    # the pre hooks come before, as always
    assert (hooks.pre, hooks.post) == (2, 1)
    assert [(p.grad, p._loss_scale) for p in opt.parameters.values()] == [(None, None)] * 3
    opt.apply_gradients(good, loss_scale=scale)
    assert [rule.t for rule in rules] == [2, 2, 2]


def test_raise_before_the_first_update_leaves_no_state() -> None:
    opt, _ = an_optimizer(on_nonfinite="raise")
    opt.use_fp32_update()
    with pytest.raises(FloatingPointError, match="'b'"):
        opt.apply_gradients(gradients(b=NAN))
    for param in opt.parameters.values():
        assert (param.update_rule.t, param.update_rule.state) == (0, None)
        assert param.update_rule._fp32_param is None
    assert (opt.t, opt.last_update) == (0, None)


@pytest.mark.parametrize("mode", ["skip", "raise"])
def test_parameters_that_are_not_updated_do_not_count(mode: str) -> None:
    opt, params = an_optimizer(on_nonfinite=mode)
    opt.parameters["b"].update_rule.enabled = False
    opt.parameters["c"].update_rule = None
    opt.apply_gradients(gradients(b=NAN, c=INF))
    assert opt.last_update == UpdateReport(1, False, (), 3.0, None, ("a",))
    assert params["b"].tolist() == [1, 1, 1]


@pytest.mark.parametrize("mode", ["propagate", "skip", "raise"])
def test_dynamic_scaling_wins(mode: str) -> None:
    opt, params = an_optimizer(on_nonfinite=mode)
    opt.loss_scaling(interval=10)
    hooks = Hooks(opt)
    opt.apply_gradients(gradients())
    before = everything(opt, params)
    with pytest.warns(UserWarning, match="'b'") as caught:
        opt.apply_gradients(gradients(b=NAN))
    assert len(caught) == 1
    report = opt.last_update
    assert everything(opt, params) == (*before[:3], 2)
    assert (report.skipped, report.nonfinite, report.applied) == (True, ("b",), ())
    # the scale that this update was made with; it is halved before the post hooks, which see it
    assert report.loss_scale == 2
    assert hooks.seen[1] == (report, 1, 2)
    assert opt.loss_scale == 1


def test_a_mode_that_is_none_of_the_three() -> None:
    opt, _ = an_optimizer(on_nonfinite="skip")
    for mode in ("ignore", "", None, 1):
        with pytest.raises(ValueError, match="'propagate', 'skip', 'raise'"):
            opt.on_nonfinite = mode
    assert opt.on_nonfinite == "skip"


class Interrupt(Exception):
    """What the hook of the next test raises."""


def test_the_report_when_a_post_hook_raises() -> None:
    """Everything has been updated: it is the report of a complete update."""

    def interrupt(opt: Any) -> None:
        assert opt.last_update.t == 1
        raise Interrupt

    opt, _ = an_optimizer(monitor=True)
    opt.add_hook(interrupt, "interrupt", timing="post")
    with pytest.raises(Interrupt):
        opt.apply_gradients(gradients())
    assert opt.last_update == UpdateReport(1, False, (), 13.0, None, ("a", "b", "c"))
    assert opt.t == 1


@pytest.mark.parametrize("timing", ["pre", "post"])
def test_the_report_when_a_rules_hook_raises(timing: str) -> None:
    def interrupt(rule: Any, param: Any) -> None:
        raise Interrupt

    opt, _ = an_optimizer(monitor=True)
    opt.set_loss_scale(2)
    opt.parameters["b"].update_rule.add_hook(interrupt, timing=timing)
    with pytest.raises(Interrupt):
        opt.apply_gradients(gradients())
    applied = ("a", "c") if timing == "pre" else ("a", "b", "c")
    assert opt.last_update == UpdateReport(1, False, (), 13.0, 2, applied)


def test_what_is_found_is_forgotten_after_an_update_that_raises() -> None:
    """The next update looks for itself."""
    opt, _ = an_optimizer(on_nonfinite="raise")
    with pytest.raises(FloatingPointError):
        opt.apply_gradients(gradients(a=NAN))
    opt.on_nonfinite = "skip"
    assert opt.is_safe_to_update() is True
    opt.on_nonfinite = "propagate"
    opt.apply_gradients(gradients())
    assert opt.last_update.nonfinite is None


def test_looking_changes_no_bit() -> None:
    runs = []
    for monitor in (False, True):
        opt, params = an_optimizer(monitor=monitor)
        for i in range(5):
            opt.apply_gradients(gradients(a=1.0 - i, c=0.1 * i))
        runs.append(everything(opt, params))
    assert runs[0] == runs[1]


def clipping_cases() -> Iterator[tuple[str, Any, Any]]:
    """Yield how an update with clipping is made: name, optimizer, function that makes it."""
    grads = {"w": np.array([3.0, 4.0]), "b": np.array([12.0])}

    def arrays(**settings: Any) -> Any:
        opt = Adam().setup({"w": np.zeros(2), "b": np.zeros(1)})
        for name, value in settings.items():
            setattr(opt, name, value)
        opt.add_hook(GradientClipping(1.0))
        return opt

    def linked() -> Any:
        link = Link()
        with link.init_scope():
            link.w, link.b = Parameter(np.zeros(2)), Parameter(np.zeros(1))
        opt = Adam().setup(link)
        opt.add_hook(GradientClipping(1.0))
        return opt

    def by_update(opt: Any) -> None:
        for path, param in opt.parameters.items():
            param.grad = grads[path].copy()
        opt.update()

    yield "arrays", arrays(), lambda opt: opt.apply_gradients(grads)
    yield "arrays, looked at", arrays(monitor=True), lambda opt: opt.apply_gradients(grads)
    yield "loss function", arrays(), lambda opt: opt.update(lambda: (0.0, grads))
    yield "link", linked(), by_update
    yield "link, lent", linked(), lambda opt: opt.apply_gradients(grads)
    with_decay = arrays()
    with_decay.add_hook(WeightDecay(0.0))
    yield "another hook afterwards", with_decay, lambda opt: opt.apply_gradients(grads)


def test_what_clipping_has_computed_is_reported() -> None:
    for name, opt, update in clipping_cases():
        for t in (1, 2, 3):
            update(opt)
            report = opt.last_update
            assert (report.t, report.grad_norm, report.nonfinite) == (t, 13.0, ()), name
    # clipping that comes after another hook sees other gradients
    opt = Adam().setup({"w": np.ones(2)})
    opt.add_hook(WeightDecay(0.5))
    opt.add_hook(GradientClipping(1.0))
    for _ in range(2):
        opt.apply_gradients({"w": np.ones(2)})
        assert opt.last_update.grad_norm is None
    # and one that somebody calls by hand is no part of an update
    opt.remove_hook("WeightDecay")
    link = Link(w=2)
    by_hand = Adam().setup(link)
    by_hand.add_hook(GradientClipping(1.0))
    link.w.grad = np.ones(2, np.float32)
    by_hand.call_hooks("pre")
    assert by_hand._facts is None
    by_hand.update()
    by_hand.call_hooks("pre")
    assert by_hand._facts is None


def test_clipping_reports_what_is_not_finite_and_what_only_its_square_is() -> None:
    for grad, nonfinite in ((np.nan, ("w",)), (np.inf, ("w",)), (1e200, ())):
        opt = Adam().setup({"w": np.zeros(2), "b": np.zeros(1)})
        opt.add_hook(GradientClipping(1.0))
        for _ in range(2):
            opt.apply_gradients({"w": np.array([grad, grad]), "b": np.ones(1)})
            assert opt.last_update.nonfinite == nonfinite
            assert np.isfinite(opt.last_update.grad_norm) == (nonfinite == ())
