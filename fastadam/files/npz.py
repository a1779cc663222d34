"""npz files: a zip archive with an array in each member."""

from __future__ import annotations

import bisect
import contextlib
import io
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, NamedTuple, Protocol

import numpy as np
from numpy.lib import format as npy_format

from fastadam.files.entries import Value
from fastadam.files.errors import CheckpointError, DamagedArchiveError, EmptyFileError
from fastadam.files.limits import (
    HDF5,
    HEADER,
    INFLATION,
    MEMBERS,
    PIECE,
    SMALL,
    ZIP,
    file_name,
    open_regular,
)
from fastadam.files.none import MAX_LENGTH, is_pickled_none
from fastadam.files.npz_writer import write, write_to

__all__ = ["NpzReader", "opened", "write", "write_to"]

_SUFFIX = ".npy"
_LOCAL = struct.Struct("<4s2B4HL2L2H")
_CENTRAL = struct.Struct("<4s4B4HL2L5H2L")
_END = struct.Struct("<4s4H2LH")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_LARGE = 0xFFFFFFFF
_ENCRYPTED, _DESCRIPTOR, _UNICODE = 1, 1 << 3, 1 << 11
_STORED, _DEFLATED = 0, 8
# Python's parser calls it MemoryError, too, if what is longer is nested too deep.
_ORDINARY = 1 << 10
# Versions of the npy format, with the bytes of the header's length, and what reads it.
_HEADERS = {
    npy_format.magic(1, 0): (2, npy_format.read_array_header_1_0),
    npy_format.magic(2, 0): (4, npy_format.read_array_header_2_0),
}
Header = tuple[tuple[int, ...], bool, np.dtype[Any]]


class _Record(NamedTuple):
    """What the directory says of a member."""

    name: bytes
    flags: int
    method: int
    time: tuple[int, int]
    crc: int
    packed: int
    size: int
    offset: int


@contextlib.contextmanager
def opened(path: str | bytes | os.PathLike[Any]) -> Iterator[NpzReader]:
    """Open an npz file for reading.

    Raises
    ------
    CheckpointError
        If it is none, or damaged, or no regular file.
    OSError
        If it cannot be read.
    """
    name = file_name(path)
    with open_regular(name) as file:
        yield NpzReader(file, repr(name))


