"""One value of a file: what it is, and its digest."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastadam.kernels.dtypes import is_bfloat16

__all__ = ["Entry", "Value", "describe", "describe_all", "is_none", "text_of"]

Value = npt.NDArray[Any]

# bfloat16 as npz files hold it: NumPy has no name for it.
_RAW = np.dtype("V2")

# SHA-256 takes about as long as writing does. Threads are worth starting from here on.
_MANY_BYTES = 1 << 23
_N_THREADS = 4


class Entry(NamedTuple):
    """What a manifest says of one value.

    Attributes
    ----------
    dtype : str
        Such as 'float32', 'bfloat16', 'str' or 'none'.
    shape : tuple of int
        The shape.
    sha256 : str
        Of the bytes in C order, little-endian; of a string in UTF-8.
    """

    dtype: str
    shape: tuple[int, ...]
    sha256: str


def is_none(value: Value) -> bool:
    """Tell whether a value is a stored None."""
    return value.dtype == object and value.shape == () and value[()] is None


def text_of(value: Value) -> str | None:
    """Return a value that is one string; None if it is something else."""
    return str(value[()]) if value.dtype.kind == "U" and value.shape == () else None


def describe(value: Value, dtype: str | None = None) -> Entry:
    """Return what a manifest says of a value.

    Parameters
    ----------
    value : numpy.ndarray
        The value, as it is saved or has been read.
    dtype : str, optional
        What the manifest says it is: npz files hold bfloat16 as raw bytes, and HDF5 files are read
        as float32 where there is no bfloat16.
    """
    if is_none(value):
        return Entry("none", (), hashlib.sha256(b"").hexdigest())
    text = text_of(value)
    if text is not None:
        encoded = text.encode("utf-8", "surrogatepass")
        return Entry("str", (), hashlib.sha256(encoded).hexdigest())
    if value.dtype.kind in "US":
        # files differ in how much room there is for each string
        lines = "\n".join(map(repr, value.ravel().tolist()))
        of_lines = hashlib.sha256(lines.encode("utf-8", "surrogatepass"))
        kind = "str" if value.dtype.kind == "U" else "bytes"
        return Entry(kind, value.shape, of_lines.hexdigest())
    name = value.dtype.name
    if dtype == "bfloat16" and value.dtype == np.float32:
        value = (value.view(np.uint32) >> 16).astype(np.uint16)
        name = "bfloat16"
    elif is_bfloat16(value.dtype) or (dtype == "bfloat16" and value.dtype == _RAW):
        value, name = value.view(np.uint16), "bfloat16"
    little = np.ascontiguousarray(value.astype(value.dtype.newbyteorder("<"), copy=False))
    # a 0-dim array has become one of one axis
    digest = hashlib.sha256(little.reshape(-1).view(np.uint8).data)
    return Entry(name, value.shape, digest.hexdigest())


def describe_all(values: Mapping[str, Value]) -> dict[str, Entry]:
    """Return what a manifest says of all values, with several threads if they are large.

    Parameters
    ----------
    values : mapping of str to numpy.ndarray
        Values by key.
    """
    if sum(value.nbytes for value in values.values()) >= _MANY_BYTES:
        try:
            with ThreadPoolExecutor(_N_THREADS) as pool:
                return dict(zip(values, pool.map(describe, values.values()), strict=True))
        except RuntimeError:  # a program that is ending starts no threads
            pass
    return {key: describe(value) for key, value in values.items()}
