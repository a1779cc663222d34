"""What classes hold under some names is compared: all of it when anything may have changed."""

from __future__ import annotations

from typing import Any

import pytest

from fastadam.kernels._noted import Noted


def noted(kind: type[Any], *names: str) -> Noted:
    found = Noted()
    found.class_attributes(kind, names)
    return found


def test_a_class_that_changes() -> None:
    class Base:
        def update(self) -> None: ...

        @classmethod
        def check(cls) -> None: ...

    class Kind(Base):
        pass

    found, first = noted(Kind, "update", "check", "t"), Base.update
    assert found.same()
    assert found.same()
    # what is not asked for may change
    Kind.other = 1  # type: ignore[attr-defined]
    assert found.same()
    assert found.same()
    Kind.t = 1  # type: ignore[attr-defined]
    assert not found.same()
    assert not found.same()
    del Kind.t  # type: ignore[attr-defined]
    assert found.same()
    Base.update = lambda self: None  # type: ignore[method-assign]
    assert not found.same()
    Base.update = first  # type: ignore[method-assign]
    assert found.same()
    Kind.__bases__ = (type("Another", (), {"update": lambda self: None}),)
    assert not found.same()


@pytest.mark.parametrize("times", [1, 100])
def test_what_a_metaclass_has(times: int) -> None:
    class Meta(type):
        t = 1

    class Kind(metaclass=Meta):
        pass

    found = noted(Kind, "t")
    for _ in range(times):
        assert found.same()
    Meta.t = 2
    assert not found.same()
    Meta.t = 1
    assert found.same()


def test_a_descriptor_that_changes_its_mind() -> None:
    answers = [1, 1, 2]

    class Changing:
        def __get__(self, obj: object, kind: type[Any] | None = None) -> int:
            return answers[0]

    class Kind:
        t = Changing()

    found = noted(Kind, "t")
    assert found.same()
    assert found.same()
    answers[0] = 2
    assert not found.same()


def test_no_class_is_all_right_for_ever() -> None:
    class Kind:
        value = None

    found = noted(Kind, "value")
    for i in range(3):
        # each change gives the class another version
        Kind.value = i  # type: ignore[assignment]
        assert not found.same()
        Kind.value = None
        assert found.same()
