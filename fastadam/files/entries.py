"""One value of a file: what it is, its bytes, and their digest."""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastadam.files.limits import PIECE
from fastadam.kernels.dtypes import is_bfloat16

__all__ = [
    *(
        "RAW_BFLOAT16",
        "Entry",
        "Value",
        "checked_pieces",
        "describe",
        "describe_all",
        "is_none",
        "is_plain",
    ),
    *("listed_copy", "pieces", "refuse_dtype", "text_of"),
]

Value = npt.NDArray[Any]

# bfloat16 as npz files hold it: NumPy has no name for it.
RAW_BFLOAT16 = np.dtype("V2")

# SHA-256 takes about as long as writing does. Threads are worth starting from here on.
_MANY_BYTES = 1 << 23
_N_THREADS = 4
# Of this many values each takes longer to be handed over than to be digested.
_SMALL_BYTES = 1 << 14


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
    return value.dtype == object and value.shape == () and value.item() is None


def text_of(value: Value) -> str | None:
    """Return a value that is one string; None if it is something else."""
    return str(value.item()) if value.dtype.kind == "U" and value.shape == () else None


def refuse_dtype(key: str, dtype: np.dtype[Any]) -> None:
    """Refuse what no kind of file can hold, with a TypeError that names the key.

    That is what has no bytes, or is of a library whose dtypes files do not know.
    """
    if dtype.itemsize == 0:
        raise TypeError(
            f"cannot save {key!r}: dtype {dtype} has elements of no bytes, which cannot be told "
            "from damage; leave it out"
        )
    if dtype.type.__module__ != "numpy" and not is_bfloat16(dtype):
        raise TypeError(
            f"cannot save {key!r}: dtype {dtype} has no counterpart in files; convert it to "
            "numbers, strings or bytes"
        )


def pieces(value: Value) -> Iterator[bytes]:
    """Yield the bytes of an array of any layout, in C order: copies, which do not change."""
    if value.dtype.names is not None:
        value = _without_gaps(value)
    n_bytes = value.nbytes
    if n_bytes <= PIECE:
        yield value.tobytes()
    elif value.flags.c_contiguous:
        # whole elements, so that each piece can be turned to another byte order
        step = PIECE - PIECE % value.itemsize or value.itemsize
        flat = np.asarray(value).reshape(-1).view(np.uint8).data
        for at in range(0, n_bytes, step):
            yield bytes(flat[at : at + step])
    elif len(value) == 1:
        yield from pieces(value[0])
    else:
        step = max(1, PIECE // (n_bytes // len(value)))
        for at in range(0, len(value), step):
            yield from pieces(value[at : at + step])


def _without_gaps(value: Value) -> Value:
    """Return a copy of a structured array, with zeros for what is between its fields."""
    filled = np.zeros(value.shape, value.dtype)
    for name in value.dtype.names or ():
        field = value[name]
        filled[name] = field if field.dtype.names is None else _without_gaps(field)
    return filled


def checked_pieces(key: str, value: Value, expected: Entry | None) -> Iterator[bytes]:
    """Yield the bytes of an array; after the last, refuse them if others had been listed.

    What has changed in between is a RuntimeError. Without a list of contents, `expected` is None.
    """
    if expected is None or not is_plain(value.dtype):
        yield from pieces(value if expected is None else listed_copy(key, value, expected))
        return
    digest = hashlib.sha256()
    for piece in pieces(value):
        digest.update(piece)
        yield piece
    found = digest.hexdigest()
    if found != expected.sha256:
        raise _changed(key)


def listed_copy(key: str, value: Value, expected: Entry) -> Value:
    """Return a copy of an array, if it is as it had been listed; else that is a RuntimeError."""
    value = np.array(value, order="C")
    if describe(value, expected.dtype).sha256 != expected.sha256:
        raise _changed(key)
    return value


def _changed(key: str) -> RuntimeError:
    return RuntimeError(
        f"{key!r} has changed while it was saved, by another thread or by what `progress` called: "
        "the file is as it was before; save between two updates"
    )


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
    if dtype == "bfloat16" and value.dtype in (np.float32, RAW_BFLOAT16):
        if value.dtype == np.float32:
            value = (value.view(np.uint32) >> 16).astype(np.uint16)
        return Entry("bfloat16", value.shape, _sha256(value))
    if is_none(value):
        return Entry("none", (), hashlib.sha256(b"").hexdigest())
    if value.dtype.kind in "US":
        # files differ in how much room there is for each string
        text = text_of(value)
        lines = "\n".join(map(repr, value.ravel().tolist())) if text is None else text
        sha256 = hashlib.sha256(lines.encode("utf-8", "surrogatepass")).hexdigest()
        return Entry("str" if value.dtype.kind == "U" else "bytes", value.shape, sha256)
    return Entry(_name(value.dtype), value.shape, _sha256(value))


@functools.lru_cache(maxsize=256)
def is_plain(dtype: np.dtype[Any]) -> bool:
    """Tell whether a digest is that of the bytes as they are."""
    is_number = dtype.kind in "biufcmM" and dtype.newbyteorder("<") == dtype
    return is_number or is_bfloat16(dtype)


@functools.lru_cache(maxsize=256)
def _name(dtype: np.dtype[Any]) -> str:
    """Return the name of a dtype, which NumPy puts together anew each time."""
    return "bfloat16" if is_bfloat16(dtype) else dtype.name


def _sha256(value: Value) -> str:
    """Return the digest of an array's bytes in C order, little-endian."""
    dtype = value.dtype
    little = dtype if dtype == RAW_BFLOAT16 or is_bfloat16(dtype) else dtype.newbyteorder("<")
    turned = little != dtype
    if dtype.names is not None:
        value, turned = value.astype(little), False
    digest = hashlib.sha256()
    if value.flags.c_contiguous and not turned and value.size and dtype.names is None:
        digest.update(np.asarray(value).reshape(-1).view(np.uint8).data)
        return digest.hexdigest()
    for piece in pieces(value):
        digest.update(np.frombuffer(piece, dtype).astype(little).tobytes() if turned else piece)
    return digest.hexdigest()


def describe_all(values: Mapping[str, Value]) -> dict[str, Entry]:
    """Return what a manifest says of all values, with several threads if they are large."""
    large = [key for key, value in values.items() if value.nbytes > _SMALL_BYTES]
    entries: dict[str, Entry] = {}
    if sum(values[key].nbytes for key in large) >= _MANY_BYTES:
        # a program that is ending starts no threads
        with contextlib.suppress(RuntimeError), ThreadPoolExecutor(_N_THREADS) as pool:
            arrays = [values[key] for key in large]
            entries = dict(zip(large, pool.map(describe, arrays), strict=True))
    return {key: entries.get(key) or describe(value) for key, value in values.items()}
