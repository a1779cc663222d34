"""HDF5 files: every value is a dataset, and what it is within are groups."""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import math
import os
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from fastadam.files.entries import Value
from fastadam.files.errors import CheckpointError, NoRoomError, UnreadableFileError
from fastadam.files.hdf5_types import (
    DIGEST,
    MemoryType,
    Stored,
    decoded,
    digest_of,
    import_h5py,
    memory_type,
)
from fastadam.files.hdf5_writer import sealed_image, write
from fastadam.files.limits import DEPTH, INFLATION, MEMBERS, PIECE, SMALL, SPARE, check_regular
from fastadam.files.limits import file_name as name_of
from fastadam.files.manifest import KEY

__all__ = ["Hdf5Group", "Hdf5Reader", "opened", "opened_object", "sealed_image", "write"]


@contextlib.contextmanager
def opened(path: str | bytes | os.PathLike[Any]) -> Iterator[Hdf5Reader]:
    """Open an HDF5 file for reading.

    Raises
    ------
    CheckpointError
        If it is none, or damaged, or locked, or no regular file.
    OSError
        If it cannot be read.
    RuntimeError
        If h5py is not installed.
    """
    import_h5py()
    name = name_of(path)
    # what the system says of the file comes first
    check_regular(name)
    with open(name, "rb"):
        pass
    with _open(name, repr(name)) as file:
        yield Hdf5Reader(file.id, repr(name))


@contextlib.contextmanager
def opened_object(file: BinaryIO) -> Iterator[Hdf5Reader]:
    """Open what is in a file object, as `opened` does.

    Parameters
    ----------
    file : file object
        Binary and readable; it need not be seekable.
    """
    where = "the file object"
    with _open(io.BytesIO(file.read()), where) as opened_file:
        yield Hdf5Reader(opened_file.id, where)


def _open(source: str | BinaryIO, where: str) -> Any:
    try:
        return import_h5py().File(source, "r")
    except MemoryError:
        raise
    except Exception as error:  # whatever libhdf5 finds in a damaged file
        if "lock" in str(error):
            raise UnreadableFileError(
                f"{where} is locked: another program has opened it to write to it, or the file "
                f"system has no locks (HDF5_USE_FILE_LOCKING=FALSE does without): {error}"
            ) from error
        raise UnreadableFileError(
            f"{where} cannot be opened as an HDF5 file: it is no HDF5 file, or damaged: {error}"
        ) from error


