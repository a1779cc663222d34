"""A load in two phases: all is read and checked, then it is made in one piece."""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import partial
from types import MemberDescriptorType
from typing import Any, TypeAlias

from fastadam.kernels._commit import Effects
from fastadam.kernels.arrays import is_writeable
from fastadam.kernels.backend import copy_into, empty_like, is_gpu_array, on_cpu
from fastadam.serializers.protocol import entry_name
from fastadam.serializers.remembering import remember
from fastadam.update.interrupt import DeferredInterrupt
from fastadam.update.overrides import class_attribute, is_plain

__all__ = ["PreparedLoad", "stored_count", "write_count"]

Undo: TypeAlias = Callable[[], None]

# The largest count that a file may have; the kernels count in 64 bits.
_MOST = 1 << 53


class PreparedLoad:
    """What a load is going to change, all of it checked; nothing has changed before `commit`.

    `prepare_load` of links, rules, optimizers and hooks returns one. A class with values of its own
    adds them to what its base returns. `obj` is the object that is to change, `name` its attribute,
    and `mapping` a dict with strings as keys, not one of a subclass.

    Examples
    --------
    >>> import numpy as np
    >>> from fastadam import Link
    >>> from fastadam.serializers import NpzDeserializer
    >>> class Counted(Link):
    ...     def __init__(self):
    ...         super().__init__(w=2)
    ...         self.seen = 0
    ...
    ...     def serialize(self, serializer):
    ...         super().serialize(serializer)
    ...         if not hasattr(serializer, 'load'):
    ...             serializer('seen', self.seen)
    ...
    ...     def prepare_load(self, serializer):
    ...         prepared = super().prepare_load(serializer)
    ...         prepared.attribute(self, 'seen', serializer('seen', self.seen))
    ...         return prepared
    >>> link = Counted()
    >>> NpzDeserializer({'w': np.ones(2), 'seen': np.array(3)}).load(link)
    >>> link.w.array, link.seen
    (array([1., 1.], dtype=float32), 3)
    """

    def __init__(self) -> None:
        self._effects = Effects()
        # what runs users' code, each with what remembers how to take it back
        self._calls: list[tuple[Callable[[], Undo], Callable[[], object]]] = []
        # copies on a GPU, whose sources are there already
        self._launches: list[Callable[[], None]] = []

    def copy(self, target: Any, source: Any, entry: str) -> None:
        """Copy the values of an array into another one, in place.

        Parameters
        ----------
        target : array
            NumPy's or CuPy's.
        source : array
            Of the same shape; cast within a kind.
        entry : str
            Its key, for messages.

        Raises
        ------
        ValueError
            If the target is read-only, shapes differ, or elements of the target share memory.
        TypeError
            If the values cannot be cast.
        """
        if is_gpu_array(target):
            there = empty_like(target)
            copy_into(there, source)
            self._launches.append(partial(copy_into, target, there))
            return
        if not is_writeable(target):
            raise ValueError(
                f"cannot load {entry!r}: the array it would be copied into is read-only"
            )
        try:
            self._effects.hold_copy(target, on_cpu(source))
        except (TypeError, ValueError) as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"cannot load {entry!r}: {error}") from error

    def attribute(self, obj: Any, name: str, value: Any) -> None:
        """Set an attribute of an object; where that runs code of its class, this comes first."""
        kind: Any = type(obj)
        slot = isinstance(class_attribute(kind, name), MemberDescriptorType)
        if slot and kind.__setattr__ is object.__setattr__:
            self._effects.hold_slot(obj, name, value)
        elif not slot and is_plain(obj, name) and type(getattr(obj, "__dict__", None)) is dict:
            self._effects.hold_entry(vars(obj), name, value)
        else:
            self.call(partial(setattr, obj, name, value), partial(_remember_attribute, obj, name))

    def slot(self, obj: Any, name: str, value: Any) -> None:
        """Set a slot of an object, whatever its class makes of setting attributes."""
        self._effects.hold_slot(obj, name, value)

    def remove_attribute(self, obj: Any, name: str) -> None:
        """Remove an attribute of an object itself, which it need not have."""
        if name not in vars(obj):
            return
        if is_plain(obj, name) and type(vars(obj)) is dict:
            self._effects.hold_removal(vars(obj), name)
        else:
            self.call(partial(delattr, obj, name), partial(_remember_attribute, obj, name))

    def entry(self, mapping: dict[str, Any], key: str, value: Any) -> None:
        """Set an entry of a dict."""
        self._effects.hold_entry(mapping, key, value)

    def remove_entry(self, mapping: dict[str, Any], key: str) -> None:
        """Remove an entry of a dict, which it need not have."""
        self._effects.hold_removal(mapping, key)

    def call(self, make: Callable[[], object], remember: Callable[[], Undo]) -> None:
        """Call something that may raise, before anything else is changed.

        Parameters
        ----------
        make : callable
            What to call.
        remember : callable
            Called just before; returns what takes it back, which is called if this call or a later
            one raises.
        """
        self._calls.append((remember, make))

    def serialize(self, obj: Any, deserializer: Any) -> None:
        """Call an object's own `serialize`, which reads and writes in one.

        If it raises, or anything after it, the object's attributes and arrays are given back what
        they were.

        Parameters
        ----------
        obj : object
            A link, rule, optimizer or hook.
        deserializer : Deserializer
            What it reads from.
        """
        self.call(partial(obj.serialize, deserializer), partial(remember, obj))

    def extend(self, other: PreparedLoad) -> None:
        """Take over what another one is going to change; that is empty afterwards."""
        self._effects.extend(other._effects)
        self._calls += other._calls
        self._launches += other._launches
        other._calls, other._launches = [], []

    def commit(self) -> None:
        """Change everything, or nothing.

        Setters and `serialize` methods of users' classes run first. If one raises, those that ran
        are given their old values again, and the error says so. Everything else is one step, in
        which no Python code runs.
        """
        undos: list[Undo] = []
        try:
            for remembered, make in self._calls:
                undos.append(remembered())
                make()
            if self._launches:
                with DeferredInterrupt():
                    for launch in self._launches:
                        launch()
                    self._effects.commit()
            else:
                self._effects.commit()
        except BaseException as error:
            if not self._effects.committed:
                _take_back(undos, error)
            raise
        self._effects.release()


