"""What the host has asked of the GPUs, and how launches are made."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

__all__ = ["CUDARuntimeError", "Counts", "counting", "counts", "state"]


class CUDARuntimeError(RuntimeError):
    """What CuPy raises for errors of CUDA."""


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
    # few, so that arrays that are large for them are small enough to test with
    multiprocessors: int = 2
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
