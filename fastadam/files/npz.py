"""npz files: a zip archive with an array in each member."""

from __future__ import annotations

import contextlib
import io
import os
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy_format

from fastadam.files.entries import Value
from fastadam.files.errors import CheckpointError, DamagedArchiveError
from fastadam.files.limits import HEADER, MEMBERS, SMALL, check_room, new_array, open_regular
from fastadam.files.none import MAX_LENGTH, is_pickled_none
from fastadam.files.npz_writer import write
from fastadam.files.zip_directory import Directory
from fastadam.files.zip_member import DEFLATED, ENCRYPTED, STORED, DamageError, Member

__all__ = ["NpzReader", "opened", "write"]

# Python's parser calls it MemoryError, too, if what is longer is nested too deep.
_ORDINARY = 1 << 10
# Versions of the npy format, with the bytes of the header's length, and what reads it.
_HEADERS = {
    npy_format.magic(1, 0): (2, npy_format.read_array_header_1_0),
    npy_format.magic(2, 0): (4, npy_format.read_array_header_2_0),
}
Header = tuple[tuple[int, ...], bool, np.dtype[Any]]


@contextlib.contextmanager
def opened(file: str | bytes | os.PathLike[Any] | BinaryIO) -> Iterator[NpzReader]:
    """Open an npz file, or what is in a file object from its position on, for reading.

    One that is none, or damaged, or no regular file is a CheckpointError; one that cannot be read
    an OSError.
    """
    if isinstance(file, str | bytes | os.PathLike):
        name = os.fsdecode(file)
        with open_regular(name) as plain:
            yield NpzReader(plain, repr(name))
    else:
        yield NpzReader(file, "the file object", file.tell())


class NpzReader(Directory):
    """The values of an open archive, each read when it is asked for, and never unpickled."""

    def __init__(self, file: BinaryIO, where: str, first: int = 0) -> None:
        super().__init__(file, where, first)
        self._parsed: dict[bytes, Header] = {}

    def read(self, key: str, limit: int | None) -> Value:
        """Read one value of at most so many bytes; a larger one is refused before memory is taken.

        That is a CheckpointError, as is one that is damaged, or holds Python objects.
        """
        with self._named(key) as what:
            member = self._member(key, what)
            size = member.record.size
            if size <= SMALL:
                return self._array(io.BytesIO(member.whole()), size, limit, what)
            found = self._array(member, size, limit, what)
            member.finish()
            return found

    def header(self, key: str) -> Header | None:
        """Read what a value says of itself: shape, Fortran order and dtype.

        None for a member that is no array by its name.
        """
        if not self.record(key).name.endswith(b".npy"):
            return None
        with self._named(key) as what:
            return self._header(self._member(key, what), what)[0]

    @contextlib.contextmanager
    def _named(self, key: str) -> Iterator[str]:
        """Give the words for a value, and say of which value damage is."""
        what = f"{key!r} in {self.where}"
        try:
            yield what
        except DamageError as error:
            raise DamagedArchiveError(f"{what} is damaged: {error}") from None
        except zlib.error as error:
            raise DamagedArchiveError(f"{what} is damaged: {error}") from error

    def _member(self, key: str, what: str) -> Member:
        """Return the bytes of a value."""
        record = self.record(key)
        if record.method not in (STORED, DEFLATED) or record.flags & ENCRYPTED:
            raise CheckpointError(f"{what} is compressed in an unknown way")
        return self.member(record)

    def peek(self, key: str, n_bytes: int) -> None:
        """Tell that there is no quicker way to a value than to read it."""

    def _array(self, member: Member | io.BytesIO, size: int, limit: int | None, what: str) -> Value:
        """Read an array from the bytes of a member."""
        (shape, fortran, dtype), n_header = self._header(member, what)
        if dtype.hasobject:
            if shape == () and dtype.kind == "O" and is_pickled_none(member.read(MAX_LENGTH + 1)):
                return np.array(None, dtype=object)
            raise CheckpointError(f"{what} cannot be loaded: it holds Python objects, not numbers")
        # as Python numbers: products of NumPy's wrap around
        n_bytes = dtype.itemsize
        for length in shape:
            n_bytes *= int(length)
        check_room(what, shape, n_bytes, limit)
        if size - n_header != n_bytes:
            raise CheckpointError(
                f"{what} cannot be loaded: it has {size - n_header:,} bytes, and its shape {shape} "
                f"of {dtype} takes {n_bytes:,}"
            )
        array = new_array(what, shape[::-1] if fortran else shape, dtype, n_bytes)
        if n_bytes and member.readinto(array.reshape(-1).view(np.uint8).data) != n_bytes:
            raise DamageError("it is cut off")
        return array.T if fortran else array

    def _header(self, member: Member | io.BytesIO, what: str) -> tuple[Header, int]:
        """Read the header of an array, and its length; those that are alike are parsed once."""
        begin = member.read(npy_format.MAGIC_LEN)
        if begin not in _HEADERS:
            raise CheckpointError(f"{what} cannot be loaded: it does not begin as an array does")
        n_bytes, parse = _HEADERS[begin]
        # NumPy's reader takes as much memory as the header says that it is long
        told = member.read(n_bytes)
        length = int.from_bytes(told, "little")
        if length > HEADER:
            raise CheckpointError(
                f"{what} cannot be loaded: its header says it is {length:,} bytes long"
            )
        whole = told + member.read(length)
        found = self._parsed.get(whole)
        if found is None:
            try:
                found = parse(io.BytesIO(whole))
            except Exception as error:  # whatever NumPy's reader makes of damage
                if isinstance(error, MemoryError) and length <= _ORDINARY:
                    raise
                raise CheckpointError(f"{what} cannot be loaded: its header: {error}") from error
            if len(self._parsed) < MEMBERS // 100:
                self._parsed[whole] = found
        return found, npy_format.MAGIC_LEN + len(whole)
