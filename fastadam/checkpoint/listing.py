"""What a file holds, without an optimizer to load it into."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from fastadam.files.entries import Value, describe
from fastadam.files.errors import CheckpointError
from fastadam.files.formats import Reader, format_of
from fastadam.files.manifest import KEY, Manifest, unpack
from fastadam.kernels.dtypes import is_bfloat16

__all__ = ["listing"]

# How many bytes of a value are read without an optimizer that has room for it, or four times the
# size of the file.
_LARGEST = 1 << 30
# How many numbers are shown.
_FEW = 4


def listing(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a whole file, one value after the other.

    Parameters
    ----------
    path : str or os.PathLike
        The file.

    Returns
    -------
    dict
        ``entries``, a list of dicts with ``key``, ``dtype``, ``shape``, ``bytes``, ``value`` and
        ``damage``; ``value`` is that of a number, a string or a few numbers, else None;
        ``versions``; ``verified``, whether the file lists its contents and they are all there;
        ``damaged``, the keys that are not as they were saved.

    Raises
    ------
    CheckpointError, OSError, ValueError, RuntimeError
        As `fastadam.load`.
    """
    with format_of(path).opened(path) as reader:
        keys = sorted(reader.keys())
        limit = max(_LARGEST, 4 * os.path.getsize(path))
        manifest = unpack(reader.read(KEY, limit), reader.where) if KEY in keys else None
        entries = [_entry(reader, key, manifest, limit) for key in keys if key != KEY]
        listed = set() if manifest is None else set(manifest.entries)
        damaged = [entry["key"] for entry in entries if entry["damage"] is not None]
        damaged += sorted(listed - set(keys))
    return {
        "entries": entries,
        "versions": {} if manifest is None else manifest.versions,
        "verified": manifest is not None and not damaged,
        "damaged": damaged,
    }


def _entry(reader: Reader, key: str, manifest: Manifest | None, limit: int) -> dict[str, Any]:
    """Read one value, and describe it."""
    listed = None if manifest is None else manifest.entries.get(key)
    entry = {"key": key, "dtype": "?", "shape": [], "bytes": 0, "value": None, "damage": None}
    try:
        value = reader.read(key, limit)
    except CheckpointError as error:
        return entry | {"damage": str(error)}
    found = describe(value, None if listed is None else listed.dtype)
    if manifest is not None and found != listed:
        entry["damage"] = "not what was saved" if listed else "put in after it was saved"
    return entry | {
        "dtype": found.dtype,
        "shape": list(found.shape),
        "bytes": 0 if found.dtype == "none" else int(value.nbytes),
        "value": _plain(value),
    }


def _plain(value: Value) -> Any:
    """Return a small value as Python's; None if it is larger."""
    if value.size > _FEW or value.dtype.hasobject:
        return None
    if is_bfloat16(value.dtype):
        value = value.astype(np.float32)
    if value.dtype.kind in "biufU":
        return value.tolist()
    return None if value.dtype.kind == "V" else str(value.tolist())