class Hdf5Group:
    """The values in an open group, each looked for and read when it is asked for.

    Parameters
    ----------
    group : h5py.h5g.GroupID or h5py.h5f.FileID
        The group.
    where : str
        Its file's name, for messages.
    """

    # Whether a list of contents has the digests, so that those of single datasets need not be read.
    listed = False
    # Whether all names have been found in this file, without following links to others.
    walked = False

    def __init__(self, group: Any, where: str) -> None:
        self.where = where
        self._h5py = import_h5py()
        self._group = group
        try:
            self._file = self._h5py.h5o.get_info(group).fileno
        except MemoryError:
            raise
        except Exception as error:  # whatever libhdf5 meets in a damaged file
            raise UnreadableFileError(f"the keys of {where} cannot be read: {error}") from error
        self._types: dict[bytes, MemoryType] = {}
        self._everything = self._h5py.h5s.ALL

    def kind(self, name: str) -> str | None:
        """Return 'array' or 'group'; None where there is nothing of that name."""
        if not name.strip("/"):
            return "group"
        try:
            found = self._h5py.h5o.open(self._group, name.encode("utf-8", "surrogateescape"))
        except MemoryError:
            raise
        except Exception:  # a missing name, or one below an array, or below nothing
            return None
        return "group" if isinstance(found, self._h5py.h5g.GroupID) else "array"

    def group(self, name: str) -> Any:
        """Return a group that is there, as h5py's object."""
        h5 = self._h5py
        return h5.Group(h5.h5g.open(self._group, (name.strip("/") or ".").encode()))

    def __contains__(self, key: str) -> bool:
        """Tell whether there is such a key."""
        return self.kind(key) is not None

    def read(self, key: str, limit: int | None) -> Value:
        """Read one value, as `NpzReader.read`."""
        stored = self._stored(key, limit)[0] if self.listed else self.digested(key, limit)[0]
        try:
            value = None if stored is None else decoded(stored)
        except UnicodeDecodeError as error:
            raise CheckpointError(f"{key!r} in {self.where} cannot be loaded: {error}") from error
        return np.array(None, dtype=object) if value is None else np.asarray(value)

    def digested(self, key: str, limit: int | None) -> tuple[Stored | None, str | None]:
        """Read one value as it is in the file, and its digest, if one is stored with it.

        Parameters
        ----------
        key, limit
            As for `read`.
        """
        stored, told = self._stored(key, limit)
        if told is not None and told != digest_of(stored):
            raise CheckpointError(
                f"{key!r} in {self.where} is damaged: its SHA-256 digest is not the one that was "
                "saved with it"
            )
        return stored, told

    def _stored(self, key: str, limit: int | None) -> tuple[Stored | None, str | None]:
        """Read one value, and what digest is stored with it, if there is no list of contents."""
        try:
            dataset = self._open(key)
            shape = dataset.shape
            stored = None if shape is None else self._read(dataset, shape, key, limit)
            told = None if self.listed else self._digest(dataset)
        except (CheckpointError, MemoryError):
            raise
        except Exception as error:  # whatever libhdf5 meets in a damaged file
            raise UnreadableFileError(f"{key!r} in {self.where} cannot be read: {error}") from error
        return stored, told

    def _open(self, key: str) -> Any:
        """Open a dataset whose values are in this file."""
        h5 = self._h5py
        if self.kind(key) == "group":
            raise CheckpointError(f"{key!r} in {self.where} is a group, not an array")
        found = h5.h5d.open(self._group, key.encode("utf-8", "surrogateescape"))
        # of a name that a link to another file is, too
        elsewhere = not self.walked and h5.h5o.get_info(found).fileno != self._file
        if not elsewhere and found.get_offset() is None:
            # neither a plain piece of this file nor, hence, cheap to ask
            plan = found.get_create_plist()
            is_virtual = plan.get_layout() == getattr(h5.h5d, "VIRTUAL", None)
            elsewhere = is_virtual or plan.get_external_count() > 0
        if elsewhere:
            raise CheckpointError(f"{key!r} in {self.where} has its values in another file")
        return found

    def memory_type(self, dataset: Any) -> MemoryType:
        """Return how a dataset is read; types that are alike are looked at once."""
        file_type = dataset.get_type()
        code = file_type.encode()
        if code not in self._types:
            self._types[code] = memory_type(file_type)
        return self._types[code]

    def _read(self, dataset: Any, shape: tuple[int, ...], key: str, limit: int | None) -> Stored:
        kind, dtype, type_id = self.memory_type(dataset)
        if dtype.hasobject:
            return Stored(kind, self._read_strings(dataset, shape, dtype, key, limit))
        n_bytes = self.check_size(dataset, shape, dtype.itemsize, key, limit)
        try:
            array = np.empty(shape, dtype)
        except (MemoryError, ValueError):
            if n_bytes <= SMALL:
                raise
            raise CheckpointError(
                f"{key!r} in {self.where} takes {n_bytes:,} bytes, more than there is memory"
            ) from None
        if n_bytes:
            dataset.read(self._everything, self._everything, array, type_id)
        return Stored(kind, array)

    def check_size(
        self, dataset: Any, shape: tuple[int, ...], itemsize: int, key: str, limit: int | None
    ) -> int:
        """Return how many bytes a dataset takes, if there is room, and if it can be so many."""
        n_bytes = held = math.prod(map(int, shape)) * itemsize
        if dataset.get_offset() is None and n_bytes:
            plan = dataset.get_create_plist()
            if plan.get_layout() == self._h5py.h5d.CHUNKED:
                # a whole chunk is unpacked for one element
                held = max(n_bytes, math.prod(map(int, plan.get_chunk())) * itemsize)
        if limit is not None and held > limit:
            raise NoRoomError(
                f"{key!r} in {self.where} has shape {shape} and {held:,} bytes, and there is room "
                f"for {limit:,} where it is to go"
            )
        if held > SMALL and held > INFLATION * dataset.get_storage_size():
            raise CheckpointError(
                f"{key!r} in {self.where} has shape {shape} and {held:,} bytes, which cannot be in "
                f"{dataset.get_storage_size():,} of a file"
            )
        return n_bytes

    def _read_strings(
        self,
        dataset: Any,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        key: str,
        limit: int | None,
    ) -> Any:
        """Read strings of any length, as other programs write them, one by one."""
        h5 = self._h5py
        if h5.check_string_dtype(dtype) is None:
            raise CheckpointError(
                f"{key!r} in {self.where} holds objects, not numbers or strings; nobody knows what "
                "memory they take (these are of any length)"
            )
        room = SPARE if limit is None else max(limit, SMALL)
        texts: list[bytes] = []
        longest = 1
        one = h5.h5s.create_simple((1,))
        kind = h5.h5t.py_create(dtype)
        space = dataset.get_space()
        for place in np.ndindex(shape):
            buffer = np.empty(1, dtype)
            if shape:
                space.select_hyperslab(place, (1,) * len(shape))
            dataset.read(one, space if shape else self._everything, buffer, kind)
            text = buffer[0]
            texts.append(text if isinstance(text, bytes) else str(text or "").encode())
            longest = max(longest, len(texts[-1]))
            if longest * math.prod(shape) > room:
                raise CheckpointError(
                    f"{key!r} in {self.where} holds strings of any length: they take more than "
                    f"{room:,} bytes"
                )
        return np.array(texts, dtype=f"S{longest}").reshape(shape)

    def _digest(self, item: Any) -> str | None:
        """Return the digest that is stored with a dataset or a file, None if there is none."""
        h5 = self._h5py
        name = DIGEST.encode()
        if not h5.h5a.exists(item, name):
            return None
        attribute = h5.h5a.open(item, name)
        if attribute.get_type().get_class() != h5.h5t.STRING or attribute.get_storage_size() > 999:
            return ""
        found = np.empty(attribute.shape, attribute.dtype)
        attribute.read(found)
        return bytes(found[()]).decode("latin-1") if found.shape == () else ""


