"""A GPU's memory, which is the host's: allocations between guards, and a pool as CuPy's.

Where streams run late, what is freed goes back to the pool at once, whoever may be reading it, and
is had again by the next of its size on the stream that it was made on. Otherwise nothing is had
again.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from cuda_on_cpu.late import late_streams, running_late
from cuda_on_cpu.state import Counts, counting, counts, state
from cuda_on_cpu.streams import get_current_stream, refuse_unsafe

__all__ = [
    "Counts",
    "Memory",
    "MemoryPointer",
    "UnownedMemory",
    "check_guards",
    "counting",
    "counts",
    "late_gpu",
    "repair_guards",
    "state",
]

ALIGNMENT = 512
GUARD = 512
# NaN in every floating type
PATTERN = 0xFF


# What is free, by device, stream and size; the last that was freed is the first to be had again.
_free: dict[tuple[int, int, int] | None, list[np.ndarray]] = {}


@contextmanager
def late_gpu(seed: int) -> Iterator[None]:
    """Let streams run late, and memory be had again as soon as it is free."""
    try:
        with late_streams(seed):
            yield
    finally:
        _free.clear()


class Memory:
    """An allocation on a device, between two guards."""

    __slots__ = ("__weakref__", "_whole", "device_id", "ptr", "size")

    def __init__(self, size: int, device_id: int | None = None) -> None:
        # CuPy's pool may have it without asking CUDA, and may not
        refuse_unsafe("to allocate")
        self.device_id = state.device if device_id is None else device_id
        room = -(-max(size, 1) // ALIGNMENT) * ALIGNMENT
        key = self.device_id, get_current_stream(self.device_id).ptr, room
        late = running_late()
        # beside what is had again, the rest of its room is nobody's
        self.size = room if late else size
        free = _free.get(key) if late else None
        self._whole = free.pop() if free else np.full(room + 3 * ALIGNMENT, PATTERN, np.uint8)
        start = self._whole.ctypes.data + GUARD
        self.ptr = -(-start // ALIGNMENT) * ALIGNMENT
        _alive.add(self)
        weakref.finalize(self, _release, self._whole, self._first, self.size, key if late else None)

    @property
    def _first(self) -> int:
        return self.ptr - self._whole.ctypes.data

    @property
    def host(self) -> np.ndarray:
        """The bytes."""
        return self._whole[self._first : self._first + self.size]

    def check(self) -> None:
        """Raise if something was written beside the allocation."""
        _check(self._whole, self._first, self.size)


class UnownedMemory:
    """Memory that somebody else has, who is kept."""

    def __init__(self, ptr: int, size: int, owner: object, device_id: int = -1) -> None:
        if device_id < 0:
            raise ValueError("of the host's memory, nobody can tell whose it is")
        self.ptr, self.size, self.device_id, self._owner = ptr, size, device_id, owner
        self._first = 0
        # nothing is at the address of nothing
        bytes_there = (ctypes.c_uint8 * size).from_address(ptr) if size else b""
        self._whole = np.frombuffer(bytes_there, np.uint8)

    @property
    def host(self) -> np.ndarray:
        """The bytes."""
        return self._whole


_alive: weakref.WeakSet[Memory] = weakref.WeakSet()


def _release(whole: np.ndarray, first: int, size: int, key: Any) -> None:
    _check(whole, first, size)
    if running_late():
        # what was made before all ran late is had by nobody again, but may have yet to be read
        _free.setdefault(key, []).append(whole)


def _check(whole: np.ndarray, first: int, size: int) -> None:
    before, after = whole[:first], whole[first + size :]
    for where, guard in (("before", before), ("after", after)):
        wrong = np.flatnonzero(guard != PATTERN)
        if wrong.size:
            byte = int(wrong[-1]) - guard.size if where == "before" else int(wrong[0])
            raise MemoryError(
                f"a kernel wrote {where} an allocation of {size} bytes, at byte {byte} from it"
            )


def check_guards() -> None:
    """Raise if something was written beside any allocation."""
    for memory in list(_alive):
        memory.check()


def repair_guards() -> None:
    """Write the guards anew, after a test in which one was meant to be found broken."""
    for memory in list(_alive):
        memory._whole[: memory._first] = PATTERN
        memory._whole[memory._first + memory.size :] = PATTERN


class MemoryPointer:
    """A place in an allocation."""

    __slots__ = ("device_id", "mem", "ptr")

    def __init__(self, mem: Memory | UnownedMemory, offset: int) -> None:
        self.mem = mem
        self.ptr = mem.ptr + offset
        self.device_id = mem.device_id

    def memset_async(self, value: int, size: int, stream: Any = None) -> None:
        """Fill bytes."""
        first = self.ptr - self.mem.ptr
        to = self.mem.host[first : first + size]

        def fill() -> None:
            to[...] = value

        (stream or get_current_stream()).do(fill)

    def copy_from_device_async(self, src: MemoryPointer, size: int, stream: Any = None) -> None:
        """Copy bytes from another place on a device."""
        first, second = (each.ptr - each.mem.ptr for each in (self, src))
        to, source = self.mem.host[first : first + size], src.mem.host[second : second + size]

        def copy() -> None:
            to[...] = source

        (stream or get_current_stream()).do(copy)
