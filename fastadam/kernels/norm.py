"""The gradient pass: true gradients from scaled ones, and sums of squares in one defined order.

A sum is in float64, and the order of its additions is part of the numerical contract (see
``squares_reference`` in reference.py): threads, instruction sets and devices give the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fastadam.kernels import cpu
from fastadam.kernels.dtypes import computing_dtype, stored

__all__ = ["CHUNK", "GRADIENT", "global_norm", "sum_of_squares", "unscale"]

Array = npt.NDArray[Any]

# Elements per chunk of the defined order, as in _norm.pxi.
CHUNK = 4096

# One row of the table of gradients, as _table.pxd spells it in C.
GRADIENT = np.dtype(
    [
        ("g", np.uintp),
        ("out", np.uintp),
        ("scale", np.float64),
        *((name, np.intp) for name in ("n", "start", "g_type")),
    ]
)


def sum_of_squares(arrays: Sequence[Array]) -> list[float]:
    """Return the sum of squares of each array, in float64.

    Of float16, bfloat16 and float32 arrays it is finite whenever all elements are; of float64
    arrays it may overflow. Subnormal float32 count as 0.

    Parameters
    ----------
    arrays : sequence of numpy.ndarray
        Real floating arrays of any shape and layout. Only read.

    Returns
    -------
    list of float
        One sum per array; NaN or infinity if an element is.
    """
    return _squares([_dense(array) for array in arrays], None, None)


def global_norm(arrays: Sequence[Array], squares: Sequence[float] | None = None) -> float:
    """Return the 2-norm of arrays taken together, in float64.

    Parameters
    ----------
    arrays : sequence of numpy.ndarray
        Real floating arrays. Only read.
    squares : sequence of float, optional
        Their sums of squares, where `sum_of_squares` has been called already.

    Returns
    -------
    float
        ``sqrt(sum of all squares)``; NaN or infinity if an element is. Finite for finite
        elements even where float64 squares overflow, as long as the norm itself does not.
    """
    if squares is None:
        squares = sum_of_squares(arrays)
    total = 0.0
    for square in squares:
        total += square
    if total == math.inf and all(bool(np.all(np.isfinite(array))) for array in arrays):
        largest = max(float(np.max(np.abs(array))) for array in arrays if array.size)
        scaled = [array.astype(np.float64) / largest for array in arrays]
        return largest * global_norm(scaled)
    return math.sqrt(total)


def unscale(gradients: Sequence[Array], scales: Sequence[float]) -> tuple[list[Array], list[float]]:
    """Return gradients divided by their loss scales, and the sums of squares of the quotients.

    Parameters
    ----------
    gradients : sequence of numpy.ndarray
        Real floating arrays of any shape and layout. Only read.
    scales : sequence of float
        What each is divided by.

    Returns
    -------
    true : list of numpy.ndarray
        The quotients: new arrays of the gradients' shapes, in float32 for float16, bfloat16 and
        float32, so that what a half type cannot hold is not lost, and in float64 for all others.
    squares : list of float
        Their sums of squares, as `sum_of_squares`.
    """
    dense = [_dense(gradient) for gradient in gradients]
    true = [np.empty_like(g, computing_dtype(g.dtype), subok=False) for g in dense]
    return true, _squares(dense, true, scales)


def _dense(array: Array) -> Array:
    """Return an array whose elements fill one aligned block of memory, itself if it does."""
    array = np.asarray(array)
    if array.dtype.kind == "c":
        raise TypeError(
            f"a gradient has dtype {array.dtype}; loss scaling, norms and the look at what is not "
            "finite are for real numbers"
        )
    dtype = array.dtype if computing_dtype(array.dtype) is not None else np.dtype(np.float64)
    dtype = dtype.newbyteorder("=")
    whole = array.flags.c_contiguous or array.flags.f_contiguous
    if whole and array.flags.aligned and array.dtype == dtype and array.dtype.isnative:
        return array
    with np.errstate(over="ignore"):
        return np.array(array, dtype, order="K" if whole else "C")


def _squares(
    dense: Sequence[Array], out: Sequence[Array] | None, scales: Sequence[float] | None
) -> list[float]:
    """Run the pass, one call per computing dtype, and add up the chunks."""
    sums = [0.0] * len(dense)
    for computing in (np.dtype(np.float32), np.dtype(np.float64)):
        rows = [i for i, g in enumerate(dense) if computing_dtype(g.dtype) == computing]
        if not rows:
            continue
        table = np.zeros(len(rows), GRADIENT)
        for row, i in zip(table, rows, strict=True):
            row["g"], row["n"] = dense[i].ctypes.data, dense[i].size
            row["g_type"] = stored(dense[i].dtype)
            if out is not None and scales is not None:
                row["out"], row["scale"] = out[i].ctypes.data, float(scales[i])
        chunks = -(-table["n"] // CHUNK)
        ends = np.cumsum(chunks)
        table["start"] = ends - chunks
        partial = np.zeros(int(ends[-1]))
        cpu.run_squares(table, partial, computing)
        for i, end, n in zip(rows, ends, chunks, strict=True):
            total = 0.0
            for value in partial[end - n : end].tolist():
                total += value
            sums[i] = total
    return sums
