"""Calls of libhdf5: with memory for it, and with words for what fails.

libhdf5 does not survive every lack of memory, and calls others damage.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np

from fastadam.files.errors import CheckpointError, UnreadableFileError

__all__ = ["check_memory", "reading"]

# More than libhdf5 takes at a time for structures of its own. NumPy asks for memory in another way
# from 4 MiB on.
_OWN = 1 << 21


def check_memory(n_bytes: int = 0) -> None:
    """Refuse to go on where libhdf5 would find too little memory, with a MemoryError.

    It takes `n_bytes` besides its own structures.
    """
    try:
        # given back at once, and never written to
        np.empty(_OWN + n_bytes, np.uint8)
    except MemoryError:
        raise MemoryError("there is too little memory for libhdf5") from None


@contextlib.contextmanager
def reading(what: str) -> Iterator[None]:
    """Read something in a block; whatever libhdf5 meets in it is said to be damage.

    That is an UnreadableFileError, or a MemoryError if there is too little memory, before the block
    or when it has failed.
    """
    check_memory()
    try:
        yield
    except (CheckpointError, MemoryError):
        raise
    except Exception as error:  # whatever libhdf5 finds in a damaged file
        check_memory()
        raise UnreadableFileError(
            f"{what} cannot be read: the file is damaged, or of a kind unknown here ({error})"
        ) from error