class NpzReader:
    """The values of an open archive, each read when it is asked for, and never unpickled.

    Every byte of the archive has to belong to a member or to the directory, and what is said of a
    member in two places has to be the same, so that damage is told even where it does not matter.

    Parameters
    ----------
    file : file object
        Binary and seekable.
    where : str
        The file's name, for messages.
    first : int
        Where the archive begins in it.
    """

    def __init__(self, file: BinaryIO, where: str, first: int = 0) -> None:
        self.where = where
        self._file = file
        self._parsed: dict[bytes, Header] = {}
        try:
            self._descriptor: int | None = file.fileno() if isinstance(file, io.FileIO) else None
        except OSError:
            self._descriptor = None
        self._length = file.seek(0, io.SEEK_END)
        self._directory, start, end = self._find_directory(first)
        # Where the record of each key begins in the directory.
        self._records: dict[str, int] = {}
        offsets = self._read_directory(end - start)
        self._offsets = sorted(offsets)
        if self._offsets != offsets:
            self._offsets = sorted(set(offsets))
        if len(self._offsets) != len(offsets):
            raise self._damaged("two members are in one place")
        if offsets and self._offsets[-1] >= start:
            raise self._damaged("a member is behind the directory")
        if (self._offsets[0] if offsets else start) != first:
            raise self._damaged("there is something before the first member")
        self._offsets.append(start)

    def keys(self) -> list[str]:
        """Return all keys."""
        return list(self._records)

    def __contains__(self, key: str) -> bool:
        """Tell whether there is such a key."""
        return key in self._records

    def read(self, key: str, limit: int | None) -> Value:
        """Read one value.

        Parameters
        ----------
        key : str
            A key that is there.
        limit : int or None
            How many bytes it may take; a larger one is refused before memory is taken.

        Raises
        ------
        CheckpointError
            If it is damaged, too large, or holds Python objects.
        """
        try:
            record = self._record(self._records[key])
            if record.method not in (_STORED, _DEFLATED) or record.flags & _ENCRYPTED:
                raise _RefusedError("is compressed in an unknown way")
            member = _Member(record, self._read_at, self._extent(record))
            small = member.whole() if record.size <= SMALL else None
            found = self._array(member if small is None else io.BytesIO(small), record.size, limit)
            if small is None:
                member.finish()
        except _RefusedError as error:
            raise CheckpointError(f"{key!r} in {self.where} {error}") from None
        except _DamageError as error:
            raise DamagedArchiveError(f"{key!r} in {self.where} is damaged: {error}") from None
        except zlib.error as error:
            raise DamagedArchiveError(f"{key!r} in {self.where} is damaged: {error}") from error
        return found

    def peek(self, key: str, n_bytes: int) -> None:
        """Tell that there is no quicker way to a value than to read it."""

    def _array(self, member: _Bytes, size: int, limit: int | None) -> Value:
        """Read an array from the bytes of a member."""
        (shape, fortran, dtype), n_header = self._header(member)
        if dtype.hasobject:
            if shape == () and dtype.kind == "O" and is_pickled_none(member.read(MAX_LENGTH + 1)):
                return np.array(None, dtype=object)
            raise _RefusedError("cannot be loaded: it holds Python objects, not numbers")
        # as Python numbers: products of NumPy's wrap around
        n_bytes = dtype.itemsize
        for length in shape:
            n_bytes *= int(length)
        if limit is not None and n_bytes > limit:
            raise _RefusedError(
                f"has shape {shape} and {n_bytes:,} bytes, and there is room for {limit:,} where "
                "it is to go"
            )
        if size - n_header != n_bytes:
            raise _RefusedError(
                f"cannot be loaded: it has {size - n_header:,} bytes, and its shape {shape} of "
                f"{dtype} takes {n_bytes:,}"
            )
        try:
            array = np.empty(shape[::-1] if fortran else shape, dtype)
        except (MemoryError, ValueError):
            if n_bytes <= SMALL:
                raise
            raise _RefusedError(f"takes {n_bytes:,} bytes, more than there is memory") from None
        if n_bytes and member.readinto(array.reshape(-1).view(np.uint8).data) != n_bytes:
            raise _DamageError("it is cut off")
        return array.T if fortran else array

    def _header(self, member: _Bytes) -> tuple[Header, int]:
        """Read the header of an array, and its length; those that are alike are parsed once."""
        begin = member.read(npy_format.MAGIC_LEN)
        if begin not in _HEADERS:
            raise _RefusedError("cannot be loaded: it does not begin as an array does")
        n_bytes, parse = _HEADERS[begin]
        # NumPy's reader takes as much memory as the header says that it is long
        told = member.read(n_bytes)
        length = int.from_bytes(told, "little")
        if length > HEADER:
            raise _RefusedError(f"cannot be loaded: its header says it is {length:,} bytes long")
        whole = told + member.read(length)
        found = self._parsed.get(whole)
        if found is None:
            try:
                found = parse(io.BytesIO(whole))
            except Exception as error:  # whatever NumPy's reader makes of damage
                if isinstance(error, MemoryError) and length <= _ORDINARY:
                    raise
                raise _RefusedError(f"cannot be loaded: its header: {error}") from error
            if len(self._parsed) < MEMBERS // 100:
                self._parsed[whole] = found
        return found, npy_format.MAGIC_LEN + len(whole)

    def _find_directory(self, first: int) -> tuple[bytes, int, int]:
        """Read the directory, and return it with its beginning and end in the file."""
        begin = self._read_at(first, 6)
        if not begin:
            raise EmptyFileError(f"{self.where} is empty: no npz file, or damaged")
        if begin[:4] not in (ZIP, b"PK\x05\x06"):
            hint = {
                npy_format.MAGIC_PREFIX: "; it holds a single array",
                HDF5[:6]: "; it is an HDF5 file: end its name with .h5, or use load_hdf5",
            }.get(begin, "")
            raise CheckpointError(
                f"{self.where} is not an npz file, and pickles are not read: no npz file, or "
                f"damaged{hint}"
            )
        at = max(first, self._length - _END.size - 0xFFFF)
        tail = self._read_at(at, self._length - at)
        place = len(tail) - _END.size
        # the comment has to end where the file ends
        while place >= 0 and not (
            tail.startswith(b"PK\x05\x06", place)
            and place + _END.size + int.from_bytes(tail[place + 20 : place + 22], "little")
            == len(tail)
        ):
            place = tail.rfind(b"PK\x05\x06", 0, place + 3)
        if place < 0:
            if self._is_longer(first):
                raise DamagedArchiveError(
                    f"{self.where} is longer than it was when it was saved: something was put "
                    "behind it"
                )
            raise self._damaged("it has no end")
        disk, disk_of, here, count, size, start, _ = _END.unpack_from(tail, place)[1:]
        end = at + place
        locator = self._read_at(end - _LOCATOR.size, _LOCATOR.size)
        if locator[:4] == b"PK\x06\x07" and _LARGE_END.intersection((here, count, size, start)):
            _, _, end_64, disks = _LOCATOR.unpack(locator)
            record = self._read_at(end_64, _END_64.size)
            if len(record) != _END_64.size or end_64 + _END_64.size != end - _LOCATOR.size:
                raise self._damaged("its end is not where it says")
            sign, length, _, _, disk, disk_of, here, count, size, start = _END_64.unpack(record)
            if sign != b"PK\x06\x06" or length != _END_64.size - 12 or disks != 1:
                raise self._damaged("its end is not where it says")
            end = end_64
        if (disk, disk_of) != (0, 0) or here != count or start + size != end or start < first:
            raise self._damaged("its directory is not where it says")
        if count > MEMBERS or count * _CENTRAL.size > size:
            raise self._damaged(f"it says that it has {count:,} members")
        self._count = count
        return self._read_at(start, size), start, end

    def _is_longer(self, first: int) -> bool:
        """Tell whether there is an end of an archive, and more behind it."""
        at = self._length
        while at > first:
            before = max(first, at - PIECE)
            piece = self._read_at(before, at - before + _END.size)
            place = piece.rfind(b"PK\x05\x06")
            while place >= 0:
                if place + _END.size <= len(piece):
                    size, start = struct.unpack_from("<2L", piece, place + 12)
                    # others are bytes of a member
                    if _LARGE in (size, start) or start + size == before + place:
                        return True
                place = piece.rfind(b"PK\x05\x06", 0, place)
            at = before
        return False

    def _read_directory(self, size: int) -> list[int]:
        """Note where the record of each member is, and return where the members are."""
        directory, at = self._directory, 0
        offsets = []
        unpack, n_fixed = _CENTRAL.unpack_from, _CENTRAL.size
        try:
            while at < size:
                fields = unpack(directory, at)
                n_name, n_extra, n_comment, offset = *fields[12:15], fields[18]
                name = directory[at + n_fixed : at + n_fixed + n_name]
                if fields[0] != b"PK\x01\x02" or len(name) != n_name:
                    raise self._damaged("its directory cannot be read")
                key = name.decode("utf-8" if fields[5] & _UNICODE else "cp437")
                key = key.removesuffix(_SUFFIX)
                if key in self._records:
                    raise CheckpointError(f"{self.where} holds {key!r} twice")
                if "\0" in key:
                    raise self._damaged(f"{key!r} is the name of a member")
                self._records[key] = at
                offsets.append(self._record(at).offset if offset == _LARGE else offset)
                at += n_fixed + n_name + n_extra + n_comment
        except (struct.error, UnicodeDecodeError, _DamageError):
            raise self._damaged("its directory cannot be read") from None
        if at != size or len(offsets) != self._count:
            raise self._damaged("its directory has not as many members as it says")
        return offsets

    def _record(self, at: int) -> _Record:
        """Return what a record of the directory says."""
        fields = _CENTRAL.unpack_from(self._directory, at)
        flags, method, time, date, crc, packed, size = fields[5:12]
        n_name, n_extra = fields[12:14]
        offset = fields[18]
        at += _CENTRAL.size
        name = self._directory[at : at + n_name]
        if _LARGE in (packed, size, offset):
            extra = self._directory[at + n_name : at + n_name + n_extra]
            wanted = [number == _LARGE for number in (size, packed, offset)]
            numbers = iter(_large_numbers(extra, sum(wanted)))
            size, packed, offset = (
                next(numbers) if large else number
                for large, number in zip(wanted, (size, packed, offset), strict=True)
            )
        return _Record(name, flags, method, (time, date), crc, packed, size, offset)

    def _extent(self, record: _Record) -> int:
        """Return where what comes after a member begins."""
        return self._offsets[bisect.bisect_right(self._offsets, record.offset)]

    def _read_at(self, offset: int, n_bytes: int) -> bytes:
        """Read a piece of the file; a shorter one where it ends."""
        if n_bytes <= 0 or offset < 0:
            return b""
        n_bytes = min(n_bytes, self._length)
        if self._descriptor is not None:
            return os.pread(self._descriptor, n_bytes, offset)
        self._file.seek(offset)
        return self._file.read(n_bytes)

    def _damaged(self, reason: str) -> CheckpointError:
        return DamagedArchiveError(f"{self.where} is damaged or cut off: {reason}")