def stored_count(serializer: Any, key: str, now: int) -> int:
    """Read a count of updates or epochs, which is `now`, by a deserializer of any library.

    One that is below 0, or no count at all, is a ValueError.
    """
    # whatever has been set, the file has a whole number
    count = int(serializer(key, now if _is_count(now) else 0))
    if not _is_count(count):
        raise ValueError(
            f"{entry_name(serializer, key)!r} is {count} in the file; a count is from 0 to {_MOST}"
        )
    return count


def write_count(serializer: Any, key: str, count: Any) -> None:
    """Write a count of updates or epochs, if it is one that `stored_count` reads; else ValueError.

    Counts are checked here and not where they are set: that would be on the way of every update,
    and programs of Chainer's set them.
    """
    if not _is_count(count):
        raise ValueError(
            f"cannot save {entry_name(serializer, key)!r}: it is {count!r}, and no load would take "
            f"it; a count is a whole number from 0 to {_MOST}"
        )
    serializer(key, count)


def _is_count(count: Any) -> bool:
    """Tell whether something is a count that a file may have."""
    try:
        return 0 <= operator.index(count) <= _MOST
    except TypeError:
        return False


def _remember_attribute(obj: Any, name: str) -> Undo:
    """Return what gives an attribute its value back."""
    own = getattr(obj, "__dict__", {})
    is_own = name in own or hasattr(type(class_attribute(type(obj), name)), "__set__")
    try:
        old = getattr(obj, name)
    except AttributeError:
        is_own = False
    return partial(setattr, obj, name, old) if is_own else partial(_forget, obj, name)


def _forget(obj: Any, name: str) -> None:
    """Delete an attribute, if the object has it."""
    if name in getattr(obj, "__dict__", {}):
        delattr(obj, name)


def _take_back(undos: list[Undo], error: BaseException) -> None:
    """Give back what has been set, the last first, and say so."""
    failed: list[str] = []
    for undo in reversed(undos):
        try:
            undo()
        except Exception as other:  # a setter that does not take its old value
            failed.append(f"{type(other).__name__}: {other}")
    if failed:
        error.add_note(f"not everything was given its old value again: {'; '.join(failed)}")
    elif undos:
        error.add_note("nothing has been loaded: what was set before this has its old value again")
