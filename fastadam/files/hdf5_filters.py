"""What libhdf5's filters make of a chunk, made without it.

libhdf5 does not survive that memory runs out while it packs a chunk: it loses the chunk, and
crashes when the file is closed. One that comes packed it only has to write.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["fletcher32", "packed_chunks"]

# How many words are summed at once, and what each of them counts in the second sum.
_WORDS = 1 << 15
_FALLING = np.arange(_WORDS, 0, -1, dtype=np.uint64)


def packed_chunks(
    array: npt.NDArray[Any], chunk: tuple[int, ...], level: int | None
) -> Iterator[tuple[tuple[int, ...], bytes]]:
    """Yield the chunks of an array as they are in a file: where each begins, and its bytes.

    Parameters
    ----------
    array : numpy.ndarray
        The array; its bytes are those of the file.
    chunk : tuple of int
        The shape of a chunk. What is beyond the array is zeros.
    level : int or None
        The gzip level; None for no compression. A checksum follows in any case.
    """
    for start in itertools.product(*map(range, (0,) * array.ndim, array.shape, chunk)):
        piece = array[tuple(slice(at, at + n) for at, n in zip(start, chunk, strict=True))]
        if piece.shape != chunk:
            whole = np.zeros(chunk, array.dtype)
            whole[tuple(map(slice, piece.shape))] = piece
            piece = whole
        data = piece.tobytes()
        if level is not None:
            data = zlib.compress(data, level)
        yield start, data + fletcher32(data).to_bytes(4, "little")


def fletcher32(data: bytes) -> int:
    """Return the checksum that HDF5 files call Fletcher's: of big-endian words of 16 bits.

    Of an odd number of bytes, a zero is the last.
    """
    words = np.frombuffer(data + b"\0" if len(data) % 2 else data, ">u2")
    first = second = 0
    for at in range(0, len(words), _WORDS):
        piece = words[at : at + _WORDS].astype(np.uint64)
        second += first * len(piece) + int(piece @ _FALLING[-len(piece) :])
        first += int(piece.sum())
    return _folded(second) << 16 | _folded(first)


def _folded(total: int) -> int:
    """Return a sum as it is where each carry is added again: zero only if all was."""
    return (total - 1) % 0xFFFF + 1 if total else 0
