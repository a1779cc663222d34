"""The kinds of files, by suffix.

Another kind is another module with two functions: ``opened(path)``, a context that gives a
`Reader`, and ``write``, which takes what that of npz.py takes. Both raise `CheckpointError` for
what a file cannot be.
"""

from __future__ import annotations

import os
from types import ModuleType
from typing import Any, Protocol

from fastadam.files import hdf5, npz
from fastadam.files.entries import Value

__all__ = ["FORMATS", "Reader", "format_of"]

FORMATS: dict[str, ModuleType] = {".npz": npz, ".h5": hdf5, ".hdf5": hdf5}


class Reader(Protocol):
    """An open file."""

    where: str

    def keys(self) -> list[str]:
        """Return all keys."""

    def __contains__(self, key: str) -> bool:
        """Tell whether there is such a key."""

    def read(self, key: str, limit: int | None) -> Value:
        """Read one value of at most so many bytes."""

    def peek(self, key: str, n_bytes: int) -> bytes | None:
        """Return what are probably the bytes of a value, if that is quicker than to read it."""


def format_of(path: str | bytes | os.PathLike[Any]) -> ModuleType:
    """Return the module that reads and writes files of such a name.

    A suffix that is none of those that are known is a ValueError.
    """
    name = os.fsdecode(path)
    suffix = os.path.splitext(name)[1].lower()
    if suffix not in FORMATS:
        raise ValueError(
            f"the name {name!r} does not say what kind of file it is: end it with "
            f"{', '.join(FORMATS)}"
        )
    return FORMATS[suffix]
