"""Which HDF5 type an array is stored in, and the array that a stored one stands for.

Strings are stored with a fixed length, UTF-8 for str and ASCII for bytes. bfloat16 is stored as
the 16-bit float that it is, which readers that do not know it convert to float32. Everything else
has a type of its own in HDF5 files, or is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["LIBVER", "Stored", "decoded", "encoded", "import_h5py", "memory_types"]

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
    """Return the module h5py.

    Raises
    ------
    RuntimeError
        If it is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise RuntimeError(
            f'HDF5 files need h5py, which cannot be imported ({error}): pip install "h5py>=3.10"'
        ) from error
    return h5py


def encoded(array: npt.NDArray[Any]) -> tuple[Stored, Any]:
    """Return what is stored for an array, and its HDF5 type.

    Parameters
    ----------
    array : numpy.ndarray
        The array, of any layout.

    Returns
    -------
    Stored
        The kind, and a C-contiguous array.
    h5py.h5t.TypeID
        The type in the file.

    Raises
    ------
    TypeError
        If the dtype has no counterpart in HDF5 files.
    UnicodeEncodeError
        If a string has no UTF-8 encoding.
    """
    h5py = import_h5py()
    dtype = array.dtype
    if dtype.name == "bfloat16":
        bits = np.asarray(array, order="C").view(np.uint16).astype("<u2")
        return Stored("bfloat16", bits), _bfloat16_type()
    if dtype.type.__module__ != "numpy" or dtype.kind not in "biufcSUmM":
        raise TypeError(
            f"dtype {dtype} has no counterpart in HDF5 files; convert it to numbers, strings or "
            "bytes"
        )
    kind = "utf-8" if dtype.kind == "U" else dtype.str
    if dtype.kind in "US":
        array = _converted(np.char.encode, array) if dtype.kind == "U" else array
        encoding = "utf-8" if dtype.kind == "U" else "ascii"
        dtype = h5py.string_dtype(encoding, max(array.dtype.itemsize, 1))
    elif dtype.kind in "mM":
        dtype = h5py.opaque_dtype(dtype)
    array = np.asarray(array, dtype=dtype, order="C")
    return Stored(kind, array), h5py.h5t.py_create(dtype, logical=True)


def memory_types(dataset: Any) -> tuple[str, np.dtype[Any], Any]:
    """Return how a dataset is to be read.

    Parameters
    ----------
    dataset : h5py.Dataset
        The dataset.

    Returns
    -------
    str
        The kind, as in `Stored`.
    numpy.dtype
        Dtype of the array to read into.
    h5py.h5t.TypeID or None
        HDF5's description of that array; None if it follows from the dtype.
    """
    h5py = import_h5py()
    file_type = dataset.id.get_type()
    if _is_bfloat16_type(file_type):
        return "bfloat16", np.dtype("<u2"), _bfloat16_type()
    dtype = dataset.dtype
    string = h5py.check_string_dtype(dtype)
    is_unicode = string is not None and string.encoding == "utf-8"
    return "utf-8" if is_unicode else dtype.str, dtype, None


def decoded(stored: Stored) -> npt.NDArray[Any]:
    """Return the array that a stored one stands for.

    Parameters
    ----------
    stored : Stored
        What is in the file.

    Returns
    -------
    numpy.ndarray
        The array. bfloat16 is ml_dtypes' where that is installed, and float32 where not.

    Raises
    ------
    UnicodeDecodeError
        If a string is no UTF-8.
    """
    kind, array = stored
    if kind == "utf-8":
        return _converted(np.char.decode, array)
    if kind == "bfloat16":
        try:
            from ml_dtypes import bfloat16
        except ImportError:
            return np.asarray((array.astype(np.uint32) << 16).view(np.float32))
        return array.astype(np.uint16).view(bfloat16)
    return array


def _converted(convert: Callable[..., Any], array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Encode or decode strings as UTF-8."""
    if array.size == 0:
        # NumPy 1 makes such an array one of float64.
        return np.empty(array.shape, "S1" if array.dtype.kind == "U" else "U1")
    return np.asarray(convert(array, "utf-8"))


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
