"""HDF5 files, in the layout of `save_hdf5`."""

from __future__ import annotations

import contextlib
import functools
import math
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from fastadam.files.atomic import atomic_write
from fastadam.files.entries import Entry, Value
from fastadam.files.errors import CheckpointError
from fastadam.files.hdf5_datasets import free_name, place_dataset, read_dataset, write_dataset
from fastadam.files.hdf5_image import Image
from fastadam.files.hdf5_seal import seal
from fastadam.files.hdf5_types import LIBVER, import_h5py
from fastadam.files.manifest import KEY, unpack

__all__ = ["Hdf5Reader", "opened", "write"]


def write(
    path: str | os.PathLike[str],
    values: Mapping[str, Value],
    compression: bool,
    done: Callable[[int], None],
) -> None:
    """Write values to an HDF5 file, atomically.

    Parameters
    ----------
    path, values, compression, done
        As for npz files.
    """
    image = Image()
    entries = unpack(values[KEY], repr(os.fspath(path))).entries
    with import_h5py().File(image, "w", libver=LIBVER) as file:
        for key, value in values.items():
            finished = functools.partial(done, value.nbytes)
            if compression or value.shape == () or value.size == 0:
                stored = None if value.dtype.hasobject else value
                write_dataset(file, free_name(file, key), stored, 4 if compression else None, key)
                finished()
                continue
            place_dataset(
                file,
                free_name(file, key),
                value,
                key,
                image=image,
                sha256=_known_digest(value, entries.get(key)),
                done=finished,
            )
        seal(file)
    with atomic_write(path) as opened_file:
        image.write_to(opened_file)


def _known_digest(value: Value, entry: Entry | None) -> str | None:
    """Return the digest of a value's elements as HDF5 files hold them, if the list has it."""
    same = value.dtype.kind not in "US" and value.dtype.newbyteorder("<") == value.dtype
    return entry.sha256 if same and entry is not None else None


@contextlib.contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[Hdf5Reader]:
    """Open an HDF5 file for reading.

    Raises
    ------
    CheckpointError
        If it is none, or damaged.
    OSError
        If it cannot be read.
    RuntimeError
        If h5py is not installed.
    """
    h5py = import_h5py()
    where = repr(os.fspath(path))
    # what the system says of the file comes first
    with open(path, "rb"):
        pass
    try:
        file = h5py.File(os.fspath(path), "r")
    except Exception as error:  # whatever libhdf5 finds in a damaged file
        raise CheckpointError(f"{where} is no HDF5 file, or damaged: {error}") from error
    with file:
        yield Hdf5Reader(file, where)


class Hdf5Reader:
    """The values of an open file, each read when it is asked for.

    Parameters
    ----------
    file : h5py.File
        The file.
    where : str
        Its name, for messages.
    """

    def __init__(self, file: Any, where: str) -> None:
        self.where = where
        self._file = file
        try:
            names: list[str] = []
            file.visit(names.append)
            dataset = import_h5py().Dataset
            self._items = {name: file[name] for name in names}
            self._items = {k: item for k, item in self._items.items() if isinstance(item, dataset)}
        except Exception as error:  # whatever libhdf5 meets in a damaged file
            raise CheckpointError(f"the keys of {where} cannot be read: {error}") from error

    def keys(self) -> list[str]:
        """Return all keys."""
        return list(self._items)

    def read(self, key: str, limit: int | None) -> Value:
        """Read one value, as `NpzReader.read`."""
        try:
            item = self._items[key]
            n_bytes = 0 if item.shape is None else int(item.size) * int(item.dtype.itemsize)
            # a whole chunk is unpacked for one element
            if item.chunks is not None:
                n_bytes = max(n_bytes, math.prod(item.chunks) * int(item.dtype.itemsize))
            if item.dtype.hasobject and item.shape:
                raise CheckpointError(
                    f"{key!r} in {self.where} holds objects, or strings of any length: "
                    "nobody knows what memory they take"
                )
            if limit is not None and n_bytes > limit:
                raise CheckpointError(
                    f"{key!r} in {self.where} has shape {item.shape} and {n_bytes:,} bytes, and "
                    f"there is room for {limit:,} where it is to go"
                )
            value = read_dataset(self._file, key, key)
        except CheckpointError:
            raise
        except Exception as error:  # whatever libhdf5 meets in a damaged file
            raise CheckpointError(f"{key!r} in {self.where} cannot be read: {error}") from error
        return np.array(None, dtype=object) if value is None else np.asarray(value)
