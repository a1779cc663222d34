"""What an object is before its own `serialize` loads it, so that it can be given back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from fastadam.kernels.arrays import is_writeable
from fastadam.kernels.backend import beside, copy_into, is_array

__all__ = ["remember"]


def remember(obj: Any) -> Callable[[], None]:
    """Return what gives an object, and what belongs to it, the attributes and values of now.

    These are its attributes, its dicts and lists, slots of parameters, and the elements of all
    arrays in them, of which copies are taken. For a link they are those of all links and
    parameters below it, for an optimizer those of its rules.

    Parameters
    ----------
    obj : object
        A link, rule, optimizer or hook, of this library or another.
    """
    dicts: dict[int, tuple[dict[Any, Any], dict[Any, Any]]] = {}
    lists: dict[int, tuple[list[Any], list[Any]]] = {}
    slots: list[tuple[Any, str, Any]] = []
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

    for part in _parts(obj):
        # an object's dict, what is in it, and what is in the dicts and lists that are there
        keep(getattr(part, "__dict__", None), 3)
        for name in getattr(part, "_copied_slots", ()):
            slots.append((part, name, getattr(part, name)))
        keep(getattr(part, "array", None), 0)
    copies = [(array, _copy(array)) for array in arrays.values()]

    def give_back() -> None:
        for mapping, entries in dicts.values():
            mapping.clear()
            mapping.update(entries)
        for items, old in lists.values():
            items[:] = old
        for part, name, value in slots:
            object.__setattr__(part, name, value)
        for array, values in copies:
            if is_writeable(array):
                copy_into(array, values)

    return give_back


def _parts(obj: Any) -> Iterator[Any]:
    """Yield an object and what its `serialize` may change."""
    yield obj
    if getattr(obj, "hyperparam", None) is not None:
        yield obj.hyperparam
    targets = getattr(obj, "_targets", None)
    if targets is not None:
        for param in targets.parameters.values():
            rule = getattr(param, "update_rule", None)
            if rule is not None:
                yield rule
        return
    if callable(getattr(obj, "links", None)):
        yield from obj.links(skipself=True)
    if callable(getattr(obj, "params", None)):
        yield from obj.params()


def _copy(array: Any) -> Any:
    """Return a copy of an array, where it is."""
    with beside(array):
        return array.copy()
