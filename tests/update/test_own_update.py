"""Parameters with an `update` of their own: it is called, and reaches the rule once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from fastadam import Adam, AdamW, AMSGrad, GradientMethod, Link, Parameter, UpdateRule
from fastadam.optimizer_hooks import GradientClipping, WeightDecay


class Clipped(Parameter):
    """A parameter that no update moves beyond 0.5."""

    calls = 0

    def update(self) -> None:
        self.calls += 1
        super().update()
        if self.array is not None:
            np.clip(self.array, -0.5, 0.5, out=self.array)


class WithAttributes(Parameter):
    """A parameter with a dict, which may get an update by assignment."""


class Slotted(Parameter):
    """A parameter whose update is in a slot."""

    __slots__ = ("update",)


def clip_itself(param: Any) -> Any:
    """Give an object an update that clips."""
    param.calls = 0

    def update() -> None:
        param.calls += 1
        Parameter.update(param)
        if param.array is not None:
            np.clip(param.array, -0.5, 0.5, out=param.array)

    param.update = update
    return param


class Slots(Slotted):
    """The same with a place to count calls."""

    __slots__ = ("calls",)


KINDS = {
    "class": Clipped,
    "object": lambda *args, **kwds: clip_itself(WithAttributes(*args, **kwds)),
    "slot": lambda *args, **kwds: clip_itself(Slots(*args, **kwds)),
}


def model(kind: Any, **values: Any) -> Link:
    """Return a link of a clipped parameter `w` and plain ones."""
    link = Link()
    with link.init_scope():
        link.w = kind(np.array(values.pop("w", [1.0, 0.2])))
        for name, value in values.items():
            setattr(link, name, Parameter(np.array(value)))
    return link


def settings() -> Iterator[tuple[str, Any]]:
    """Yield ways in which an optimizer may be set up."""
    yield "plain", lambda opt: None
    yield "clipping", lambda opt: opt.add_hook(GradientClipping(1e9))
    yield "decay", lambda opt: opt.add_hook(WeightDecay(0.0))
    yield "monitor", lambda opt: setattr(opt, "monitor", True)
    yield "scaled", lambda opt: opt.loss_scaling(scale=1.0)
    yield (
        "rule's hook",
        lambda opt: [
            p.update_rule.add_hook(lambda rule, param: None, "nothing")
            for p in opt.parameters.values()
        ],
    )
    yield "skip", lambda opt: setattr(opt, "missing_gradients", "skip")


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_called_once_an_update(kind: str) -> None:
    for method in (Adam, AdamW, AMSGrad):
        for name, configure in settings():
            link = model(KINDS[kind], b=[1.0], c=[[2.0, 3.0]])
            opt = method(alpha=0.1).setup(link)
            configure(opt)
            plain = method(alpha=0.1).setup({"b": np.ones(1), "c": np.array([[2.0, 3.0]])})
            w = np.array([1.0, 0.2])
            by_hand = method(alpha=0.1).setup(w)
            for t in (1, 2, 3, 4):
                if t % 2:
                    for param in link.params():
                        param.grad = np.ones(param.shape)
                    opt.update()
                else:
                    opt.apply_gradients({p: np.ones(q.shape) for p, q in opt.parameters.items()})
                plain.apply_gradients({"b": np.ones(1), "c": np.ones((1, 2))})
                by_hand.apply_gradients(np.ones(2))
                np.clip(w, -0.5, 0.5, out=w)
                where = f"{method.__name__} {name} {t}"
                np.testing.assert_array_equal(link.w.array, w, where)
                assert (link.w.calls, link.w.update_rule.t) == (t, t), where
                np.testing.assert_array_equal(link.b.array, plain.target["b"], where)
                np.testing.assert_array_equal(link.c.array, plain.target["c"], where)
                assert opt.last_update.applied == ("b", "c", "w")
    # 1 - 0.1 is clipped, 0.2 - 0.1 is not
    link = model(KINDS[kind])
    Adam(alpha=0.1).setup(link).apply_gradients({"w": np.ones(2)})
    np.testing.assert_allclose(link.w.array, [0.5, 0.1], rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_called_though_there_is_no_step(kind: str) -> None:
    """As in Chainer: a frozen parameter, one without a rule, one that is not there yet."""
    link = model(KINDS[kind], b=[1.0])
    with link.init_scope():
        link.lazy = KINDS[kind]()
    opt = Adam(alpha=0.1).setup(link)
    link.w.update_rule.enabled = False
    for t in (1, 2):
        opt.apply_gradients({"w": np.ones(2), "b": np.ones(1), "lazy": None})
        assert (link.w.calls, link.lazy.calls, link.w.update_rule.t) == (t, t, 0)
        assert opt.last_update.applied == ("b",)
        assert link.w.array.tolist() == [0.5, 0.2]
    link.w.update_rule = None
    opt.apply_gradients({"w": np.ones(2), "b": np.ones(1), "lazy": None})
    assert link.w.calls == 3
    opt.on_nonfinite = "skip"
    opt.apply_gradients({"w": np.ones(2), "b": np.full(1, np.nan), "lazy": None})
    assert link.w.calls == 3
    assert opt.last_update.applied == ()


def test_it_is_noticed_whenever_it_comes_and_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    link = model(WithAttributes, b=[1.0])
    with link.init_scope():
        link.plain = Parameter(np.array([1.0]))
    opt = Adam(alpha=0.1).setup(link)
    grads = {path: np.ones(param.shape) for path, param in opt.parameters.items()}
    for _ in range(3):
        opt.apply_gradients(grads)
    clip_itself(link.w)
    for _ in range(3):
        link.w.array[...] = [1.0, 0.2]
        opt.apply_gradients(grads)
        assert link.w.array[0] == 0.5
    assert link.w.calls == 3
    del link.w.update
    for _ in range(3):
        opt.apply_gradients(grads)
    assert link.w.calls == 3
    monkeypatch.setattr(WithAttributes, "update", lambda self: self.array.fill(3.0))
    opt.apply_gradients(grads)
    assert link.w.array.tolist() == [3.0, 3.0]
    monkeypatch.setattr(Parameter, "update", lambda self: self.array.fill(7.0))
    opt.apply_gradients(grads)
    assert link.b.array.tolist() == link.plain.array.tolist() == [7.0]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_masters_follow_it(dtype: str) -> None:
    link = Link()
    with link.init_scope():
        link.w = Clipped(np.array([1.0, 0.25], dtype))
    opt = Adam(alpha=0.125).setup(link)
    opt.use_fp32_update()
    w = np.array([1.0, 0.25], dtype)
    by_hand = Adam(alpha=0.125).setup(w)
    by_hand.use_fp32_update()
    for t in range(1, 5):
        opt.apply_gradients({"w": np.full(2, 0.5, dtype)})
        by_hand.apply_gradients(np.full(2, 0.5, dtype))
        np.clip(w, -0.5, 0.5, out=w)
        np.testing.assert_array_equal(link.w.array, w)
        assert link.w.update_rule.t == t


def test_it_raises_like_a_rule() -> None:
    class Fails(Clipped):
        def update(self) -> None:
            raise ArithmeticError("mine")

    link = model(Fails, b=[1.0])
    opt = Adam(alpha=0.1).setup(link)
    with pytest.raises(ArithmeticError, match="mine"):
        opt.apply_gradients({"w": np.ones(2), "b": np.ones(1)})
    assert (opt.t, link.b.update_rule.t, link.w.update_rule.t) == (1, 1, 0)
    assert opt.last_update.applied == ("b",)


def test_rules_of_ones_own() -> None:
    class Descent(UpdateRule):
        def update_core(self, param: Any) -> None:
            param.array -= 0.1 * param.grad

    class Method(GradientMethod):
        def create_update_rule(self) -> Descent:
            return Descent(self.hyperparam)

    link = model(Clipped)
    opt = Method().setup(link)
    opt.apply_gradients({"w": np.ones(2)})
    np.testing.assert_allclose(link.w.array, [0.5, 0.1])
    assert link.w.calls == 1
