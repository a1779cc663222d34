"""What classes hold under some names is compared: all of it when anything may have changed."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest

from fastadam.kernels._noted import Noted, Own


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


def own(*names: str) -> tuple[Own, list[type[Any]]]:
    """Ask whether `names` differ from 1; and tell which classes it has been asked of."""
    asked: list[type[Any]] = []

    def ask(kind: type[Any]) -> bool:
        asked.append(kind)
        return any(getattr(kind, name, 1) != 1 for name in names)

    return Own(ask, names, ("mine",)), asked


def test_a_class_is_asked_about_again_when_it_has_changed() -> None:
    class Base:
        t = 1

    class Kind(Base):
        pass

    has_own, asked = own("t")
    for _ in range(3):
        assert not has_own(Kind())
    assert asked == [Kind]
    Base.t = 2
    assert has_own(Kind())
    assert has_own(Kind())
    assert has_own(Base())
    Base.t = 1
    assert not has_own(Kind())
    assert not has_own(Base())
    Kind.__bases__ = (type("Another", (), {"t": 3}),)
    assert has_own(Kind())


def test_what_an_object_has_of_its_own() -> None:
    class Kind:
        pass

    has_own, _ = own("t")
    one = Kind()
    assert not has_own(one)
    one.mine = None  # type: ignore[attr-defined]
    assert has_own(one)
    assert not has_own(Kind())
    del one.mine  # type: ignore[attr-defined]
    one.t = 5  # type: ignore[attr-defined]
    assert not has_own(one)


def test_metaclasses_and_descriptors_are_asked_each_time() -> None:
    answers = [1]

    class Meta(type):
        t = 1

        def __hash__(cls) -> int:
            raise AssertionError("nobody's code runs")

    class Changing:
        def __get__(self, obj: object, kind: type[Any] | None = None) -> int:
            return answers[0]

    class OfMeta(metaclass=Meta):
        pass

    class WithDescriptor:
        t = Changing()

    has_own, _ = own("t")
    for value, expected in [(1, False), (2, True), (1, False)]:
        Meta.t = answers[0] = value
        assert has_own(OfMeta()) is expected
        assert has_own(WithDescriptor()) is expected


def test_classes_without_end_are_right_and_go() -> None:
    has_own = Own(lambda kind: bool(getattr(kind, "t", 1) != 1), ("t",), ())
    alive = []
    for i in range(300):
        kind = type("Kind", (), {"t": 1 + i % 2})
        assert has_own(kind()) is bool(i % 2)
        alive.append(weakref.ref(kind))
        del kind
    gc.collect()
    assert sum(ref() is not None for ref in alive) <= 100
