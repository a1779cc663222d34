"""The directory of a zip archive: which members there are, and where."""

from __future__ import annotations

import bisect
import io
import os
import struct
from typing import BinaryIO

from numpy.lib import format as npy_format

from fastadam.files.errors import CheckpointError, DamagedArchiveError, EmptyFileError
from fastadam.files.limits import HDF5, MEMBERS, PIECE, ZIP
from fastadam.files.zip_member import LARGE, DamageError, Member, Record, whole_numbers

__all__ = ["Directory"]

_SUFFIX = ".npy"
_CENTRAL = struct.Struct("<4s4B4HL2L5H2L")
_END = struct.Struct("<4s4H2LH")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_UNICODE = 1 << 11
# What stands at the end of an archive for a number that has no room there.
_LARGE_END = frozenset({0xFFFF, LARGE})


class Directory:
    """What an archive says of its members, by their keys: names without the suffix of arrays.

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

    Raises
    ------
    CheckpointError
        If there is no archive, or it is damaged.
    """

    def __init__(self, file: BinaryIO, where: str, first: int) -> None:
        self.where = where
        self._file = file
        self._descriptor = file.fileno() if isinstance(file, io.FileIO) else None
        self._length = file.seek(0, io.SEEK_END)
        self._directory, count, start, end = self._find(first)
        # Where the record of each key begins in the directory.
        self._records: dict[str, int] = {}
        offsets = self._read(count, end - start)
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

    def record(self, key: str) -> Record:
        """Return what is said of a member."""
        return self._record(self._records[key])

    def member(self, record: Record) -> Member:
        """Return the bytes of a member, which end where what comes after them begins."""
        end = self._offsets[bisect.bisect_right(self._offsets, record.offset)]
        return Member(record, self.read_at, end)

    def _find(self, first: int) -> tuple[bytes, int, int, int]:
        """Read the directory; return it, how many it lists, its beginning and its end."""
        begin = self.read_at(first, 6)
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
        tail = self.read_at(at, self._length - at)
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
        locator = self.read_at(end - _LOCATOR.size, _LOCATOR.size)
        if locator[:4] == b"PK\x06\x07" and _LARGE_END.intersection((here, count, size, start)):
            _, _, end_64, disks = _LOCATOR.unpack(locator)
            record = self.read_at(end_64, _END_64.size)
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
        return self.read_at(start, size), count, start, end

    def _is_longer(self, first: int) -> bool:
        """Tell whether there is an end of an archive, and more behind it."""
        at = self._length
        while at > first:
            before = max(first, at - PIECE)
            piece = self.read_at(before, at - before + _END.size)
            place = piece.rfind(b"PK\x05\x06")
            while place >= 0:
                if place + _END.size <= len(piece):
                    size, start = struct.unpack_from("<2L", piece, place + 12)
                    # others are bytes of a member
                    if LARGE in (size, start) or start + size == before + place:
                        return True
                place = piece.rfind(b"PK\x05\x06", 0, place)
            at = before
        return False

    def _read(self, count: int, size: int) -> list[int]:
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
                offsets.append(self._record(at).offset if offset == LARGE else offset)
                at += n_fixed + n_name + n_extra + n_comment
        except (struct.error, UnicodeDecodeError, DamageError):
            raise self._damaged("its directory cannot be read") from None
        if at != size or len(offsets) != count:
            raise self._damaged("its directory has not as many members as it says")
        return offsets

    def _record(self, at: int) -> Record:
        """Return what a record of the directory says."""
        fields = _CENTRAL.unpack_from(self._directory, at)
        flags, method, time, date, crc, packed, size, n_name, n_extra = fields[5:14]
        offset = fields[18]
        at += _CENTRAL.size
        name = self._directory[at : at + n_name]
        extra = self._directory[at + n_name : at + n_name + n_extra]
        if LARGE in (size, packed, offset):
            size, packed, offset = whole_numbers(extra, size, packed, offset)
        return Record(name, flags, method, (time, date), crc, packed, size, offset)

    def read_at(self, offset: int, n_bytes: int) -> bytes:
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
