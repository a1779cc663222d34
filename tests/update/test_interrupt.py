"""Ctrl-C at any line of an update leaves every parameter wholly before or after its step."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastadam
from fastadam import AdamRule, Parameter
from fastadam.optimizer_hooks import GradientClipping, WeightDecay
from fastadam.update.exclusive import _RUNNING
from fastadam.update.interrupt import DeferredInterrupt

sys.path.insert(0, str(Path(__file__).parents[1]))
from tracing import Lines, counted, raising


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Put the handlers of signals back that an error in the middle of their exchange has left."""
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}
    yield
    for number, handler in before.items():
        if callable(handler) and signal.getsignal(number) is not handler:
            signal.signal(number, handler)


def make(hooked: bool, half: bool) -> fastadam.Adam:
    """Adam after a step of parameters that are stepped in two tables and one by one."""
    opt = fastadam.Adam(alpha=0.25)
    if half:
        opt.use_fp32_update()
    dtypes = {"a": "f8", "b": "f4", "c": "f2", "d": "f4"}
    opt.setup({key: np.ones(3, dtype) for key, dtype in dtypes.items()})
    if hooked:
        for key in "bc":
            opt.parameters[key].update_rule.add_hook(lambda rule, param: None, "hook")
            opt.parameters[key].update_rule.add_hook(lambda rule, param: None, "late", "post")
    opt.apply_gradients(gradients())
    return opt


def gradients() -> dict[str, Any]:
    """Gradients for it."""
    return {key: np.array([0.5, -1.0, 2.0]) for key in "abcd"}


def facts(opt: fastadam.Adam) -> dict[str, Any]:
    """Array, state, master and count of each parameter."""
    found = {}
    for path, param in opt.parameters.items():
        rule = param.update_rule
        master = rule._fp32_param
        arrays = [param.array, *rule.state.values(), *([master.array] if master else [])]
        found[path] = rule.t, [array.tobytes() for array in arrays]
    return found


def press() -> None:
    """Press Ctrl-C."""
    signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("hooked", [False, True])
@pytest.mark.parametrize("half", [False, True])
def test_at_any_line_of_an_update(hooked: bool, half: bool) -> None:
    done = make(hooked, half)
    before = facts(done)
    lines = counted(lambda: done.apply_gradients(gradients()))
    after = facts(done)
    assert lines > 100
    ends = set()
    # every fourth line, beginning at another in each of the four cases
    for n in range(2 * hooked + half, lines, 4):
        opt = make(hooked, half)
        report = opt.last_update
        with Lines(n, press), pytest.raises(KeyboardInterrupt):
            opt.apply_gradients(gradients())
        now = facts(opt)
        assert now in (before, after), n
        ends.add(now == after)
        assert opt.t == (2 if now == after else 1), n
        if now == after:
            assert opt.last_update is not None
            assert (opt.last_update.t, opt.last_update.applied) == (2, tuple("abcd"))
        else:
            assert opt.last_update is report
    assert ends == {False, True}
    assert not _RUNNING
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.slow
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_what_is_counted_when_an_error_comes_beside_other_rules(
    error: type[BaseException],
) -> None:
    """Whoever is stepped is reported, and the update counts, at whatever line it ends."""
    done = make(True, False)
    before = facts(done)
    lines = counted(lambda: done.apply_gradients(gradients()))
    after = facts(done)
    seen = set()
    for n in range(lines):
        opt = make(True, False)
        with Lines(n, raising(error)), contextlib.suppress(error):
            opt.apply_gradients(gradients())
        now = facts(opt)
        stepped = tuple(path for path in now if now[path] != before[path])
        assert all(now[path] == after[path] for path in stepped), n
        assert opt.t == (2 if stepped else 1), n
        assert opt.last_update is not None
        assert opt.last_update.applied == (stepped or tuple("abcd")), n
        seen.add(stepped)
    assert {(), ("a", "d"), tuple("abcd")} <= seen


def with_a_hook(opt: fastadam.Adam) -> None:
    opt.add_hook(WeightDecay(0.5))


def with_clipping(opt: fastadam.Adam) -> None:
    opt.add_hook(WeightDecay(0.5))
    opt.add_hook(GradientClipping(0.25))


def with_a_scale(opt: fastadam.Adam) -> None:
    opt.loss_scale = 8.0


def with_another_alpha(opt: fastadam.Adam) -> None:
    opt.alpha = 0.125


