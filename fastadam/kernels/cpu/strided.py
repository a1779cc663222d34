"""The step for arrays that share no dense layout: strided, misaligned, or another dtype's gradient.

NumPy's buffered iterator brings the elements together, chunk by chunk, for the same kernels; the
memory it takes does not grow with the arrays.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from fastadam.kernels.dtypes import computing_dtype, is_half

__all__ = ["CHUNK", "chunks", "dense_gradient"]

# Elements per chunk: what Python does for each is little beside its step, and five float32 buffers
# of this size fit in a second-level cache, or nearly.
CHUNK = 65536

Array = npt.NDArray[Any]


def chunks(p: Array, g: Array, *state: Array) -> Any:
    """Iterate over the elements as tuples of dense 1-d arrays.

    The chunks of ``p`` are in its own dtype, the others in that of the state, all of one dtype.
    To be used in a ``with`` statement, whose end writes the last chunk back to all but ``g``.
    """
    # without axes, NumPy 1.26 leaves the buffer of an array to be cast unfilled
    arrays = [np.atleast_1d(array) for array in (p, g, *state)]
    dense: list[Any] = ["contig", "aligned", "nbo"]
    return np.nditer(
        arrays,
        flags=["external_loop", "buffered", "zerosize_ok"],
        op_flags=[["readonly" if i == 1 else "readwrite", *dense] for i in range(len(arrays))],
        op_dtypes=[p.dtype] + [state[0].dtype] * (len(arrays) - 1),
        casting="same_kind",
        order="K",
        buffersize=CHUNK,
    )


def dense_gradient(p: Array, g: Array) -> Array:
    """Return a copy of a gradient in the layout of its parameter, which the loops can walk.

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
