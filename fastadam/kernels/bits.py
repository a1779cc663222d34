"""How two arrays differ: the same bits or not, where first, and by how much.

Arrays are walked in chunks: nothing of their size is ever made.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["ArrayDifference", "array_difference", "same_bits"]

Array = npt.NDArray[Any]

# Elements looked at in one go: the temporaries stay in the cache.
_CHUNK = 65536

_SIGN_AND_MAGNITUDE = {("f", 2), ("f", 4), ("f", 8)}


@dataclass(frozen=True, slots=True)
class ArrayDifference:
    """How two arrays of one shape and dtype differ.

    Parameters
    ----------
    count : int
        Number of elements that differ.
    first : tuple of int
        Index of the first of them, in C order.
    a, b : numpy.generic
        Its two values.
    ulps : int, float or None
        The largest distance in units in the last place: how many numbers of the dtype one passes
        on the way from one value to the other. Infinite between NaN and a number; for integers,
        the difference; None for other dtypes.
    relative, absolute : float or None
        The largest ``|a - b| / max(|a|, |b|)`` and ``|a - b|``, in float64; infinite where NaN or
        infinity is involved. None for what is not a number.
    """

    count: int
    first: tuple[int, ...]
    a: Any
    b: Any
    ulps: int | float | None
    relative: float | None
    absolute: float | None


def same_bits(a: Array, b: Array) -> bool:
    """Tell whether two arrays of one shape and dtype agree bit for bit; NaN equals NaN.

    Examples
    --------
    >>> import numpy as np
    >>> from fastadam.kernels.bits import same_bits
    >>> same_bits(np.array([np.nan]), np.array([-np.nan]))
    True
    >>> same_bits(np.array([0.0]), np.array([-0.0]))
    False
    """
    return next(_differing(a, b), None) is None


def array_difference(a: Array, b: Array) -> ArrayDifference | None:
    """Measure how two arrays of one shape and dtype differ; None if they agree bit for bit.

    Examples
    --------
    >>> import numpy as np
    >>> from fastadam.kernels.bits import array_difference
    >>> array_difference(np.array([1.0, 2.0]), np.array([1.0, 2.0 + 2**-50])).ulps
    2
    """
    count, first = 0, 0
    values: tuple[Any, Any] | None = None
    measures: list[tuple[int | float | None, float | None, float | None]] = []
    for start, x, y, where in _differing(a, b):
        if values is None:
            first, values = start + int(where[0]), (x[0], y[0])
        count += len(where)
        measures.append((_ulps(x, y), *_distances(x, y)))
    if values is None:
        return None
    index = tuple(int(i) for i in np.unravel_index(first, a.shape))
    return ArrayDifference(count, index, *values, *map(_largest, zip(*measures, strict=True)))


def _largest(values: tuple[Any, ...]) -> Any:
    """Return the largest measure; None if there is none."""
    return None if values[0] is None else max(values)


def _differing(a: Array, b: Array) -> Iterator[tuple[int, Array, Array, npt.NDArray[np.intp]]]:
    """Yield, for each chunk with differences: its start, both values there, and the places.

    Elements are counted in C order, whatever the layout.
    """
    dtype = a.dtype
    pair = [np.asarray(a), np.asarray(b)]
    patterns = dtype.kind != "O" and dtype.itemsize in (1, 2, 4, 8)
    if patterns:
        pair = [array.view(f"u{dtype.itemsize}") for array in pair]
    flags: list[Any] = ["external_loop", "buffered", "zerosize_ok", "refs_ok"]
    start = 0
    with np.nditer(pair, flags=flags, order="C", buffersize=_CHUNK) as chunks:
        for x, y in chunks:
            unequal = x != y
            if not patterns:
                unequal |= _sign_differs(x, y)
            if unequal.any():
                where = np.flatnonzero(unequal)
                left, right = x[where], y[where]
                if patterns:
                    left, right = left.view(dtype), right.view(dtype)
                real = ~(_isnan(left) & _isnan(right))
                if real.any():
                    yield start, left[real], right[real], where[real]
            start += len(x)


def _sign_differs(x: Array, y: Array) -> Any:
    """Tell where zeros of different sign are, in a dtype that has them but no plain bits."""
    if x.dtype.kind == "c":
        return _sign_differs(x.real, y.real) | _sign_differs(x.imag, y.imag)
    return np.signbit(x) != np.signbit(y) if x.dtype.kind == "f" else False


def _isnan(x: Array) -> Any:
    """Tell where NaN is: what differs from itself, in any dtype."""
    return x != x


def _ulps(x: Array, y: Array) -> int | float | None:
    """Return the largest distance of two arrays in units in the last place."""
    kind, itemsize = x.dtype.kind, x.dtype.itemsize
    if kind == "c":
        parts = [_ulps(x.real, y.real), _ulps(x.imag, y.imag)]
        return None if parts[0] is None else max(part for part in parts if part is not None)
    if kind in "iub":
        return _spread(x, y)
    if (kind, itemsize) not in _SIGN_AND_MAGNITUDE and x.dtype.name != "bfloat16":
        return None
    if np.any(_isnan(x) != _isnan(y)):
        return math.inf
    return _spread(_ordered(x), _ordered(y))


def _ordered(x: Array) -> Array:
    """Return integers in the order of the values: neighbours differ by 1, both zeros are 0."""
    signed = np.dtype(f"i{x.dtype.itemsize}")
    native = x if x.dtype.isnative else x.astype(x.dtype.newbyteorder("="))
    bits = np.ascontiguousarray(native).view(signed)
    magnitudes = bits & np.iinfo(signed).max
    return np.where(_isnan(x), 0, np.where(bits < 0, -magnitudes, magnitudes))


def _spread(x: Array, y: Array) -> int:
    """Return the largest difference of integers, which may be one bit wider than they are."""
    wide = np.uint64 if x.dtype.kind == "u" else np.int64
    high = np.maximum(x, y).astype(wide).view(np.uint64)
    low = np.minimum(x, y).astype(wide).view(np.uint64)
    return int((high - low).max())


def _distances(x: Array, y: Array) -> tuple[float | None, float | None]:
    """Return the largest relative and the largest absolute difference."""
    if x.dtype.kind not in "biufc" and x.dtype.name != "bfloat16":
        return None, None
    wide = np.promote_types(x.dtype, np.float64) if x.dtype.kind in "fc" else np.dtype(np.float64)
    x, y = x.astype(wide), y.astype(wide)
    with np.errstate(all="ignore"):
        absolute = np.abs(x - y)
        scale = np.maximum(np.abs(x), np.abs(y))
        # the difference of two finite numbers may overflow
        relative = np.where(np.isinf(absolute), np.abs(x / scale - y / scale), absolute / scale)
    relative = np.where(scale == 0, 0.0, relative)
    return _or_infinite(relative), _or_infinite(absolute)


def _or_infinite(distances: Array) -> float:
    """Return the largest; infinity where it is not a number."""
    return float(np.where(_isnan(distances), math.inf, distances).max())
