"""A GPU's memory, which is the host's: allocations between guards, and what is counted."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

__all__ = [
    "Counts",
    "Memory",
    "MemoryPointer",
    "check_guards",
    "counting",
    "counts",
    "repair_guards",
    "state",
]

ALIGNMENT = 512
GUARD = 512
# NaN in every floating type
PATTERN = 0xFF


@dataclass
class Counts:
    """What the host has asked of the GPUs."""

    launches: list[tuple[str, int, int, int]] = field(default_factory=list)
    uploads: int = 0
    uploaded_bytes: int = 0
    downloads: int = 0
    synchronisations: int = 0

    def reset(self) -> None:
        """Count from 0 again."""
        self.launches.clear()
        self.uploads = self.uploaded_bytes = self.downloads = self.synchronisations = 0

    @property
    def kernels(self) -> list[str]:
        """The names of the kernels launched, without their template arguments."""
        return [name.partition("<")[0] for name, *_ in self.launches]


@dataclass
class State:
    """How launches are made, and which device is the current one."""

    device: int = 0
    devices: int = 2
    order: str = "forward"
    seed: int = 0
    # launches are counted only
    idle: bool = False
    check_guards: bool = True


counts = Counts()
state = State()


@contextmanager
def counting() -> Iterator[Counts]:
    """Count what is done inside, from 0."""
    counts.reset()
    yield counts


class Memory:
    """An allocation on a device, between two guards."""

    __slots__ = ("__weakref__", "_whole", "device_id", "ptr", "size")

    def __init__(self, size: int, device_id: int | None = None) -> None:
        self.size = size
        self.device_id = state.device if device_id is None else device_id
        room = -(-max(size, 1) // ALIGNMENT) * ALIGNMENT
        self._whole = np.full(room + 2 * GUARD + ALIGNMENT, PATTERN, np.uint8)
        start = self._whole.ctypes.data + GUARD
        self.ptr = -(-start // ALIGNMENT) * ALIGNMENT
        _alive.add(self)
        weakref.finalize(self, _check, self._whole, self._first, size)

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


_alive: weakref.WeakSet[Memory] = weakref.WeakSet()


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

    def __init__(self, mem: Memory, offset: int) -> None:
        self.mem = mem
        self.ptr = mem.ptr + offset
        self.device_id = mem.device_id

    def copy_from_device_async(self, src: MemoryPointer, size: int, stream: Any = None) -> None:
        """Copy bytes from another place on a device."""
        first, second = (each.ptr - each.mem.ptr for each in (self, src))
        self.mem.host[first : first + size] = src.mem.host[second : second + size]
