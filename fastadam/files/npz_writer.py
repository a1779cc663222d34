"""Write npz files: a zip archive with an array in each member."""

from __future__ import annotations

import functools
import io
import itertools
import os
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy_format

from fastadam.files.atomic import to_file
from fastadam.files.entries import Entry, Value, checked_pieces, refuse_dtype
from fastadam.files.limits import PIECE

__all__ = ["write"]

_LOCAL = struct.Struct("<4s2B4HL2L2H")
_CENTRAL = struct.Struct("<4s4B4HL2L5H2L")
_LARGE = 0xFFFFFFFF
# The first moment that zip files know: the same values make the same bytes at any time.
_DATE = 1 << 5 | 1
_UNICODE, _DESCRIPTOR = 1 << 11, 1 << 3
_UNIX, _MODE = 3, 0o600 << 16
_STORED, _DEFLATED = 0, 8


def write(
    file: str | bytes | os.PathLike[Any] | BinaryIO,
    values: Mapping[str, Value],
    compression: bool,
    done: Callable[[int], None] | None = None,
    entries: Mapping[str, Entry] | None = None,
) -> None:
    """Write values to an npz file, atomically.

    Parameters
    ----------
    file : str, bytes, os.PathLike or binary file object
        The file; an object, which need not be seekable, is written to as it is.
    values : mapping of str to numpy.ndarray
        Values by key, of any layout. The keys have been checked.
    compression : bool
        Whether to compress.
    done : callable, optional
        Called after each value with its bytes.
    entries : mapping of str to Entry, optional
        What the list of contents says of the values: others are not written.

    Raises
    ------
    TypeError
        If a dtype has no counterpart in files.
    RuntimeError
        If a value is not what the list says. The old file is still there.
    """
    for key, value in values.items():
        _header(key, value)
    with to_file(file) as opened:
        archive = _Archive(opened, compression)
        for key, value in values.items():
            pieces: Iterator[bytes] = iter(())
            if not value.dtype.hasobject:
                expected = None if entries is None else entries.get(key)
                pieces = checked_pieces(key, value, expected)
            archive.add(key, itertools.chain((_header(key, value),), pieces))
            if done is not None:
                done(value.nbytes)
        archive.finish()


def _header(key: str, value: Value) -> bytes:
    """Return what comes before an array's bytes; of a None it is all."""
    dtype = value.dtype
    if dtype.hasobject:
        return _none()
    refuse_dtype(key, dtype)
    if dtype.kind != "V" or dtype.names is None:
        return _plain_header(dtype, value.shape)
    try:
        return _npy_header(npy_format.dtype_to_descr(dtype), value.shape)
    except (ValueError, UnicodeEncodeError) as error:
        raise TypeError(f"cannot save {key!r}: dtype {dtype} has no counterpart: {error}") from None


@functools.lru_cache(maxsize=1024)
def _plain_header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    return _npy_header(npy_format.dtype_to_descr(dtype), shape)


def _npy_header(descr: Any, shape: tuple[int, ...]) -> bytes:
    header = io.BytesIO()
    told = {"descr": descr, "fortran_order": False, "shape": shape}
    npy_format.write_array_header_1_0(header, told)
    return header.getvalue()


@functools.cache
def _none() -> bytes:
    """Return a None as NumPy pickles it."""
    member = io.BytesIO()
    npy_format.write_array(member, np.array(None, dtype=object))
    return member.getvalue()


class _Archive:
    """A zip archive in the making; it is written from front to back."""

    def __init__(self, file: BinaryIO, compression: bool) -> None:
        self._file = file
        self._method = _DEFLATED if compression else _STORED
        self._at = file.tell() if file.seekable() else 0
        self._waiting: list[bytes] = []
        self._n_waiting = 0
        self._central: list[bytes] = []

    def add(self, key: str, pieces: Iterator[bytes]) -> None:
        """Add a member; its size need not be known before."""
        name = f"{key}.npy".encode()
        flags = 0 if name.isascii() else _UNICODE
        offset = self._at
        crc, size, packed = 0, 0, 0
        packer = zlib.compressobj(wbits=-15) if self._method == _DEFLATED else None
        # what is held back until the checksum is known
        first: list[bytes] = []
        for piece in pieces:
            crc = zlib.crc32(piece, crc)
            size += len(piece)
            first.append(piece if packer is None else packer.compress(piece))
            packed += len(first[-1])
            if size > 2 * PIECE:
                if not flags & _DESCRIPTOR:
                    # too long for that: the checksum follows it
                    flags |= _DESCRIPTOR
                    extra = struct.pack("<2H2Q", 1, 16, 0, 0)
                    self._put(self._local(name, flags, (0, _LARGE, _LARGE), extra))
                self._put(*first)
                first.clear()
        if packer is not None:
            first.append(packer.flush())
            packed += len(first[-1])
        if flags & _DESCRIPTOR:
            self._put(*first, struct.pack("<4sL2Q", b"PK\x07\x08", crc, packed, size))
        else:
            self._put(self._local(name, flags, (crc, packed, size), b""), *first)
        self._central.append(_record(name, flags, self._method, crc, packed, size, offset))

    def _local(
        self, name: bytes, flags: int, checksum_and_sizes: tuple[int, int, int], extra: bytes
    ) -> bytes:
        version = 45 if extra else 20
        numbers = (version, 0, flags, self._method, 0, _DATE, *checksum_and_sizes)
        return _LOCAL.pack(b"PK\x03\x04", *numbers, len(name), len(extra)) + name + extra

    def _put(self, *pieces: bytes) -> None:
        """Write, or wait until there is more to write."""
        for data in pieces:
            self._at += len(data)
            self._waiting.append(data)
            self._n_waiting += len(data)
            if self._n_waiting >= PIECE:
                self._write()

    def _write(self) -> None:
        waiting, self._waiting, self._n_waiting = self._waiting, [], 0
        self._file.write(waiting[0] if len(waiting) == 1 else b"".join(waiting))

    def finish(self) -> None:
        """Write the directory, which is read first."""
        start = self._at
        for record in self._central:
            self._put(record)
        size, count = self._at - start, len(self._central)
        if count >= 0xFFFF or size >= _LARGE or start >= _LARGE:
            numbers = (44, 45, 45, 0, 0, count, count, size, start)
            record = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", *numbers)
            at = self._at
            self._put(record + struct.pack("<4sLQL", b"PK\x06\x07", 0, at, 1))
        n, length, first = min(count, 0xFFFF), min(size, _LARGE), min(start, _LARGE)
        self._put(struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, n, n, length, first, 0))
        self._write()


def _record(
    name: bytes, flags: int, method: int, crc: int, packed: int, size: int, offset: int
) -> bytes:
    """Return a member's record in the directory."""
    extra = b""
    large = [number for number in (size, packed, offset) if number >= _LARGE]
    if large:
        extra = struct.pack(f"<2H{len(large)}Q", 1, 8 * len(large), *large)
    version = 45 if large or flags & _DESCRIPTOR else 20
    numbers = (version, _UNIX, version, 0, flags, method, 0, _DATE, crc)
    sizes = (min(packed, _LARGE), min(size, _LARGE), len(name), len(extra), 0, 0, 0)
    return _CENTRAL.pack(b"PK\x01\x02", *numbers, *sizes, _MODE, min(offset, _LARGE)) + name + extra
