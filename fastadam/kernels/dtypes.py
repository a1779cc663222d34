"""Which dtypes are stepped, what they are computed in, and how bfloat16 is told from raw bytes.

NumPy has no bfloat16 of its own: it comes from ml_dtypes, which is never imported here. Whoever has
such an array has imported it.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import numpy.typing as npt

from fastadam.kernels.backend import zeros_like

__all__ = [
    "bfloat16_number",
    "computing_dtype",
    "is_bfloat16",
    "is_floating",
    "is_half",
    "state_like",
    "stored",
    "type_name",
]

_FLOAT32, _FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
_FLOAT16 = np.dtype(np.float16)


def is_bfloat16(dtype: np.dtype[Any]) -> bool:
    """Tell whether a dtype is ml_dtypes' bfloat16."""
    return dtype.kind == "V" and dtype.itemsize == 2 and dtype.name == "bfloat16"


def bfloat16_number() -> int:
    """Return NumPy's number for the type bfloat16, -1 if nobody has imported it yet."""
    module = sys.modules.get("ml_dtypes")
    return -1 if module is None else int(np.dtype(module.bfloat16).num)


def is_half(dtype: np.dtype[Any]) -> bool:
    """Tell whether a dtype is float16 or bfloat16."""
    return dtype == _FLOAT16 or is_bfloat16(dtype)


def is_floating(dtype: np.dtype[Any]) -> bool:
    """Tell whether a dtype holds real floating numbers, bfloat16 included."""
    return dtype.kind == "f" or is_bfloat16(dtype)


def computing_dtype(dtype: np.dtype[Any]) -> np.dtype[Any] | None:
    """Return the dtype in which steps are made and state is kept; None for one without steps.

    float32 for float16, bfloat16 and float32; float64 for float64; of any byte order.
    """
    native = dtype.newbyteorder("=")
    if native in (_FLOAT32, _FLOAT64):
        return native
    return _FLOAT32 if is_half(native) else None


def state_like(param: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return zeros for a moment of a parameter: its shape, layout and place, computing dtype."""
    zeros: npt.NDArray[Any] = zeros_like(param, computing_dtype(param.dtype) or param.dtype)
    return zeros


def stored(dtype: np.dtype[Any]) -> int:
    """Return the number under which the kernels know how elements are stored.

    0 for the computing type itself, 1 for float16, 2 for bfloat16, as ``Stored`` in _tensors.pxd.
    """
    if dtype == _FLOAT16:
        return 1
    return 2 if is_bfloat16(dtype) else 0


def type_name(obj: object) -> str:
    """Return the name of an object's type with its library, as every one has an ``ndarray``."""
    kind = type(obj)
    own = kind.__module__ == "builtins"
    return kind.__qualname__ if own else f"{kind.__module__}.{kind.__qualname__}"
