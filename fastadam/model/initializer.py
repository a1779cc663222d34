"""What fills a new parameter: numbers, arrays and callables, made into one kind of thing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from fastadam.kernels.backend import is_array, on_cpu

__all__ = [
    "Array",
    "Constant",
    "Initializer",
    "Shape",
    "as_initializer",
    "initial_dtype",
    "new_array",
]

Array: TypeAlias = npt.NDArray[Any]
Shape: TypeAlias = int | tuple[int, ...]
Initializer: TypeAlias = Callable[[Array], object]


class Constant:
    """Fill an array with one value, or with the elements of another array.

    Parameters
    ----------
    value : scalar or numpy.ndarray
        What to fill with; an array is broadcast to the array that is filled.
    dtype : dtype-like, optional
        The dtype an array made for this initializer gets; None means float32.

    Examples
    --------
    >>> import numpy as np
    >>> from fastadam.model.initializer import Constant
    >>> array = np.empty(3, np.float32)
    >>> Constant(2)(array)
    >>> array
    array([2., 2., 2.], dtype=float32)
    """

    def __init__(self, value: Any, dtype: npt.DTypeLike | None = None) -> None:
        self.value = value
        self.dtype = dtype

    def __call__(self, array: Array) -> None:
        """Write the value into `array`."""
        array[...] = self.value


def as_initializer(initializer: Any, label: str) -> Initializer:
    """Return a callable that fills an array, made from what the user gave; None is NaN."""
    if initializer is None:
        return Constant(float("nan"))
    if np.isscalar(initializer) and not isinstance(initializer, str | bytes):
        return Constant(initializer)
    if is_array(initializer):
        return Constant(on_cpu(initializer))
    if callable(initializer):
        filler: Initializer = initializer
        return filler
    raise TypeError(
        f"the initializer of {label} must be a numpy.ndarray, a number, None or a callable that "
        f"fills an array, not {type(initializer).__name__}"
    )


def initial_dtype(initializer: Initializer | None) -> np.dtype[Any]:
    """Return the dtype of an array made for an initializer: its own, or float32."""
    dtype = getattr(initializer, "dtype", None)
    return np.dtype(np.float32 if dtype is None else dtype)


def new_array(initializer: Initializer, shape: Shape) -> Array:
    """Make an array and let an initializer fill it."""
    array: Array = np.empty(shape, initial_dtype(initializer))
    initializer(array)
    return array
