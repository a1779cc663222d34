"""What a file may be, hold and take, all in one table: whoever reads or writes asks here."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from fastadam.files.errors import CheckpointError, NoRoomError, UnreadableFileError

__all__ = [
    *("DEPTH", "HDF5", "HEADER", "INFLATION", "MEMBERS", "NAME", "PIECE", "SMALL", "SPARE", "ZIP"),
    *("check_room", "new_array", "open_regular"),
]

# What files begin with.
HDF5, ZIP = b"\x89HDF\r\n\x1a\n", b"PK\x03\x04"
# Bytes of a name in UTF-8: zip files have two for its length, and the suffix '.npy' is four.
NAME = 65535 - len(".npy")
# How many names stand above each other in a key; libhdf5 goes down by recursion.
DEPTH = 1000
# Values and groups in a file.
MEMBERS = 10_000_000
# Bytes of the header of an array.
HEADER = 1 << 16
# How many times longer than in the file anything that was compressed can be, by the algorithm.
INFLATION = 1032
# Bytes that are read for something of any size, such as a number.
SMALL = 1 << 20
# Bytes that are read in all where it is not known what they are for.
SPARE = 1 << 26
# Bytes that are copied at a time: what is still in the cache afterwards.
PIECE = 1 << 20

_KINDS = (
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
)


def check_room(what: str, shape: tuple[int, ...], n_bytes: int, limit: int | None) -> None:
    """Refuse what takes more bytes than there are where it is to go, before memory is taken."""
    if limit is not None and n_bytes > limit:
        raise NoRoomError(
            f"{what} has shape {shape} and {n_bytes:,} bytes, and there is room for {limit:,} "
            "where it is to go"
        )


def new_array(
    what: str, shape: tuple[int, ...], dtype: np.dtype[Any], n_bytes: int
) -> npt.NDArray[Any]:
    """Return an array to read into, or refuse what takes so many bytes that there are not."""
    try:
        return np.empty(shape, dtype)
    except (MemoryError, ValueError):
        if n_bytes <= SMALL:
            raise
        raise CheckpointError(
            f"{what} takes {n_bytes:,} bytes, more than there is memory"
        ) from None


def _check_status(status: os.stat_result, path: str) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not stat.S_ISREG(status.st_mode):
        kind = next((name for test, name in _KINDS if test(status.st_mode)), "something else")
        raise UnreadableFileError(f"{path!r} is no regular file, but {kind}: it is not read")


@contextlib.contextmanager
def open_regular(path: str) -> Iterator[BinaryIO]:
    """Open a regular file for reading, and nothing else.

    Parameters
    ----------
    path : str
        Its name; a link is followed.

    Yields
    ------
    file object
        Binary, without a buffer.

    Raises
    ------
    UnreadableFileError
        If it is a device, a pipe or a socket, which may have no end or never begin.
    OSError
        If it is a folder, or there is none; as `open` raises.
    """
    # asked before it is opened: a device may begin something then
    _check_status(os.stat(path), path)
    # whatever has taken the name's place since then must not keep us waiting
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as file:
        _check_status(os.fstat(file.fileno()), path)
        yield file
