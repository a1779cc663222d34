"""The gradient pass: true gradients from scaled ones, and sums of squares in one defined order.

A sum is in float64, and the order of its additions is part of the numerical contract (see
``squares_reference`` in reference.py): threads, instruction sets and devices give the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from fastadam.kernels.backend import (
    beside,
    device_of,
    empty_like,
    get_array_module,
    is_gpu_array,
)
from fastadam.kernels.cpu import engine
from fastadam.kernels.cpu.gradient_table import GradientTable
from fastadam.kernels.dtypes import computing_dtype, stored
from fastadam.kernels.gpu.arrays import sums_on_gpu
from fastadam.kernels.gpu.sums import GpuSums

__all__ = [
    "Sums",
    "all_finite",
    "finite_squares",
    "global_norm",
    "gpu_sums",
    "largest_square",
    "sum_of_squares",
    "unscale",
]

Array = npt.NDArray[Any]

_LARGEST = {char: float(np.finfo(char).max) for char in "fd"}


class Sums(Sequence[float]):
    """Sums of squares, of which those on GPUs are waited for when one is asked for.

    Parameters
    ----------
    known : sequence of float
        The sums that are known; 0 where one is on a GPU.
    pending : callable, optional
        Returns the others by their indices.
    """

    def __init__(
        self, known: Sequence[float], pending: Callable[[], dict[int, float]] | None = None
    ) -> None:
        self._known = list(known)
        self._pending = pending

    def __len__(self) -> int:
        return len(self._known)

    @overload
    def __getitem__(self, i: int) -> float: ...
    @overload
    def __getitem__(self, i: slice) -> list[float]: ...
    def __getitem__(self, i: int | slice) -> float | list[float]:
        if self._pending is not None:
            pending, self._pending = self._pending, None
            for place, total in pending().items():
                self._known[place] = total
        return self._known[i]


def sum_of_squares(arrays: Sequence[Array]) -> Sequence[float]:
    """Return the sum of squares of each array, in float64.

    Of float16, bfloat16 and float32 arrays it is finite whenever all elements are; of float64
    arrays it may overflow. Subnormal float32 count as 0.

    Parameters
    ----------
    arrays : sequence of array
        Real floating arrays of any shape and layout, NumPy's or CuPy's. Only read.

    Returns
    -------
    sequence of float
        One sum per array; NaN or infinity if an element is. Sums of CuPy's arrays are waited for
        when they are looked at.
    """
    return _squares([_dense(array) for array in arrays], None, None)


def global_norm(arrays: Sequence[Array], squares: Sequence[float] | None = None) -> float:
    """Return the 2-norm of arrays taken together, in float64.

    Parameters
    ----------
    arrays : sequence of array
        Real floating arrays. Only read. Where `squares` are given, those that are not computed in
        float64 may be left out.
    squares : sequence of float, optional
        Their sums of squares, where `sum_of_squares` has been called already.

    Returns
    -------
    float
        ``sqrt(sum of all squares)``, where the sums of the arrays are added in the order of
        ``reference.tree_sum``. NaN or infinity if an element is; finite for finite elements even
        where float64 squares overflow, as long as the norm itself does not.
    """
    if squares is None:
        squares = sum_of_squares(arrays)
    total = engine.tree_sum(squares)
    if total == math.inf and arrays and all(map(all_finite, arrays)):
        largest = max(map(_largest, arrays))
        return largest * global_norm([_divided(array, largest) for array in arrays])
    return math.sqrt(total)


def all_finite(array: Any) -> bool:
    """Tell whether an array of either library holds finite numbers alone."""
    module = _module(array)
    with beside(array):
        return bool(module.all(module.isfinite(array)))


def finite_squares(array: Any) -> bool:
    """Tell whether all numbers of an array, and their squares, are finite where steps square them.

    Parameters
    ----------
    array : array
        Real floating numbers of either library.
    """
    module = _module(array)
    with np.errstate(all="ignore"), beside(array):
        wide = array.astype(computing_dtype(array.dtype) or array.dtype, copy=False)
        return bool(module.all(module.isfinite(wide * wide)))


def largest_square(computing: np.dtype[Any]) -> float:
    """Return up to which sum of squares no single square can be infinite.

    Parameters
    ----------
    computing : numpy.dtype
        What steps are computed in: float32 or float64. Sums are in float64.
    """
    return _LARGEST[computing.char]


def _largest(array: Any) -> float:
    """Return the largest magnitude of an array; 0 of an empty one."""
    with beside(array):
        return float(abs(array).max()) if array.size else 0.0


def _divided(array: Any, number: float) -> Any:
    """Return an array divided by a number, in float64."""
    with beside(array):
        return array.astype(np.float64) / number


def gpu_sums(arrays: Sequence[Array]) -> GpuSums | None:
    """Return sums of squares on the one GPU where all arrays are, None if they are elsewhere.

    Nobody waits for them.
    """
    if not arrays or not all(map(is_gpu_array, arrays)) or len(set(map(device_of, arrays))) > 1:
        return None
    sums, _ = sums_on_gpu([_dense(array) for array in arrays], None, None)
    return sums[device_of(arrays[0])]


def unscale(
    gradients: Sequence[Array], scales: Sequence[float], in_place: Sequence[bool] | None = None
) -> tuple[list[Array], Sequence[float]]:
    """Return gradients divided by their loss scales, and the sums of squares of the quotients.

    Parameters
    ----------
    gradients : sequence of array
        Real floating arrays of any shape and layout.
    scales : sequence of float
        What each is divided by.
    in_place : sequence of bool, optional
        Whether a gradient may be written: it is, if it is dense and computed in its own dtype.
        By default none.

    Returns
    -------
    true : list of array
        The quotients, in the gradients themselves or new arrays of their shapes; in float32 for
        float16, bfloat16 and float32, so that what a half type cannot hold is not lost, and in
        float64 for all others.
    squares : sequence of float
        Their sums of squares, as `sum_of_squares`.
    """
    dense = [_dense(gradient) for gradient in gradients]
    writable = [False] * len(dense) if in_place is None else in_place
    true = [
        given
        if may and given is g and g.dtype == computing_dtype(g.dtype)
        else empty_like(g, computing_dtype(g.dtype))
        for given, g, may in zip(gradients, dense, writable, strict=True)
    ]
    return true, _squares(dense, true, scales)


def _module(array: Any) -> Any:
    """Return the library of an array."""
    return get_array_module(array)


def _dense(array: Any) -> Array:
    """Return an array whose elements fill one aligned block of memory, itself if it does."""
    gpu = is_gpu_array(array)
    array = array if gpu else np.asarray(array)
    if array.dtype.kind == "c":
        raise TypeError(
            f"a gradient has dtype {array.dtype}; loss scaling, norms and the look at what is not "
            "finite are for real numbers"
        )
    dtype = array.dtype if computing_dtype(array.dtype) is not None else np.dtype(np.float64)
    dtype = dtype.newbyteorder("=")
    whole = array.flags.c_contiguous or array.flags.f_contiguous
    as_it_is = gpu or (array.flags.aligned and array.dtype.isnative)
    if whole and as_it_is and array.dtype == dtype:
        dense: Array = array
        return dense
    with np.errstate(over="ignore"), beside(array):
        dense = _module(array).array(array, dtype, order="K" if whole else "C")
    return dense


def _squares(
    dense: Sequence[Array], out: Sequence[Array] | None, scales: Sequence[float] | None
) -> Sequence[float]:
    """Run the pass: one call per computing dtype on the CPU, and launches on GPUs."""
    sums = [0.0] * len(dense)
    on_gpu = [i for i, g in enumerate(dense) if is_gpu_array(g)]
    for computing in (np.dtype(np.float32), np.dtype(np.float64)):
        rows = [
            i
            for i, g in enumerate(dense)
            if computing_dtype(g.dtype) == computing and not is_gpu_array(g)
        ]
        if not rows:
            continue
        table = GradientTable([dense[i].size for i in rows], computing)
        table.rows["g"] = [dense[i].ctypes.data for i in rows]
        table.rows["g_type"] = [stored(dense[i].dtype) for i in rows]
        if out is not None and scales is not None:
            table.rows["out"] = [out[i].ctypes.data for i in rows]
            table.rows["scale"] = [float(scales[i]) for i in rows]
        for i, total in zip(rows, table.sums_of_squares(), strict=True):
            sums[i] = total
    if not on_gpu:
        return sums
    arrays = [dense[i] for i in on_gpu]
    quotients = None if out is None else [out[i] for i in on_gpu]
    own = None if scales is None else [scales[i] for i in on_gpu]
    return Sums(sums, _later(on_gpu, *sums_on_gpu(arrays, quotients, own)))


def _later(
    indices: Sequence[int], sums: dict[int, Any], devices: Sequence[int]
) -> Callable[[], dict[int, float]]:
    """Return what waits for the sums on GPUs and tells them by their indices."""

    def values() -> dict[int, float]:
        found = {device: each.values() for device, each in sums.items()}
        return {
            place: found[device][i]
            for i, (place, device) in enumerate(zip(indices, devices, strict=True))
        }

    return values
