"""Gradients converted for the loops: of another byte order, or of a type without a loop."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from fastadam.kernels.dtypes import computing_dtype, is_half

__all__ = ["dense_gradient"]

Array = npt.NDArray[Any]


def dense_gradient(p: Array, g: Array) -> Array:
    """Return a copy of a gradient in the layout of its parameter, in a type that has a loop.

    Parameters
    ----------
    p : numpy.ndarray
        The array of the parameter, or of its master.
    g : numpy.ndarray
        The gradient, of the same shape and any real floating dtype. A half type that there are
        loops for beside `p` is kept, everything else is rounded to what steps are computed in.
    """
    dense: Array = np.empty_like(p, _walked((p.dtype.type, g.dtype.type)), subok=False)
    with np.errstate(all="ignore"):
        np.copyto(dense, g, casting="same_kind")
    return dense


@lru_cache(maxsize=64)
def _walked(types: tuple[type[Any], type[Any]]) -> np.dtype[Any] | None:
    """Return in which dtype the loops can walk a gradient, by the types of p's and g's elements."""
    own, native = map(np.dtype, types)
    computing = computing_dtype(own)
    both_half = is_half(native) and computing == np.float32 and own in (native, computing)
    return native if both_half else computing
