"""HDF5 files: every value is a dataset, and what it is within are groups."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import itertools
import os
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from fastadam.files.errors import CheckpointError, UnreadableFileError
from fastadam.files.hdf5_calls import check_memory, reading
from fastadam.files.hdf5_group import Hdf5Group
from fastadam.files.hdf5_types import import_h5py
from fastadam.files.hdf5_writer import sealed_image, write
from fastadam.files.limits import DEPTH, MEMBERS, PIECE, ZIP, open_regular
from fastadam.files.manifest import KEY
from fastadam.update.interrupt import SignalsBetween, hand_on_signals

__all__ = ["Hdf5Reader", "opened", "sealed_image", "write"]

# The superblock of files in the formats of 1.8 and later: the signature, the version, and that
# addresses have 8 bytes. The third address is where the file ends.
_SUPERBLOCK = re.compile(rb"\x89HDF\r\n\x1a\n[\x02\x03]\x08.{18}(.{8})", re.DOTALL)

# Bytes of a header that are looked at: those of numbers are shorter.
_HEADER = 512

# The message of a header that says that the elements are in one piece, where, and how many bytes:
# its type, its size, flags, its version, the kind of layout. Files in formats older than 1.8 have
# others, and no list of contents.
_LAYOUT = re.compile(rb"\x08\x12\x00.[\x03\x04]\x01(.{8})(.{8})", re.DOTALL)

# What the system answers where somebody else has a lock.
_LOCKED = {errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK}


@contextlib.contextmanager
def opened(file: str | bytes | os.PathLike[Any] | BinaryIO) -> Iterator[Hdf5Reader]:
    """Open an HDF5 file, or what is in a file object, which need not be seekable, for reading.

    One that is none, or damaged, or locked, or no regular file is a CheckpointError; one that
    cannot be read an OSError. A RuntimeError says that h5py is not installed.
    """
    import_h5py()
    if isinstance(file, str | bytes | os.PathLike):
        name = os.fsdecode(file)
        # what the system says of the file comes first
        with open_regular(name) as plain:
            begin = os.pread(plain.fileno(), _HEADER, 0)
            with _reader(name, repr(name), begin, plain.fileno()) as reader:
                yield reader
    else:
        data = file.read()
        with _reader(io.BytesIO(data), "the file object", data[:_HEADER]) as reader:
            yield reader


@contextlib.contextmanager
def _reader(
    source: str | io.BytesIO, where: str, begin: bytes, descriptor: int | None = None
) -> Iterator[Hdf5Reader]:
    """Open a file, and let go of all of h5py's objects before signals are handed on."""
    with SignalsBetween():
        file = _open(source, where, begin)
        try:
            reader = Hdf5Reader(file.id, where, descriptor)
            try:
                reader.check_end(begin)
                yield reader
            finally:
                reader.release()
        finally:
            file.close()
            del file


def _open(source: str | io.BytesIO, where: str, begin: bytes) -> Any:
    check_memory()
    try:
        return import_h5py().File(source, "r")
    except MemoryError:
        raise
    except Exception as error:  # whatever libhdf5 finds in a damaged file
        check_memory()
        number = error.errno if isinstance(error, OSError) else None
        if number in _LOCKED or "unable to lock file" in str(error):
            raise UnreadableFileError(
                f"{where} is locked: another program has opened it to write to it, or the file "
                f"system has no locks (HDF5_USE_FILE_LOCKING=FALSE does without): {error}"
            ) from error
        hint = ""
        if begin.startswith(ZIP):
            hint = " (it begins as an npz file: end its name with .npz, or use load_npz)"
        raise UnreadableFileError(
            f"{where} cannot be opened as an HDF5 file: it is no HDF5 file, or damaged{hint}: "
            f"{error}"
        ) from error


