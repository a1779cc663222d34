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

__all__ = ["CHUNK", "GRADIENT", "GradientTable", "global_norm", "sum_of_squares", "unscale"]

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


def unscale(
    gradients: Sequence[Array], scales: Sequence[float], in_place: Sequence[bool] | None = None
) -> tuple[list[Array], list[float]]:
    """Return gradients divided by their loss scales, and the sums of squares of the quotients.

    Parameters
    ----------
    gradients : sequence of numpy.ndarray
        Real floating arrays of any shape and layout.
    scales : sequence of float
        What each is divided by.
    in_place : sequence of bool, optional
        Whether a gradient may be written: it is, if it is dense and computed in its own dtype.
        By default none.

    Returns
    -------
    true : list of numpy.ndarray
        The quotients, in the gradients themselves or new arrays of their shapes; in float32 for
        float16, bfloat16 and float32, so that what a half type cannot hold is not lost, and in
        float64 for all others.
    squares : list of float
        Their sums of squares, as `sum_of_squares`.
    """
    dense = [_dense(gradient) for gradient in gradients]
    writable = [False] * len(dense) if in_place is None else in_place
    true = [
        given
        if may and given is g and g.dtype == computing_dtype(g.dtype)
        else np.empty_like(g, computing_dtype(g.dtype), subok=False)
        for given, g, may in zip(gradients, dense, writable, strict=True)
    ]
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
    """Run the pass, one call per computing dtype."""
    sums = [0.0] * len(dense)
    for computing in (np.dtype(np.float32), np.dtype(np.float64)):
        rows = [i for i, g in enumerate(dense) if computing_dtype(g.dtype) == computing]
        if not rows:
            continue
        table = GradientTable([dense[i].size for i in rows], computing)
        table.rows["g"] = [dense[i].ctypes.data for i in rows]
        table.rows["g_type"] = [stored(dense[i].dtype) for i in rows]
        if out is not None and scales is not None:
            table.rows["out"] = [out[i].ctypes.data for i in rows]
            table.rows["scale"] = [float(scales[i]) for i in rows]
        for i, total in zip(rows, table.squares(), strict=True):
            sums[i] = total
    return sums


class GradientTable:
    """The table of gradients that are computed in one dtype; it may be kept.

    Parameters
    ----------
    sizes : sequence of int
        Elements of each gradient.
    computing : numpy.dtype
        float32 or float64.

    Attributes
    ----------
    rows : numpy.ndarray of GRADIENT
        Whoever asks for the squares fills in ``g`` and ``g_type``, the addresses of dense and
        aligned arrays and how they are stored, and, where they are to be divided, ``scale``
        and ``out``, where the quotients are written.
    """

    def __init__(self, sizes: Sequence[int], computing: np.dtype[Any]) -> None:
        self.computing = computing
        self.rows = np.zeros(len(sizes), GRADIENT)
        self.rows["n"] = sizes
        chunks = -(-self.rows["n"] // CHUNK)
        self.rows["start"] = np.cumsum(chunks) - chunks
        self._sums = np.empty(int(chunks.sum()))
        self._totals = np.empty(len(sizes))

    def squares(self) -> list[float]:
        """Return the sum of squares of every gradient, or of every quotient."""
        cpu.run_squares(self.rows, self._sums, self._totals, self.computing)
        totals: list[float] = self._totals.tolist()
        return totals