# What stands at the end of an archive for a number that has no room there.
_LARGE_END = frozenset({0xFFFF, _LARGE})


class _DamageError(Exception):
    """A member is not as the directory says."""


class _RefusedError(Exception):
    """A member is whole, and no array of numbers or strings, or too large."""


class _Bytes(Protocol):
    """The bytes of a member."""

    def read(self, n_bytes: int, /) -> bytes:
        """Read the next bytes, or all that are left."""

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill a buffer with the next bytes, and return how many there were."""


def _large_numbers(extra: bytes, count: int) -> tuple[int, ...]:
    """Return the numbers that had no room in a record."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == 1 and at + 4 + length <= len(extra) and length >= 8 * count:
            return struct.unpack_from(f"<{count}Q", extra, at + 4)
        at += 4 + length
    raise _DamageError("a number is missing")


class _Member:
    """The bytes of one member, from front to back, with their checksum.

    Parameters
    ----------
    record : _Record
        What the directory says.
    read_at : callable
        Reads a piece of the file.
    end : int
        Where the next begins.
    """

    def __init__(self, record: _Record, read_at: Callable[[int, int], bytes], end: int) -> None:
        self.record = record
        self._read_at = read_at
        self._crc = 0
        self._n_read = 0
        # a small member is read with what is around it at once
        n_front = end - record.offset if record.packed <= SMALL else SMALL // 16
        self._front = read_at(record.offset, min(end - record.offset, n_front))
        self._base = record.offset
        start = self._check_local()
        stop = start + record.packed
        self._check_end(stop, end)
        if record.size > INFLATION * (record.packed + 1):
            raise _DamageError(f"it cannot hold {record.size:,} bytes")
        self._at, self._stop = start, stop
        self._unpacker = zlib.decompressobj(-15) if record.method == _DEFLATED else None
        if self._unpacker is None and record.size != record.packed:
            raise _DamageError("its sizes are not one")

    def _check_local(self) -> int:
        """Compare what stands before the bytes with the directory; return where they begin."""
        record = self.record
        if len(self._front) < _LOCAL.size:
            raise _DamageError("it is cut off")
        fields = _LOCAL.unpack_from(self._front)
        sign, (flags, method, time, date, crc, packed, size) = fields[0], fields[3:10]
        n_name, n_extra = int(fields[10]), int(fields[11])
        at = _LOCAL.size + n_name
        name, extra = self._front[_LOCAL.size : at], self._front[at : at + n_extra]
        if (sign, flags, method, time, date, name) != (
            *(b"PK\x03\x04", record.flags, record.method, *record.time),
            record.name,
        ):
            raise _DamageError("what stands before it is not what the directory says")
        if not flags & _DESCRIPTOR:
            if _LARGE in (packed, size):
                numbers = iter(_large_numbers(extra, (packed == _LARGE) + (size == _LARGE)))
                size = next(numbers) if size == _LARGE else size
                packed = next(numbers) if packed == _LARGE else packed
            if (crc, packed, size) != (record.crc, record.packed, record.size):
                raise _DamageError("its sizes are not those that the directory says")
        return record.offset + at + n_extra

    def _check_end(self, stop: int, end: int) -> None:
        """Compare what follows the bytes with the directory; there must be nothing else."""
        record = self.record
        if record.flags & _DESCRIPTOR:
            told = self._at_place(stop, min(end - stop, 25))
            numbers = (record.crc, record.packed, record.size)
            forms = [struct.pack("<LQQ", *numbers)]
            if max(numbers) <= _LARGE:
                forms.append(struct.pack("<LLL", *numbers))
            if any(told in (form, b"PK\x07\x08" + form) for form in forms):
                return
        elif stop == end:
            return
        raise _DamageError("it does not end where the directory says")

    def _at_place(self, offset: int, n_bytes: int) -> bytes:
        """Read a piece of the file, from what has been read where it is there."""
        first = offset - self._base
        if first >= 0 and first + n_bytes <= len(self._front):
            return self._front[first : first + n_bytes]
        return self._read_at(offset, n_bytes)

    def whole(self) -> bytes:
        """Return all bytes of a small member, if the checksum is theirs."""
        found = self._packed(self.record.packed)
        if self._unpacker is not None:
            found = self._unpacker.decompress(found, self.record.size + 1)
            if not self._unpacker.eof or self._unpacker.unused_data:
                raise _DamageError("it does not end where the directory says")
        if len(found) != self.record.size or zlib.crc32(found) != self.record.crc:
            raise _DamageError("its checksum is not that of its bytes")
        return found

    def read(self, n_bytes: int, /) -> bytes:
        """Read the next bytes, or all that are left."""
        found = b""
        while len(found) < n_bytes:
            more = self._next(n_bytes - len(found))
            if not more:
                break
            found += more
        return found

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill a buffer with the next bytes, and return how many there were."""
        at = 0
        while at < len(buffer):
            piece = self._next(min(PIECE, len(buffer) - at))
            if not piece:
                break
            buffer[at : at + len(piece)] = piece
            at += len(piece)
        return at

    def finish(self) -> None:
        """Refuse more bytes, and others than the checksum says."""
        if self._next(1) or self._n_read != self.record.size:
            raise _DamageError("it does not end where the directory says")
        if self._crc != self.record.crc:
            raise _DamageError("its checksum is not that of its bytes")

    def _next(self, n_bytes: int) -> bytes:
        """Return some of the next bytes; none at the end."""
        if self._unpacker is None:
            found = self._packed(n_bytes)
        else:
            found = b""
            while not found and not self._unpacker.eof:
                packed = self._unpacker.unconsumed_tail or self._packed(PIECE // 4)
                found = self._unpacker.decompress(packed, n_bytes)
                if not found and not packed:
                    raise _DamageError("it is cut off")
            if not found and (self._unpacker.unused_data or self._at < self._stop):
                raise _DamageError("it has bytes after its end")
        self._crc = zlib.crc32(found, self._crc)
        self._n_read += len(found)
        return found

    def _packed(self, n_bytes: int) -> bytes:
        """Return the next bytes as they are in the file."""
        found = self._at_place(self._at, min(n_bytes, self._stop - self._at))
        self._at += len(found)
        return found
