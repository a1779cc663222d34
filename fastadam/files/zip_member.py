"""One member of a zip archive: its bytes, and whether they are what the directory says."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import NamedTuple

from fastadam.files.limits import INFLATION, PIECE, SMALL

__all__ = [
    *("DEFLATED", "ENCRYPTED", "LARGE", "STORED"),
    *("DamageError", "Member", "Record", "whole_numbers"),
]

# What stands for a number that has no room in its place.
LARGE = 0xFFFFFFFF
STORED, DEFLATED, ENCRYPTED = 0, 8, 1
_LOCAL = struct.Struct("<4s2B4HL2L2H")
_DESCRIPTOR = 1 << 3


class Record(NamedTuple):
    """What the directory says of a member."""

    name: bytes
    flags: int
    method: int
    time: tuple[int, int]
    crc: int
    packed: int
    size: int
    offset: int


class DamageError(Exception):
    """A member is not as the directory says."""


def whole_numbers(extra: bytes, *told: int) -> tuple[int, ...]:
    """Return numbers of a record; those that had no room there are in what is behind it."""
    count, at = told.count(LARGE), 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == 1 and at + 4 + length <= len(extra) and length >= 8 * count:
            large = iter(struct.unpack_from(f"<{count}Q", extra, at + 4))
            return tuple(next(large) if number == LARGE else number for number in told)
        at += 4 + length
    raise DamageError("a number is missing")


class Member:
    """The bytes of one member, from front to back, with their checksum.

    Parameters
    ----------
    record : Record
        What the directory says.
    read_at : callable
        Reads a piece of the file.
    end : int
        Where the next begins.
    """

    def __init__(self, record: Record, read_at: Callable[[int, int], bytes], end: int) -> None:
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
            raise DamageError(f"it cannot hold {record.size:,} bytes")
        self._at, self._stop = start, stop
        self._unpacker = zlib.decompressobj(-15) if record.method == DEFLATED else None
        if self._unpacker is None and record.size != record.packed:
            raise DamageError("its sizes are not one")

    def _check_local(self) -> int:
        """Compare what stands before the bytes with the directory; return where they begin."""
        record = self.record
        if len(self._front) < _LOCAL.size:
            raise DamageError("it is cut off")
        fields = _LOCAL.unpack_from(self._front)
        sign, (flags, method, time, date, crc, packed, size) = fields[0], fields[3:10]
        n_name, n_extra = int(fields[10]), int(fields[11])
        at = _LOCAL.size + n_name
        name, extra = self._front[_LOCAL.size : at], self._front[at : at + n_extra]
        if (sign, flags, method, time, date, name) != (
            *(b"PK\x03\x04", record.flags, record.method, *record.time),
            record.name,
        ):
            raise DamageError("what stands before it is not what the directory says")
        if not flags & _DESCRIPTOR:
            if LARGE in (size, packed):
                size, packed = whole_numbers(extra, size, packed)
            if (crc, packed, size) != (record.crc, record.packed, record.size):
                raise DamageError("its sizes are not those that the directory says")
        return record.offset + at + n_extra

    def _check_end(self, stop: int, end: int) -> None:
        """Compare what follows the bytes with the directory; there must be nothing else."""
        record = self.record
        if record.flags & _DESCRIPTOR:
            told = self._at_place(stop, min(end - stop, 25))
            numbers = (record.crc, record.packed, record.size)
            forms = [struct.pack("<LQQ", *numbers)]
            if max(numbers) <= LARGE:
                forms.append(struct.pack("<LLL", *numbers))
            if any(told in (form, b"PK\x07\x08" + form) for form in forms):
                return
        elif stop == end:
            return
        raise DamageError("it does not end where the directory says")

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
                raise DamageError("it does not end where the directory says")
        if len(found) != self.record.size or zlib.crc32(found) != self.record.crc:
            raise DamageError("its checksum is not that of its bytes")
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
            raise DamageError("it does not end where the directory says")
        if self._crc != self.record.crc:
            raise DamageError("its checksum is not that of its bytes")

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
                    raise DamageError("it is cut off")
            if not found and (self._unpacker.unused_data or self._at < self._stop):
                raise DamageError("it has bytes after its end")
        self._crc = zlib.crc32(found, self._crc)
        self._n_read += len(found)
        return found

    def _packed(self, n_bytes: int) -> bytes:
        """Return the next bytes as they are in the file."""
        found = self._at_place(self._at, min(n_bytes, self._stop - self._at))
        self._at += len(found)
        return found
