"""What an object is before its own `serialize` loads it, so that it can be given back."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import singledispatch
from types import MemberDescriptorType
from typing import Any

from fastadam.kernels.arrays import is_writeable
from fastadam.kernels.backend import beside, copy_into, is_array

__all__ = ["parts_of", "remember"]


def remember(obj: Any) -> Callable[[], None]:
    """Return what gives an object, and what belongs to it, the attributes and values of now.

    These are its attributes, its slots, its dicts and lists, and the elements of all arrays in
    them, of which copies are taken. For a link they are those of all links and parameters below it,
    for an optimizer those of its rules.
    """
    dicts: dict[int, tuple[dict[Any, Any], dict[Any, Any]]] = {}
    lists: dict[int, tuple[list[Any], list[Any]]] = {}
    slots: list[tuple[Any, MemberDescriptorType, Any]] = []
    arrays: dict[int, Any] = {}

    def keep(value: Any, depth: int) -> None:
        if is_array(value):
            if is_writeable(value) and not value.dtype.hasobject:
                arrays[id(value)] = value
        elif type(value) is dict and id(value) not in dicts:
            dicts[id(value)] = value, dict(value)
            for below in value.values() if depth else ():
                keep(below, depth - 1)
        elif type(value) is list and id(value) not in lists:
            lists[id(value)] = value, list(value)
            for below in value if depth else ():
                keep(below, depth - 1)

    for part in parts_of(obj):
        # an object's dict, what is in it, and what is in the dicts and lists that are there
        keep(getattr(part, "__dict__", None), 3)
        slots += [(part, slot, _held(part, slot)) for slot in _slots(type(part))]
        keep(getattr(part, "array", None), 0)
    copies = [(array, _copy(array)) for array in arrays.values()]

    def give_back() -> None:
        for mapping, entries in dicts.values():
            mapping.clear()
            mapping.update(entries)
        for items, old in lists.values():
            items[:] = old
        for part, slot, value in slots:
            if value is not _NOTHING:
                slot.__set__(part, value)
            elif _held(part, slot) is not _NOTHING:
                slot.__delete__(part)
        for array, values in copies:
            if is_writeable(array):
                copy_into(array, values)

    return give_back


@singledispatch
def parts_of(obj: Any) -> Iterator[Any]:
    """Yield an object and what its `serialize` may change.

    A class whose objects change more registers a function of its own.
    """
    yield obj
    if getattr(obj, "hyperparam", None) is not None:
        yield obj.hyperparam
    if callable(getattr(obj, "links", None)):
        yield from obj.links(skipself=True)
    if callable(getattr(obj, "params", None)):
        yield from obj.params()


# What a slot holds that was never set.
_NOTHING = object()


def _slots(kind: type) -> Iterator[MemberDescriptorType]:
    """Yield the slots that a class and its bases have made of ``__slots__``."""
    for base in inspect.getmro(kind):
        if "__slots__" in vars(base):
            for member in vars(base).values():
                if isinstance(member, MemberDescriptorType):
                    yield member


def _held(part: Any, slot: MemberDescriptorType) -> Any:
    """Return what an object has in a slot."""
    try:
        return slot.__get__(part, type(part))
    except AttributeError:
        return _NOTHING


def _copy(array: Any) -> Any:
    """Return a copy of an array, where it is."""
    with beside(array):
        return array.copy()
