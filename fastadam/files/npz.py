"""npz files: a zip archive with an array in each member."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy_format

from fastadam.files.atomic import atomic_write
from fastadam.files.entries import Value
from fastadam.files.errors import CheckpointError
from fastadam.files.none import MAX_LENGTH, is_pickled_none
from fastadam.kernels.dtypes import is_bfloat16

__all__ = ["NpzReader", "opened", "write"]

# What a damaged archive makes Python's and NumPy's readers raise.
_DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, struct.error, ValueError, EOFError, KeyError, IndexError),
    *(OverflowError, NotImplementedError, RuntimeError, TypeError, SyntaxError, RecursionError),
)
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_SUFFIX = ".npy"
_PIECE = 1 << 20
# Versions of the npy format, with the bytes of the header's length, and what reads it.
_HEADERS = {
    (1, 0): (2, npy_format.read_array_header_1_0),
    (2, 0): (4, npy_format.read_array_header_2_0),
}
_HEADER_LIMIT = 1 << 16


def write(
    path: str | os.PathLike[str],
    values: Mapping[str, Value],
    compression: bool,
    done: Callable[[int], None],
) -> None:
    """Write values to an npz file, atomically.

    Parameters
    ----------
    path : str or os.PathLike
        The file.
    values : mapping of str to numpy.ndarray
        Values by key.
    compression : bool
        Whether to compress.
    done : callable
        Called after each value with its bytes.
    """
    method = zipfile.ZIP_DEFLATED if compression else zipfile.ZIP_STORED
    with atomic_write(path) as file, zipfile.ZipFile(file, "w", method, allowZip64=True) as archive:
        for key, value in values.items():
            if "\0" in key:
                raise ValueError(f"cannot save {key!r}: names in zip files end at a null character")
            with archive.open(key + _SUFFIX, "w", force_zip64=True) as member:
                _write(member, value)
            done(value.nbytes)


def _write(member: IO[bytes], value: Value) -> None:
    """Write an array as NumPy does, but straight from where it is."""
    if value.dtype.hasobject:
        # a None is pickled, as NumPy writes it; other objects are not among the values
        npy_format.write_array(member, value)
        return
    if value.dtype.type.__module__ != "numpy" and not is_bfloat16(value.dtype):
        raise TypeError(f"dtype {value.dtype} has no counterpart in npz files; convert it")
    header = npy_format.header_data_from_array_1_0(value)
    npy_format.write_array_header_1_0(member, header)
    flat = (value.T if header["fortran_order"] else value).reshape(-1).view(np.uint8).data
    # in pieces that are still in the cache when they go on from the checksum to the disk
    for at in range(0, len(flat), _PIECE):
        member.write(flat[at : at + _PIECE])


@contextlib.contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[NpzReader]:
    """Open an npz file for reading.

    Raises
    ------
    CheckpointError
        If it is none, or damaged.
    OSError
        If it cannot be read.
    """
    where = repr(os.fspath(path))
    with open(path, "rb") as file:
        try:
            archive = zipfile.ZipFile(file)
        except _DAMAGE as error:
            raise CheckpointError(f"{where} is no npz file, or damaged: {error}") from error
        with archive:
            yield NpzReader(archive, where)


class NpzReader:
    """The values of an open archive, each read when it is asked for, and never unpickled.

    Parameters
    ----------
    archive : zipfile.ZipFile
        The archive.
    where : str
        The file's name, for messages.
    """

    def __init__(self, archive: zipfile.ZipFile, where: str) -> None:
        self.where = where
        self._archive = archive
        self._members: dict[str, zipfile.ZipInfo] = {}
        for info in archive.infolist():
            key = info.filename.removesuffix(_SUFFIX)
            if key in self._members:
                raise CheckpointError(f"{where} holds {key!r} twice")
            self._members[key] = info

    def keys(self) -> list[str]:
        """Return all keys."""
        return list(self._members)

    def read(self, key: str, limit: int | None) -> Value:
        """Read one value.

        Parameters
        ----------
        key : str
            A key that is there.
        limit : int or None
            How many bytes it may take; a larger one is refused before memory is.

        Raises
        ------
        CheckpointError
            If it is damaged, too large, or holds Python objects.
        """
        info = self._members[key]
        if info.compress_type not in _METHODS:
            raise CheckpointError(f"{key!r} in {self.where} is compressed in an unknown way")
        try:
            with self._archive.open(info) as member:
                return self._read(member, info, key, limit)
        except CheckpointError:
            raise
        except _DAMAGE as error:
            raise CheckpointError(f"{key!r} in {self.where} is damaged: {error}") from error

    def _read(self, member: IO[bytes], info: zipfile.ZipInfo, key: str, limit: int | None) -> Value:
        shape, fortran, dtype = _header(member)
        header = member.tell()
        if dtype.kind == "O":
            if shape == () and is_pickled_none(member.read(MAX_LENGTH + 1)):
                return np.array(None, dtype=object)
            raise CheckpointError(f"{key!r} in {self.where} holds Python objects, not numbers")
        # as Python numbers: products of NumPy's wrap around
        n_bytes = dtype.itemsize
        for length in shape:
            n_bytes *= int(length)
        if limit is not None and n_bytes > limit:
            raise CheckpointError(
                f"{key!r} in {self.where} has shape {shape} and {n_bytes:,} bytes, and there is "
                f"room for {limit:,} where it is to go"
            )
        if info.file_size - header != n_bytes:
            raise CheckpointError(
                f"{key!r} in {self.where} has {info.file_size - header:,} bytes, and its shape "
                f"{shape} of {dtype} takes {n_bytes:,}"
            )
        flat = np.empty(n_bytes, np.uint8)
        at = 0
        while at < n_bytes:
            piece = member.read(min(_PIECE, n_bytes - at))
            if not piece:
                raise CheckpointError(f"{key!r} in {self.where} is cut off")
            flat[at : at + len(piece)] = np.frombuffer(piece, np.uint8)
            at += len(piece)
        # only reading to the end makes zipfile compare the checksum
        member.read(1)
        return flat.view(dtype).reshape(shape, order="F" if fortran else "C")


def _header(member: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read the header of an array."""
    version = npy_format.read_magic(member)
    if version not in _HEADERS:
        raise ValueError(f"unknown version {version} of the npy format")
    n_bytes, parse = _HEADERS[version]
    # NumPy's reader takes as much memory as the header says that it is long
    told = member.read(n_bytes)
    length = int.from_bytes(told, "little")
    if length > _HEADER_LIMIT:
        raise ValueError(f"its header says that it is {length:,} bytes long")
    shape, fortran, dtype = parse(io.BytesIO(told + member.read(length)))
    return shape, fortran, dtype
