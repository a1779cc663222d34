"""Files whose values are compared with their digests, each once."""

from __future__ import annotations

import contextlib
import hashlib
import math
from typing import Any

import numpy as np

from fastadam.files.entries import Entry, Value, describe
from fastadam.files.errors import CheckpointError, NoRoomError
from fastadam.files.formats import Reader
from fastadam.files.hdf5 import Hdf5Reader
from fastadam.files.hdf5_types import (
    DIGEST,
    Stored,
    decoded,
    digest_of,
    digest_of_all,
    digest_of_parts,
)
from fastadam.files.limits import SPARE, check_room
from fastadam.files.manifest import KEY, Manifest, list_limit, unpack

__all__ = ["Listed", "Sealed", "read_listed", "read_manifest"]

# Numbers whose bytes are the same on every machine, by the names that lists of contents have; what
# is longer than this is read quickly enough anyhow.
_NUMBERS = {
    name: np.dtype(name).newbyteorder("<")
    for name in (
        *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
        *("float16", "float32", "float64", "complex64", "complex128"),
    )
}
_NUMBERS["bfloat16"] = np.dtype("<u2")
_QUICK = 1 << 16


def read_manifest(reader: Reader) -> Manifest | None:
    """Return the list of contents of a file, if it has one that names all of its values.

    A file that has lost values, or that others were put into, is a CheckpointError.
    """
    if KEY not in reader:
        return None
    keys = set(reader.keys())
    manifest = unpack(reader.read(KEY, list_limit(keys)), reader.where)
    listed = set(manifest.entries) | {KEY}
    for lost, what in ((listed - keys, "lacks"), (keys - listed, "holds besides")):
        if lost:
            raise CheckpointError(
                f"{reader.where} was changed after it was saved: it {what} "
                f"{', '.join(map(repr, sorted(lost)[:5]))}"
            )
    return manifest


def read_listed(reader: Reader, key: str, listed: Entry, limit: int | None) -> Value:
    """Read a value that is the one that was saved, by what the list of contents says of it.

    Parameters
    ----------
    reader : Reader
        The open file.
    key : str
        A key that is there.
    listed : Entry
        What the list says.
    limit : int or None
        How many bytes it may take; a larger one is refused before memory is taken.

    Raises
    ------
    CheckpointError
        If it is another one, or too large.
    """
    dtype = _NUMBERS.get(listed.dtype)
    if dtype is not None and min(listed.shape, default=0) >= 0:
        n_bytes = math.prod(listed.shape) * dtype.itemsize
        if 0 < n_bytes <= (_QUICK if limit is None else min(limit, _QUICK)):
            data = reader.peek(key, n_bytes)
            if data is not None and hashlib.sha256(data).hexdigest() == listed.sha256:
                array = np.frombuffer(data, dtype).reshape(listed.shape).copy()
                return decoded(Stored(listed.dtype, array))
    value = reader.read(key, limit)
    if describe(value, listed.dtype) != listed:
        raise _damaged(key, reader.where)
    return value


def _damaged(key: str, where: str) -> CheckpointError:
    return CheckpointError(
        f"{key!r} in {where} is damaged: its values are not those that were saved"
    )


class Listed:
    """An open file; if it lists its contents, each value is compared with that when it is read.

    `manifest` is the list, None without one.
    """

    def __init__(self, reader: Reader) -> None:
        self.where = reader.where
        self.manifest = read_manifest(reader)
        self._reader = reader

    def __contains__(self, key: str) -> bool:
        """Tell whether there is such a key."""
        return key in self._reader

    def read(self, key: str, limit: int | None) -> Value:
        """Read one value."""
        listed = None if self.manifest is None else self.manifest.entries.get(key)
        if listed is None:
            return self._reader.read(key, limit)
        return read_listed(self._reader, key, listed, limit)


class Sealed(Listed):
    """An open HDF5 file, all of which has been compared before anything of it is used.

    What belongs to the object that is loaded is read and digested once, and kept until it is asked
    for. Of what is very much longer than in the file, only the digest is taken.

    Parameters
    ----------
    reader : Hdf5Reader
        The file.
    path : str
        What the keys of the object begin with.

    Raises
    ------
    CheckpointError
        If a value is not the one that was saved, or there are other keys.
    """

    _reader: Hdf5Reader

    def __init__(self, reader: Hdf5Reader, path: str) -> None:
        super().__init__(reader)
        self._kept: dict[str, Value] = {}
        self._room = max(SPARE // 4, 4 * reader.size())
        if self.manifest is not None:
            for key, listed in self.manifest.entries.items():
                self._compare(key, path, listed)
            return
        seal = reader.seal()
        digests = {}
        keys = reader.keys()
        for key in keys:
            if seal is not None or reader.told(key) is not None:
                digests[key] = self._digest(key, path)
        if seal is not None and seal != digest_of_all(digests):
            raise CheckpointError(
                f"{self.where} is damaged, or was changed after it was saved: the SHA-256 digest "
                "of its keys is not the one that was saved with them. If it was changed on "
                f"purpose, delete the file's attribute {DIGEST!r}"
            )

    def kind(self, name: str) -> str | None:
        """Return 'array' or 'group'; None where there is nothing of that name."""
        return self._reader.kind(name)

    def group(self, name: str) -> Any:
        """Return a group that is there, as h5py's object."""
        return self._reader.group(name)

    def read(self, key: str, limit: int | None) -> Value:
        """Return a value; one that was not kept is read, and compared again."""
        if key not in self._kept:
            return super().read(key, limit)
        value = self._kept[key]
        check_room(f"{key!r} in {self.where}", value.shape, value.nbytes, limit)
        return self._kept.pop(key)

    def _limit(self, key: str, path: str) -> int:
        """Return how many bytes of a value are read to be kept until it is asked for."""
        return self._room if key.startswith(path) else SPARE // 16

    def _keep(self, key: str, path: str, value: Value) -> None:
        """Keep a value of the object that is loaded."""
        if key.startswith(path):
            self._room = max(0, self._room - value.nbytes)
            self._kept[key] = value

    def _compare(self, key: str, path: str, listed: Entry) -> None:
        """Compare a value with the list of contents."""
        try:
            value = read_listed(self._reader, key, listed, self._limit(key, path))
        except NoRoomError:
            kind, shape, sha256 = self._reader.digest(key)
            if (shape, sha256) == (listed.shape, listed.sha256):
                return
            # the list has other digests of strings, and of the other byte order
            is_number = listed.dtype not in ("str", "bytes") and not kind.startswith(">")
            if is_number or describe(self._reader.read(key, None)) != listed:
                raise _damaged(key, self.where) from None
        else:
            self._keep(key, path, value)

    def _digest(self, key: str, path: str) -> str:
        """Return the digest of a value, which is that which is stored with it."""
        try:
            stored, digest = self._reader.digested(key, self._limit(key, path))
        except NoRoomError:
            digest = digest_of_parts(*self._reader.digest(key))
            if self._reader.told(key) not in (None, digest):
                raise _damaged(key, self.where) from None
            return digest
        with contextlib.suppress(UnicodeDecodeError):  # whoever asks for it is told
            self._keep(key, path, decoded(stored))
        return digest_of(stored) if digest is None else digest