def without_hooks(opt: fastadam.Adam) -> None:
    """What the last update did on its way is not to be done any more."""
    with_a_hook(opt)
    opt.apply_gradients({key: gradients()[key] for key in "ab"})
    opt.remove_hook("WeightDecay")


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize(
    "change", [with_a_hook, with_clipping, with_a_scale, with_another_alpha, without_hooks]
)
def test_the_update_after_an_interrupted_one(
    change: Callable[[Any], None], error: type[BaseException]
) -> None:
    """It does what it would have done: nothing half-noted is taken for noted."""

    def made() -> fastadam.Adam:
        opt = fastadam.Adam(alpha=0.25).setup({key: np.ones(3, "f4") for key in "ab"})
        for _ in range(2):
            opt.apply_gradients({key: gradients()[key] for key in "ab"})
        change(opt)
        return opt

    def update(opt: fastadam.Adam) -> None:
        opt.apply_gradients({key: gradients()[key] for key in "ab"}, loss_scale=opt.loss_scale)

    expected = {}
    opt = made()
    lines = counted(lambda: update(opt))
    for _ in range(2):
        expected[opt.t] = facts(opt)
        update(opt)
    assert lines > 100
    for n in range(lines):
        opt = made()
        with Lines(n, raising(error)), contextlib.suppress(error):
            update(opt)
        update(opt)
        assert facts(opt) == expected[opt.t], n


def test_a_rule_that_updates_alone_counts_what_it_has_stepped() -> None:
    def made() -> tuple[AdamRule, Parameter]:
        param, rule = Parameter(np.ones(3, "f4")), AdamRule(alpha=0.5)
        param.update_rule = rule
        param.grad = np.ones(3, "f4")
        rule.update(param)
        return rule, param

    def found(rule: AdamRule, param: Parameter) -> tuple[int, bytes, bytes]:
        return rule.t, param.array.tobytes(), rule.state["m"].tobytes()

    rule, param = made()
    before = found(rule, param)
    lines = counted(lambda: rule.update(param))
    after = found(rule, param)
    ends = set()
    for n in range(lines):
        rule, param = made()
        with Lines(n, press), contextlib.suppress(KeyboardInterrupt):
            rule.update(param)
        assert found(rule, param) in (before, after), n
        ends.add(rule.t)
    assert ends == {1, 2}


def deferred(*steps: Callable[[], Any]) -> None:
    """Call functions in the context."""
    with DeferredInterrupt():
        for step in steps:
            step()


