"""The datasets of an open HDF5 file or group: each is looked for and read when it is asked for."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from fastadam.files.entries import Value
from fastadam.files.errors import CheckpointError
from fastadam.files.hdf5_calls import check_memory, reading
from fastadam.files.hdf5_types import (
    DIGEST,
    MemoryType,
    Stored,
    decoded,
    digest_of,
    import_h5py,
    memory_type,
)
from fastadam.files.limits import INFLATION, SMALL, SPARE, check_room, new_array
from fastadam.update.interrupt import hand_on_signals

__all__ = ["Dataset", "Hdf5Group"]


# A SHA-256 digest as the attribute that it is stored in.
_HEX = np.dtype("S64")


class Dataset(NamedTuple):
    """An open dataset.

    Attributes
    ----------
    id : h5py.h5d.DatasetID
        The dataset.
    shape : tuple of int or None
        Its shape; None if it is a stored None.
    chunk : tuple of int or None
        The shape of the pieces that it is stored in; None if it is stored in one.
    """

    id: Any
    shape: tuple[int, ...] | None
    chunk: tuple[int, ...] | None


class Hdf5Group:
    """The values in an open group or file, each looked for and read when it is asked for.

    `where` is the file's name, for messages.
    """

    # Whether a list of contents has the digests, so that those of single datasets need not be read.
    listed = False
    # Whether all names have been found in this file, without following links to others.
    walked = False

    def __init__(self, group: Any, where: str) -> None:
        self.where = where
        self._h5py = import_h5py()
        self._group = group
        with reading(f"the keys of {where}"):
            self._file = self._h5py.h5o.get_info(group).fileno
        self._types: dict[bytes, MemoryType] = {}
        self._everything = self._h5py.h5s.ALL
        self._hex = self._h5py.h5t.py_create(_HEX)

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
        stored = self.digested(key, limit)[0]
        try:
            return decoded(stored)
        except UnicodeDecodeError as error:
            raise CheckpointError(f"{key!r} in {self.where} cannot be loaded: {error}") from error

    def digested(self, key: str, limit: int | None) -> tuple[Stored | None, str | None]:
        """Read one value as it is in the file, and its digest, if one is stored with it.

        Where a list of contents has the digests, there is none.
        """
        hand_on_signals()
        with reading(f"{key!r} in {self.where}"):
            dataset = self._open(key)
            stored = self._read(dataset, key, limit)
            told = None if self.listed else self._digest(dataset.id)
        if told is not None and told != digest_of(stored):
            raise CheckpointError(
                f"{key!r} in {self.where} is damaged: its SHA-256 digest is not the one that was "
                "saved with it"
            )
        return stored, told

    def _open(self, key: str) -> Dataset:
        """Open a dataset whose values are in this file."""
        h5 = self._h5py
        if self.kind(key) == "group":
            raise CheckpointError(f"{key!r} in {self.where} is a group, not an array")
        found = h5.h5d.open(self._group, key.encode("utf-8", "surrogateescape"))
        # of a name that a link to another file is, too
        elsewhere = not self.walked and h5.h5o.get_info(found).fileno != self._file
        chunk = None
        if not elsewhere and found.get_offset() is None:
            # not one piece of this file, and what else it is takes long to ask
            plan = found.get_create_plist()
            layout = plan.get_layout()
            is_virtual = layout == getattr(h5.h5d, "VIRTUAL", None)
            elsewhere = is_virtual or plan.get_external_count() > 0
            chunk = plan.get_chunk() if layout == h5.h5d.CHUNKED else None
        if elsewhere:
            raise CheckpointError(f"{key!r} in {self.where} has its values in another file")
        return Dataset(found, found.shape, chunk)

    def memory_type(self, dataset: Dataset) -> MemoryType:
        """Return how a dataset is read; types that are alike are looked at once."""
        file_type = dataset.id.get_type()
        code = file_type.encode()
        if code not in self._types:
            self._types[code] = memory_type(file_type)
        return self._types[code]

    def _read(self, dataset: Dataset, key: str, limit: int | None) -> Stored | None:
        shape = dataset.shape
        if shape is None:
            return None
        kind, dtype, type_id = self.memory_type(dataset)
        if dtype.hasobject:
            return Stored(kind, self._read_strings(dataset, dtype, key, limit))
        n_bytes = self.check_size(dataset, dtype.itemsize, key, limit)
        array = new_array(f"{key!r} in {self.where}", shape, dtype, n_bytes)
        if n_bytes:
            self.fill(array, dataset, type_id, self._everything, self._everything)
        return Stored(kind, array)

    def _read_strings(
        self, dataset: Dataset, dtype: np.dtype[Any], key: str, limit: int | None
    ) -> Value:
        """Read strings of any length one by one, so that they take no more memory than there is."""
        h5, shape = self._h5py, dataset.shape or ()
        what = f"{key!r} in {self.where}"
        room = SPARE if limit is None else max(limit, SMALL)
        if h5.check_string_dtype(dtype) is None:
            raise CheckpointError(
                f"{what} holds objects, not numbers or strings; nobody knows what memory they take "
                "(these are of any length)"
            )
        texts: list[bytes] = []
        longest = 1
        one = h5.h5s.create_simple((1,))
        kind = h5.h5t.py_create(dtype)
        space = dataset.id.get_space()
        for place in np.ndindex(shape):
            buffer = np.empty(1, dtype)
            if shape:
                space.select_hyperslab(place, (1,) * len(shape))
            dataset.id.read(one, space if shape else h5.h5s.ALL, buffer, kind)
            text = buffer[0]
            texts.append(text if isinstance(text, bytes) else str(text or "").encode())
            longest = max(longest, len(texts[-1]))
            if longest * math.prod(shape) > room:
                raise CheckpointError(
                    f"{what} holds strings of any length: they take more than {room:,} bytes"
                )
        return np.array(texts, dtype=f"S{longest}").reshape(shape)

    def fill(self, array: Value, dataset: Dataset, type_id: Any, memory: Any, space: Any) -> None:
        """Read elements of a dataset into an array of an HDF5 type.

        `memory` and `space` tell which elements of the array, and of the dataset.
        """
        try:
            dataset.id.read(memory, space, array, type_id)
        except Exception:
            # libhdf5 calls it a failed filter if it finds no memory: it takes that of a chunk as it
            # is in the file, of a buffer, and of one twice as long
            check_memory(4 * math.prod(map(int, dataset.chunk or ())) * array.itemsize)
            raise

    def check_size(self, dataset: Dataset, itemsize: int, key: str, limit: int | None) -> int:
        """Return how many bytes a dataset takes, if there is room, and if it can be so many."""
        shape = dataset.shape or ()
        n_bytes = held = math.prod(map(int, shape)) * itemsize
        if dataset.chunk is not None and n_bytes:
            # a whole chunk is unpacked for one element
            held = max(n_bytes, math.prod(map(int, dataset.chunk)) * itemsize)
        check_room(f"{key!r} in {self.where}", shape, held, limit)
        if held > SMALL and held > INFLATION * dataset.id.get_storage_size():
            raise CheckpointError(
                f"{key!r} in {self.where} has shape {shape} and {held:,} bytes, which cannot be in "
                f"{dataset.id.get_storage_size():,} of a file"
            )
        return n_bytes

    def _digest(self, item: Any) -> str | None:
        """Return the digest that is stored with a dataset or a file, None if there is none."""
        h5 = self._h5py
        name = DIGEST.encode()
        if not h5.h5a.exists(item, name):
            return None
        attribute = h5.h5a.open(item, name)
        kind = attribute.get_type()
        sizes = {kind.get_size(), attribute.get_storage_size()}
        if kind.get_class() != h5.h5t.STRING or sizes != {_HEX.itemsize}:
            return ""
        found = np.empty((), _HEX)
        attribute.read(found, self._hex)
        return bytes(found.item()).decode("latin-1")

    def release(self) -> None:
        """Let go of h5py's objects."""
        self._types.clear()
        self._group = self._everything = self._hex = None
