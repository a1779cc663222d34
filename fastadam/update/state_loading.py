"""Prepare the load of a rule's state: read and check it now, take it over later."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastadam.kernels.arrays import is_writeable
from fastadam.kernels.backend import copy_into, empty_like, is_array, is_gpu_array
from fastadam.kernels.dtypes import computing_dtype, is_half
from fastadam.kernels.memory import reach_into_another
from fastadam.serializers.prepared import PreparedLoad
from fastadam.serializers.protocol import check_stored_array, entry_name, stored_entry

__all__ = ["StateLike", "prepare_state"]


class StateLike(NamedTuple):
    """What an array of a state would be, without its memory: shape and layout of one, and dtype."""

    array: Any
    dtype: Any


def prepare_state(prepared: PreparedLoad, serializer: Any, rule: Any, param: Any, t: int) -> None:
    """Read the state of a rule.

    From a file that says itself that it is complete, the rule gets exactly the state that it was
    saved with. From others it gets what its flags of now ask for. What is missing is an error
    unless nothing had been updated when it was saved (`t` is 0), or the file says that there was
    none.
    """
    complete = bool(getattr(serializer, "complete", False))
    has: Any = getattr(serializer, "has", None)
    current: dict[str, Any] = rule._state or {}
    lazy = param is not None and param.array is None
    sized = bool(current) or (param is not None and not lazy)
    fresh: dict[str, Any] = {}
    gained: dict[str, Any] = {}
    if complete or not current:
        fresh, gained = rule._state_template(param)
    if complete:
        late = dict.fromkeys(rule._late_names, next(iter(fresh.values()), None))
        likes = {**fresh, **{k: v for k, v in late.items() if has(k)}}
        likes.update(
            (k, v) for k, v in current.items() if not _is_of_another_dtype(v, likes.get(k))
        )
        optional = {*rule._late_names, *(current.keys() - fresh.keys())}
    else:
        late = rule._late_state(param, current) if current else {}
        likes, optional = {**(current or fresh), **late}, set(late)
    stateless: Any = getattr(serializer, "stateless", None)
    if stateless is None:
        counted = t != 0 and rule.enabled and not lazy
    else:
        # the file says of all rules whether they had a state: one that was stepped had
        counted = t != 0 and serializer.path not in stateless
        counted = counted or any(map(has, likes))
    loaded: dict[str, Any] = {}
    dropped: list[str] = []
    for key in likes:
        absent = has is not None and not has(key)
        if absent and key in optional:
            dropped.append(key)
            continue
        # saved before the first update, or while the parameter had no array yet: there is no
        # state to go on from
        needed = bool(loaded) or counted
        if absent and serializer.strict and not needed:
            prepared.attribute(rule, "_state", None)
            return
        try:
            value = stored_entry(serializer, key, _array_of(likes[key]) if sized else None)
        except KeyError:
            if key in optional:
                dropped.append(key)
                continue
            if needed:
                raise
            prepared.attribute(rule, "_state", None)
            return
        if value is not None:
            loaded[key] = value
    n_needed = len(likes.keys() - optional)
    partial = not sized and len(loaded.keys() - optional) < n_needed
    if (not loaded and t == 0) or (not current and (not loaded or partial)):
        prepared.attribute(rule, "_state", None)
        return
    for key, value in loaded.items():
        loaded[key] = _Stored(serializer, key, value, likes[key], sized)
    if current and type(rule._state) is dict:
        arrays = [None if param is None else param.array, *current.values()]
        held = [array for array in arrays if isinstance(array, np.ndarray)]
        apart = not reach_into_another(held)
        for key, stored in loaded.items():
            if apart and key in current and stored.fits_into(current[key]):
                prepared.copy(current[key], stored.value, stored.entry)
            else:
                prepared.entry(current, key, stored.made())
        for key in dropped:
            prepared.remove_entry(current, key)
        return
    if not current and fresh.keys() - loaded.keys() - set(dropped):
        fresh, gained = rule._initial_state(param)
    state = {k: v for k, v in (current or fresh).items() if k not in dropped}
    state.update((key, stored.made()) for key, stored in loaded.items())
    prepared.attribute(rule, "_state", state)
    for name, value in gained.items():
        prepared.attribute(rule, name, value)


class _Stored:
    """One value of a state, checked against what it is to be like."""

    def __init__(self, serializer: Any, key: str, value: Any, like: Any, sized: bool) -> None:
        self.entry = entry_name(serializer, key)
        self._like = like
        self._sized = sized
        self._is_new = bool(getattr(serializer, "gives_new_arrays", False))
        array = _array_of(like)
        if not is_array(array):
            self.value: Any = type(like)(value)
            return
        shape = array.shape if sized else None
        self.value = check_stored_array(value, shape, like.dtype, self.entry)
        # state is kept in the type that steps are computed in, whatever a file has
        wide = computing_dtype(self.value.dtype) or self.value.dtype
        # a user's rule may have made float32 of what it began in a half type
        wider = is_half(like.dtype) and not is_half(self.value.dtype)
        self._dtype = wide if wider or not sized else like.dtype

    def fits_into(self, current: Any) -> bool:
        """Tell whether it can be copied into the array that is there."""
        return (
            is_array(current)
            and is_array(self.value)
            and not is_gpu_array(current)
            and current.dtype == self._dtype
            and is_writeable(current)
        )

    def made(self) -> Any:
        """Return what the state gets in place of what is there."""
        like, value = _array_of(self._like), self.value
        if not is_array(like):
            return value
        in_order = not self._sized or (not is_gpu_array(like) and like.flags.c_contiguous)
        if in_order and self._is_new and value.dtype == self._dtype and value.flags.c_contiguous:
            return value
        fitting = (
            empty_like(like, self._dtype) if self._sized else np.empty(value.shape, self._dtype)
        )
        copy_into(fitting, value)
        return fitting


def _is_of_another_dtype(value: Any, like: Any) -> bool:
    """Tell whether an array is not of the dtype that a new state would have."""
    return is_array(value) and is_array(_array_of(like)) and value.dtype != like.dtype


def _array_of(like: Any) -> Any:
    """Return an array of the shape and layout of what a value is to be like, or what it is."""
    return like.array if isinstance(like, StateLike) else like