class Hdf5Reader(Hdf5Group):
    """The values of an open file, whose names are listed when it is opened.

    Parameters
    ----------
    file : h5py.h5f.FileID
        The file.
    where : str
        Its name, for messages.
    descriptor : int or None
        Of the file itself, opened for reading; None if there is none, as of a file in memory.
    """

    def __init__(self, file: Any, where: str, descriptor: int | None = None) -> None:
        super().__init__(file, where)
        self._descriptor = descriptor
        # where the header of each dataset is in the file; None of a group
        self._headers: dict[str, int | None] = {}
        too_much: list[str] = []
        dataset = self._h5py.h5o.TYPE_DATASET

        def note(name: bytes, info: Any) -> bool | None:
            # asked before what is within it is gone through, by recursion
            if name.count(b"/") >= DEPTH or len(self._headers) >= MEMBERS:
                too_much.append(f"more than {DEPTH:,} groups in one another, or {MEMBERS:,} in all")
                return True
            if not len(self._headers) % 256:
                check_memory()
                hand_on_signals()
            key = name.decode("utf-8", "surrogateescape")
            self._headers[key] = info.addr if info.type == dataset else None
            return None

        with reading(f"the keys of {where}"):
            self._h5py.h5o.visit(file, note, info=True)
        if too_much:
            raise CheckpointError(f"{where} holds {too_much[0]}: it is not read")
        self._keys = [key for key, header in self._headers.items() if header is not None]
        self.listed = KEY in self._headers
        self.walked = True

    def keys(self) -> list[str]:
        """Return all keys."""
        return list(self._keys)

    def kind(self, name: str) -> str | None:
        """Return 'array' or 'group'; None where there is nothing of that name."""
        name = name.strip("/")
        if not name:
            return "group"
        if name not in self._headers:
            return None
        return "group" if self._headers[name] is None else "array"

    def size(self) -> int:
        """Return how many bytes the file has."""
        return int(self._h5py.h5i.get_file_id(self._group).get_filesize())

    def check_end(self, begin: bytes) -> None:
        """Refuse a file that has become longer since it was saved, by its first bytes.

        Those that others have written may be: some programs leave room at the end. One that has a
        list of contents, or a digest of all, is longer than it says.
        """
        found = _SUPERBLOCK.match(begin)
        if found is None:  # it is of an older format, or the superblock is not at its beginning
            return
        end, size = int.from_bytes(found[1], "little"), self.size()
        if size > end and (self.listed or self.seal() is not None):
            raise UnreadableFileError(
                f"{self.where} is longer than it was when it was saved: it has {size:,} bytes, and "
                f"says that it ends after {end:,}; something was put behind it"
            )

    def peek(self, key: str, n_bytes: int) -> bytes | None:
        """Return what are probably the bytes of a value: whoever has their digest can tell.

        libhdf5 takes longer to open a dataset, and to tell what is in it, than to read a few
        elements. A guess is enough: what is read at the place is what was saved, or has another
        digest. None if it has to be read to find out.
        """
        header = self._headers[key]
        if self._descriptor is None or header is None:
            return None
        try:
            place = place_of(os.pread(self._descriptor, _HEADER, header))
            if place is None or place[1] != n_bytes:
                return None
            return os.pread(self._descriptor, n_bytes, place[0])
        except (OSError, OverflowError):  # beyond the largest file that there can be
            return None

    def seal(self) -> str | None:
        """Return the digest of all that is in the file; None if there is none."""
        with reading(f"'/' in {self.where}"):
            return self._digest(self._group)

    def told(self, key: str) -> str | None:
        """Return the digest that is stored with a dataset; None if there is none."""
        with reading(f"{key!r} in {self.where}"):
            return self._digest(self._open(key).id)

    def digest(self, key: str) -> tuple[str, tuple[int, ...], str]:
        """Return the kind, the shape and the digest of the bytes of an array, read in pieces.

        It is of numbers, or of strings of fixed length.
        """
        hand_on_signals()
        with reading(f"{key!r} in {self.where}"):
            dataset = self._open(key)
            shape = dataset.shape or ()
            kind, dtype, type_id = self.memory_type(dataset)
            self.check_size(dataset, dtype.itemsize, key, None)
            digest = hashlib.sha256()
            space = dataset.id.get_space()
            for start, count in _blocks(shape, dtype.itemsize):
                space.select_hyperslab(start, count)
                piece = np.empty(count, dtype)
                memory = self._h5py.h5s.create_simple(count)
                self.fill(piece, dataset, type_id, memory, space)
                hand_on_signals()
                digest.update(piece.reshape(-1).view(np.uint8).data)
        return kind, shape, digest.hexdigest()


def place_of(header: bytes) -> tuple[int, int] | None:
    """Return where the elements of a dataset probably are, and how many bytes, by its header."""
    found = _LAYOUT.search(header)
    if found is None:
        return None
    return int.from_bytes(found[1], "little"), int.from_bytes(found[2], "little")


def _blocks(
    shape: tuple[int, ...], itemsize: int
) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Yield the pieces of an array in C order, each of a few megabytes: where, and their shapes."""
    axis, row = len(shape), itemsize
    while axis > 0 and row * shape[axis - 1] <= 4 * PIECE:
        axis -= 1
        row *= shape[axis]
    if axis == 0:
        yield (0,) * len(shape), shape
        return
    axis -= 1
    step = max(1, 4 * PIECE // row)
    rest = shape[axis + 1 :]
    for above in itertools.product(*map(range, shape[:axis])):
        for at in range(0, shape[axis], step):
            count = min(step, shape[axis] - at)
            yield (*above, at, *(0 for _ in rest)), (*(1 for _ in above), count, *rest)
