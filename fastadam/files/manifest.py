"""The list of all that a file holds, with digests, which is saved with it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from fastadam.files.entries import Entry, Value
from fastadam.files.errors import CheckpointError

__all__ = ["KEY", "Manifest", "list_limit", "pack", "unpack"]

# Under which key it is, and with which begin all that Chainer does not know.
KEY = "fastadam/manifest"
_FORMAT = 1
_ENTRIES = b', "entries": '


class Manifest(NamedTuple):
    """Entries by key, and with which versions they were saved."""

    entries: dict[str, Entry]
    versions: dict[str, str]


def pack(manifest: Manifest) -> Value:
    """Return a manifest, of everything else in the file, as the bytes that are saved."""
    # an entry is the tuple that it is in the file
    entries = json.dumps(manifest.entries, sort_keys=True).encode()
    digest = _digest_of_parts(entries, _FORMAT, manifest.versions)
    head = json.dumps({"sha256": digest, "format": _FORMAT, "versions": manifest.versions})
    packed = head[:-1].encode() + _ENTRIES + entries + b"}"
    return np.frombuffer(packed, np.uint8)


def list_limit(keys: Iterable[str]) -> int:
    """Return how many bytes the list of these keys takes at most."""
    # 12 bytes for a character beyond the first 65,536, as JSON escapes it
    return 65536 + sum(1024 + 12 * len(key) for key in keys)


def unpack(value: Value, where: str) -> Manifest:
    """Return the manifest in bytes, if its own digest fits.

    If it does not, or if it is of a later format, that is a CheckpointError, which names the file.
    """
    try:
        packed = value.astype(np.uint8, casting="no").tobytes()
        sealed = json.loads(packed)
        digest = sealed.pop("sha256")
        entries = {
            key: Entry(str(dtype), tuple(map(int, shape)), str(sha256))
            for key, (dtype, shape, sha256) in sealed["entries"].items()
        }
        versions = {str(key): str(version) for key, version in sealed["versions"].items()}
        # as it stands there, or, if somebody has written it anew, as we would write it
        as_it_is = packed.partition(_ENTRIES)[2][:-1]
        as_read = _digest_of_parts(as_it_is, sealed["format"], sealed["versions"])
        intact = digest == as_read or digest == _digest(sealed)
        later = sealed["format"] != _FORMAT
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        intact = False
    if not intact:
        raise CheckpointError(
            f"{where} is damaged, or was changed after it was saved: its list of contents "
            f"({KEY!r}) is not the one that was saved"
        )
    if later:
        raise CheckpointError(f"{where} was saved by a later version of fastadam, {versions}")
    return Manifest(entries, versions)


def _digest_of_parts(entries: bytes, number: int, versions: Mapping[str, str]) -> str:
    """Return what `_digest` would, of entries that are JSON already."""
    rest = json.dumps({"format": number, "versions": versions}, sort_keys=True).encode()
    return hashlib.sha256(b'{"entries": ' + entries + b", " + rest[1:]).hexdigest()


def _digest(content: Mapping[str, Any]) -> str:
    """Return the digest of everything in a manifest but the digest."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
