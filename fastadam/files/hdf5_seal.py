"""One digest over all that is in an HDF5 file, which tells damage before anything is loaded."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from fastadam.files.hdf5_datasets import DIGEST, file_name, read_digest, stored_digest
from fastadam.files.hdf5_types import import_h5py

__all__ = ["seal", "verify"]


def seal(file: Any) -> None:
    """Store the digest of all that is in a file.

    Parameters
    ----------
    file : h5py.File
        A file whose datasets have digests.
    """
    digests = {key: str(stored_digest(item, key)) for key, item in _datasets(file).items()}
    file.attrs[DIGEST] = np.bytes_(_digest_of_all(digests))


def verify(file: Any) -> None:
    """Compare all that is in a file with its digests, if it has any.

    Parameters
    ----------
    file : h5py.File
        A file of `save_hdf5`, or of another program.

    Raises
    ------
    ValueError
        If a dataset's values are not those that were saved, or if there are other keys.
    OSError
        If something cannot be read.
    """
    sealed = stored_digest(file, "/")
    digests = {
        key: read_digest(file, key, key)
        for key, dataset in _datasets(file).items()
        if sealed is not None or stored_digest(dataset, key) is not None
    }
    if sealed is not None and sealed != _digest_of_all(digests):
        raise ValueError(
            f"{file_name(file)} is damaged, or was changed after it was saved: the SHA-256 digest "
            "of its keys is not the one that was saved with them. If it was changed on purpose, "
            f"delete the file's attribute {DIGEST!r}"
        )


def _datasets(file: Any) -> dict[str, Any]:
    """Return all datasets of a file by key."""
    try:
        names: list[str] = []
        file.visit(names.append)
        items = {name: file[name] for name in names}
    except Exception as error:  # whatever libhdf5 meets in a damaged file
        raise OSError(f"the keys of {file_name(file)} cannot be read: {error}") from error
    dataset = import_h5py().Dataset
    return {name: item for name, item in items.items() if isinstance(item, dataset)}


def _digest_of_all(digests: Mapping[str, str]) -> str:
    """Return one digest of keys and digests."""
    lines = sorted(f"{len(key)} {key} {digest}\n" for key, digest in digests.items())
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()