class Hdf5Reader(Hdf5Group):
    """The values of an open file; what there is, is found when it is opened.

    Parameters
    ----------
    file : h5py.h5f.FileID
        The file.
    where : str
        Its name, for messages.
    """

    def __init__(self, file: Any, where: str) -> None:
        super().__init__(file, where)
        self._kinds: dict[str, str] = {}
        too_much: list[str] = []
        dataset = self._h5py.h5o.TYPE_DATASET

        def note(name: bytes, info: Any) -> bool | None:
            # asked before what is within it is gone through, by recursion
            if name.count(b"/") >= DEPTH or len(self._kinds) >= MEMBERS:
                too_much.append(f"more than {DEPTH:,} groups in one another, or {MEMBERS:,} in all")
                return True
            key = name.decode("utf-8", "surrogateescape")
            self._kinds[key] = "array" if info.type == dataset else "group"
            return None

        try:
            self._h5py.h5o.visit(file, note, info=True)
        except MemoryError:
            raise
        except Exception as error:  # whatever libhdf5 meets in a damaged file
            raise UnreadableFileError(f"the keys of {where} cannot be read: {error}") from error
        if too_much:
            raise CheckpointError(f"{where} holds {too_much[0]}: it is not read")
        self._keys = [key for key, kind in self._kinds.items() if kind == "array"]
        self.listed = KEY in self._kinds
        self.walked = True

    def keys(self) -> list[str]:
        """Return all keys."""
        return list(self._keys)

    def kind(self, name: str) -> str | None:
        """Return 'array' or 'group'; None where there is nothing of that name."""
        return self._kinds.get(name.strip("/")) if name.strip("/") else "group"

    def size(self) -> int:
        """Return how many bytes the file has."""
        return int(self._h5py.h5i.get_file_id(self._group).get_filesize())

    def seal(self) -> str | None:
        """Return the digest of all that is in the file; None if there is none."""
        try:
            return self._digest(self._group)
        except MemoryError:
            raise
        except Exception as error:  # whatever libhdf5 meets in a damaged file
            raise UnreadableFileError(f"'/' in {self.where} cannot be read: {error}") from error

    def told(self, key: str) -> str | None:
        """Return the digest that is stored with a dataset; None if there is none."""
        try:
            return self._digest(self._open(key))
        except (CheckpointError, MemoryError):
            raise
        except Exception as error:  # whatever libhdf5 meets in a damaged file
            raise UnreadableFileError(f"{key!r} in {self.where} cannot be read: {error}") from error

    def digest(self, key: str) -> tuple[str, tuple[int, ...], str]:
        """Return the kind, the shape and the digest of the bytes of an array, read in pieces.

        Parameters
        ----------
        key : str
            A key whose value is numbers, or strings of fixed length.
        """
        try:
            dataset = self._open(key)
            shape = dataset.shape
            kind, dtype, type_id = self.memory_type(dataset)
            self.check_size(dataset, shape, dtype.itemsize, key, None)
            digest = hashlib.sha256()
            space = dataset.get_space()
            for start, count in _blocks(shape, dtype.itemsize):
                space.select_hyperslab(start, count)
                piece = np.empty(count, dtype)
                memory = self._h5py.h5s.create_simple(count)
                dataset.read(memory, space, piece, type_id)
                digest.update(piece.reshape(-1).view(np.uint8).data)
        except (CheckpointError, MemoryError):
            raise
        except Exception as error:  # whatever libhdf5 meets in a damaged file
            raise UnreadableFileError(f"{key!r} in {self.where} cannot be read: {error}") from error
        return kind, shape, digest.hexdigest()


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