def test_first_is_held_back_and_second_is_not() -> None:
    passed: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        deferred(press, lambda: passed.append(1))
    with pytest.raises(KeyboardInterrupt):
        deferred(press, lambda: passed.append(2), press, lambda: passed.append(3))
    assert passed == [1, 2]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_nested() -> None:
    passed: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        deferred(
            lambda: deferred(press, lambda: passed.append("inner")), lambda: passed.append("outer")
        )
    assert passed == ["inner", "outer"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_error_inside_is_not_lost() -> None:
    def fail() -> None:
        raise ValueError("inside")

    with pytest.raises(KeyboardInterrupt) as caught:
        deferred(press, fail)
    assert isinstance(caught.value.__context__, ValueError)
    with pytest.raises(ValueError, match="inside"):
        deferred(fail)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("handler", [signal.SIG_IGN, signal.SIG_DFL])
def test_what_python_does_not_handle_stays(handler: Any) -> None:
    old = signal.signal(signal.SIGINT, handler)
    try:
        with DeferredInterrupt():
            assert signal.getsignal(signal.SIGINT) == handler
        assert signal.getsignal(signal.SIGINT) == handler
    finally:
        signal.signal(signal.SIGINT, old)


def test_handler_of_ones_own() -> None:
    """One that does not raise is called at the end; one that was installed inside stays."""
    seen: list[str] = []

    def ours(number: int, frame: Any) -> None:
        seen.append("ours")

    def other(number: int, frame: Any) -> None:
        seen.append("other")

    old = signal.signal(signal.SIGINT, ours)
    try:
        with DeferredInterrupt():
            os.kill(os.getpid(), signal.SIGINT)
            seen.append("step")
        assert seen == ["step", "ours"]
        assert signal.getsignal(signal.SIGINT) is ours
        with DeferredInterrupt():
            signal.signal(signal.SIGINT, other)
        assert signal.getsignal(signal.SIGINT) is other
    finally:
        signal.signal(signal.SIGINT, old)


def test_in_another_thread_nothing_is_done() -> None:
    handlers: list[Any] = []
    opt = make(False, False)

    def run() -> None:
        with DeferredInterrupt():
            handlers.append(signal.getsignal(signal.SIGINT))
        opt.apply_gradients(gradients())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(20)
    assert handlers == [signal.default_int_handler]
    assert opt.t == 2


def scaled(t: int) -> fastadam.Adam:
    """Adam of arrays with a dynamic loss scale and masters, after some updates."""
    opt = fastadam.Adam(alpha=0.25)
    opt.use_fp32_update()
    opt.setup({key: np.ones(3, dtype) for key, dtype in {"a": "f8", "b": "f4", "c": "f2"}.items()})
    opt.loss_scaling(interval=4)
    for _ in range(t):
        update(opt)
    return opt


def update(opt: fastadam.Adam) -> None:
    grads = {key: np.full(3, opt.loss_scale) for key in opt.target}
    opt.apply_gradients(grads, loss_scale=opt.loss_scale)


def all_of(opt: fastadam.Adam) -> tuple[Any, ...]:
    report = opt.last_update
    scaling = opt.loss_scale, opt._loss_scaling_isnan, opt._loss_scaling_isnan_ever
    return facts(opt), opt.t, scaling, None if report is None else (report.t, report.applied)


def at_every_line(
    make_one: Callable[[], Any],
    change: Callable[[Any], None],
    what: Callable[[], object],
    step: int,
) -> set[str]:
    """Interrupt an update at every line; it is made or it is not. Then it can be made."""
    done = make_one()
    change(done)
    before = all_of(make_one())
    lines = counted(lambda: update(done))
    after = all_of(done)
    ends = set()
    for n in range(0, lines, step):
        opt = make_one()
        change(opt)
        with Lines(n, what), pytest.raises((KeyboardInterrupt, MemoryError)):
            update(opt)
        now = all_of(opt)
        assert now in (before, after), (n, now, before, after)
        ends.add("before" if now == before else "after")
        if now == before:
            update(opt)
            assert all_of(opt) == after, n
    assert not _RUNNING
    return ends


def nothing(opt: Any) -> None:
    pass


def rebound(opt: Any) -> None:
    for key in opt.target:
        opt.target[key] = opt.target[key].copy()


def one_rebound(opt: Any) -> None:
    opt.target["b"] = opt.target["b"].copy()


def reordered(opt: Any) -> None:
    opt.target["a"] = opt.target.pop("a")


@pytest.mark.parametrize("change", [nothing, rebound, one_rebound, reordered])
@pytest.mark.parametrize("what", [press, raising(MemoryError)], ids=["Ctrl-C", "no memory"])
def test_before_or_after_and_never_between(
    what: Callable[[], object], change: Callable[[Any], None]
) -> None:
    """Moments, masters, counts, the loss scale and the report, with arrays that were replaced."""
    ends = at_every_line(lambda: scaled(2), change, what, 11)
    assert "before" in ends


def test_a_signal_handler_that_raises_waits_for_the_step() -> None:
    """Any signal's, not Ctrl-C's alone."""

    def leave(number: int, frame: Any) -> None:
        raise SystemExit

    press_term: list[Callable[[], Any]] = [lambda: None]
    for position in ("pre", "post"):
        opt, twin = make(False, True), make(False, True)
        for each in (opt, twin):
            for key in "bc":
                rule = each.parameters[key].update_rule
                rule.add_hook(lambda rule, param: press_term[0](), "x", position)
        press_term[0] = lambda: signal.raise_signal(signal.SIGTERM)
        old = signal.signal(signal.SIGTERM, leave)
        try:
            with pytest.raises(SystemExit):
                opt.apply_gradients(gradients())
            assert signal.getsignal(signal.SIGTERM) is leave
        finally:
            signal.signal(signal.SIGTERM, old)
        press_term[0] = lambda: None
        twin.apply_gradients(gradients())
        assert facts(opt) == facts(twin)
        assert (opt.t, opt.last_update) == (twin.t, twin.last_update)


def test_post_hooks_see_the_new_loss_scale() -> None:
    opt = scaled(2)
    seen: list[Any] = []
    opt.add_hook(lambda opt: seen.append((opt.loss_scale, opt.last_update.loss_scale)), "x", "post")
    for _ in range(3):
        update(opt)
    assert seen == [(8, 4), (16, 8), (32, 16)]
