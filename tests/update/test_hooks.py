"""The table of hooks, by itself and as optimizers and rules use it."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

import fastadam
from fastadam.update.hooks import HookTable


def hook(*args: Any) -> None:
    """A function has a name."""


class Named:
    """A hook object, as Chainer's are."""

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)

    def __call__(self, *args: Any) -> None:
        pass


def owners() -> list[Any]:
    """Everything that takes hooks."""
    return [fastadam.Adam().setup(np.zeros(2)), fastadam.AdamRule(), fastadam.UpdateRule()]


@pytest.mark.parametrize("owner", owners(), ids=["optimizer", "rule", "base rule"])
class TestErrors:
    def test_a_class(self, owner: Any) -> None:
        with pytest.raises(TypeError, match=r"WeightDecay is a class; make a hook of it"):
            owner.add_hook(fastadam.optimizer_hooks.WeightDecay)

    def test_not_callable(self, owner: Any) -> None:
        with pytest.raises(TypeError, match="callable"):
            owner.add_hook("no function", name="x")

    def test_unknown_timing(self, owner: Any) -> None:
        with pytest.raises(ValueError, match="'middle'"):
            owner.add_hook(hook, timing="middle")

    def test_without_a_name(self, owner: Any) -> None:
        with pytest.raises(ValueError, match="name"):
            owner.add_hook(Named())

    @pytest.mark.parametrize("timing", ["pre", "post", "auto"])
    def test_name_taken_in_either_timing(self, owner: Any, timing: str) -> None:
        for first in ("pre", "post"):
            owner.add_hook(hook, timing=first)
            with pytest.raises(KeyError, match="hook"):
                owner.add_hook(Named(name="hook"), timing=timing)
            owner.remove_hook("hook")

    def test_removing_what_is_not_there(self, owner: Any) -> None:
        owner.add_hook(hook, name="other")
        with pytest.raises(KeyError, match=r"'nobody'.*'other'"):
            owner.remove_hook("nobody")
        owner.remove_hook("other")
        with pytest.raises(KeyError, match="'other'"):
            owner.remove_hook("other")

    def test_bogus_timing_attribute_warns_and_means_pre(self, owner: Any) -> None:
        with pytest.warns(UserWarning, match="'sometimes'") as caught:
            owner.add_hook(Named(name="odd", timing="sometimes"))
        assert len(caught) == 1
        assert [(timing, name) for timing, name, _ in owner._hooks] == [("pre", "odd")]
        owner.remove_hook("odd")


def test_a_refused_hook_is_not_added() -> None:
    table = HookTable()
    table.add(hook, "taken", "pre")
    for bad in (
        (hook, "taken", "post"),
        (hook, "new", "never"),
        (Named(), None, "pre"),
        (3, "n", "pre"),
    ):
        with pytest.raises((KeyError, ValueError, TypeError)):
            table.add(*bad)  # type: ignore[arg-type]
    assert list(table) == [("pre", "taken", hook)]
    assert len(table) == 1


@pytest.mark.parametrize(
    ("hook", "argument", "expected"),
    [
        (hook, None, "hook"),
        (hook, "given", "given"),
        (Named(name="own"), None, "own"),
        (Named(name="own"), "given", "given"),
        (Named(__name__="dunder", name="own"), None, "own"),
    ],
)
def test_name(hook: Any, argument: str | None, expected: str) -> None:
    table = HookTable()
    table.add(hook, argument, "auto")
    assert [name for _, name, _ in table] == [expected]


@pytest.mark.parametrize(
    ("attribute", "argument", "expected"),
    [
        (None, "auto", "pre"),
        ("pre", "auto", "pre"),
        ("post", "auto", "post"),
        ("post", "pre", "pre"),
        ("pre", "post", "post"),
        (None, "post", "post"),
        ("auto", "auto", "pre"),
        ("bogus", "post", "post"),
    ],
)
def test_timing(attribute: str | None, argument: str, expected: str) -> None:
    table = HookTable()
    one = Named(name="one") if attribute is None else Named(name="one", timing=attribute)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if attribute == "auto" else "error")
        table.add(one, None, argument)
    assert table.at(expected) == [one]
    assert table.at("post" if expected == "pre" else "pre") == []


def test_order_is_that_of_registration() -> None:
    table = HookTable()
    hooks = [Named(name=name) for name in "dbeac"]
    for one in hooks:
        table.add(one, None, "post")
    table.remove("e")
    table.add(hooks[2], None, "post")
    assert [one.name for one in table.at("post")] == ["d", "b", "a", "c", "e"]


def test_at_refuses_other_timings_and_returns_a_copy() -> None:
    table = HookTable()
    table.add(hook, None, "pre")
    with pytest.raises(ValueError, match="'auto'"):
        table.at("auto")
    table.at("pre").clear()
    assert table.at("pre") == [hook]


def test_a_hook_may_remove_itself_while_hooks_are_called() -> None:
    opt = fastadam.Adam().setup(np.ones(2))
    called = []

    def once(optimizer: Any) -> None:
        called.append("once")
        optimizer.remove_hook("once")

    opt.add_hook(once)
    opt.add_hook(lambda optimizer: called.append("always"), name="always")
    for _ in range(2):
        opt.apply_gradients(np.ones(2))
    assert called == ["once", "always", "always"]
