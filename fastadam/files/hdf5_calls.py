"""Calls of libhdf5: with memory for it, and with words for what fails.

libhdf5 does not survive every lack of memory, and calls others damage.
"""

from __future__ import annotations

from types import TracebackType

import numpy as np

from fastadam.files.errors import CheckpointError, UnreadableFileError

__all__ = ["Reading", "check_memory"]

# More than libhdf5 takes at a time for structures of its own. NumPy asks for memory in another way
# from 4 MiB on.
_OWN = 1 << 21


def check_memory(n_bytes: int = 0) -> None:
    """Refuse to go on where libhdf5 would find too little memory.

    Parameters
    ----------
    n_bytes : int
        What it takes besides its own structures.

    Raises
    ------
    MemoryError
        If there is less.
    """
    try:
        # given back at once, and never written to
        np.empty(_OWN + n_bytes, np.uint8)
    except MemoryError:
        raise MemoryError("there is too little memory for libhdf5") from None


class Reading:
    """The block in which something is read; whatever libhdf5 meets in it is said to be damage.

    Parameters
    ----------
    what : str
        What is read, for the message.

    Raises
    ------
    UnreadableFileError
        In the place of what libhdf5 has found.
    MemoryError
        If there is too little memory, before the block or when it has failed.
    """

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        check_memory()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not isinstance(error, Exception) or isinstance(error, CheckpointError | MemoryError):
            return
        check_memory()
        raise UnreadableFileError(f"{self._what} cannot be read: {error}") from error
