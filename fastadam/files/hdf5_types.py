"""Which HDF5 type an array is stored in, and the array that a stored one stands for.

Strings are stored with a fixed length, UTF-8 for str and ASCII for bytes. bfloat16 is stored as
the 16-bit float that it is, which readers that do not know it convert to float32. Everything else
has a type of its own in HDF5 files, or is refused.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastadam.kernels.dtypes import is_bfloat16

__all__ = [
    *("DIGEST", "LIBVER", "MemoryType", "Stored", "decoded", "digest_of", "digest_of_all"),
    "digest_of_parts",
    *("encoded", "import_h5py", "memory_type", "number_type", "text_decoded"),
]

# The attribute that holds the SHA-256 digest of a dataset, or of all that is in a file.
DIGEST = "fastadam_sha256"

# In this format everything about the arrays has checksums, unlike in the default one. libhdf5 reads
# it since version 1.10.
LIBVER = ("v110", "v110")

# Sign, exponent and mantissa of a bfloat16 as HDF5 describes them, and the exponent's bias.
_BFLOAT16_FIELDS = (15, 7, 8, 0, 7)
_BFLOAT16_BIAS = 127


class Stored(NamedTuple):
    """What is in a file: the kind of elements, and an array with the bytes of the file."""

    kind: str
    array: npt.NDArray[Any]


def import_h5py() -> Any:
    """Return the module h5py; that it is not installed is a RuntimeError."""
    try:
        import h5py
    except ImportError as error:
        raise RuntimeError(
            f'HDF5 files need h5py, which cannot be imported ({error}): pip install "h5py>=3.10"'
        ) from error
    return h5py


class MemoryType(NamedTuple):
    """How a dataset is read: the kind, as in `Stored`, the array's dtype, and HDF5's name of it."""

    kind: str
    dtype: np.dtype[Any]
    type_id: Any


@functools.lru_cache(maxsize=256)
def number_type(dtype: np.dtype[Any]) -> Any:
    """Return the HDF5 type whose bytes are those of an array of numbers; None for other arrays."""
    if is_bfloat16(dtype):
        return _bfloat16_type()
    if dtype.type.__module__ != "numpy" or dtype.kind not in "biufc":
        return None
    return import_h5py().h5t.py_create(dtype, logical=True)


def encoded(array: npt.NDArray[Any]) -> tuple[Stored, Any]:
    """Return what is stored for an array of any layout, C-contiguous, and its HDF5 type.

    A dtype that has no counterpart in HDF5 files is a TypeError, a string that has no UTF-8
    encoding a UnicodeEncodeError.
    """
    h5py = import_h5py()
    dtype = array.dtype
    file_type = number_type(dtype)
    if file_type is not None:
        array = np.asarray(array, order="C")
        if is_bfloat16(dtype):
            return Stored("bfloat16", array.view(np.uint16)), file_type
        return Stored(dtype.str, array), file_type
    if dtype.kind not in "SUmM":
        raise TypeError(
            f"dtype {dtype} has no counterpart in HDF5 files; convert it to numbers, strings or "
            "bytes"
        )
    kind, encoding = dtype.str, "ascii"
    if dtype.kind == "U":
        kind = encoding = "utf-8"
        texts = [text.encode("utf-8") for text in array.ravel().tolist()]
        array = np.array(texts, "S1" if not texts else None).reshape(array.shape)
    if dtype.kind in "US":
        dtype = h5py.string_dtype(encoding, max(array.dtype.itemsize, 1))
    else:
        dtype = h5py.opaque_dtype(dtype)
    array = np.asarray(array, dtype=dtype, order="C")
    return Stored(kind, array), h5py.h5t.py_create(dtype, logical=True)


def memory_type(file_type: Any) -> MemoryType:
    """Return how a dataset of a type is to be read."""
    h5py = import_h5py()
    if _is_bfloat16_type(file_type):
        return MemoryType("bfloat16", np.dtype("<u2"), _bfloat16_type())
    dtype = file_type.dtype
    string = h5py.check_string_dtype(dtype)
    is_unicode = string is not None and string.encoding == "utf-8"
    return MemoryType("utf-8" if is_unicode else dtype.str, dtype, h5py.h5t.py_create(dtype))


def digest_of(stored: Stored | None) -> str:
    """Return the SHA-256 digest of kind, shape, and the digest of the elements."""
    if stored is None:
        return hashlib.sha256(b"None\n").hexdigest()
    kind, array = stored
    elements = array.reshape(-1).view(np.uint8).data if array.size else b""
    sha256 = hashlib.sha256(elements).hexdigest()
    return digest_of_parts(kind, array.shape, sha256)


def digest_of_parts(kind: str, shape: tuple[int, ...], sha256: str) -> str:
    """Return the SHA-256 digest of a kind, a shape, and the digest of the elements."""
    return hashlib.sha256(f"{kind} {shape} {sha256}\n".encode()).hexdigest()


def digest_of_all(digests: Mapping[str, str]) -> str:
    """Return one digest of keys and digests."""
    lines = sorted(f"{len(key)} {key} {digest}\n" for key, digest in digests.items())
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def decoded(stored: Stored | None) -> npt.NDArray[Any]:
    """Return the array that a stored one stands for; for None, a stored None.

    bfloat16 is ml_dtypes' where that is installed, and float32 where not. A string that is no UTF-8
    is a UnicodeDecodeError.
    """
    if stored is None:
        return np.array(None, dtype=object)
    kind, array = stored
    if kind == "utf-8":
        return text_decoded(array, "utf-8")
    if kind == "bfloat16":
        try:
            from ml_dtypes import bfloat16
        except ImportError:
            return np.asarray((array.astype(np.uint32) << 16).view(np.float32))
        return array.astype(np.uint16).view(bfloat16)
    return array


def text_decoded(array: npt.NDArray[Any], encoding: str) -> npt.NDArray[Any]:
    """Return bytes as strings; those that are none in this encoding are a UnicodeDecodeError.

    NumPy's own `char.decode`, like `array[()]` of a string, drops what a signal handler raises.
    """
    texts = [text.decode(encoding) for text in array.ravel().tolist()]
    return np.array(texts, "U1" if not texts else None).reshape(array.shape)


def _bfloat16_type() -> Any:
    """Return bfloat16 as an HDF5 type."""
    file_type = import_h5py().h5t.IEEE_F32LE.copy()
    # In this order: the fields have to fit into the size at every moment.
    file_type.set_fields(*_BFLOAT16_FIELDS)
    file_type.set_size(2)
    file_type.set_ebias(_BFLOAT16_BIAS)
    return file_type


def _is_bfloat16_type(file_type: Any) -> bool:
    """Tell whether an HDF5 type is a bfloat16, in either byte order."""
    return bool(
        file_type.get_class() == import_h5py().h5t.FLOAT
        and file_type.get_size() == 2
        and file_type.get_fields() == _BFLOAT16_FIELDS
        and file_type.get_ebias() == _BFLOAT16_BIAS
    )
