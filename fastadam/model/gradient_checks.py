"""Gradients before a parameter has them: whether they fit its array, and the first ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastadam.kernels.arrays import refuse_masked
from fastadam.kernels.backend import (
    beside,
    device_of,
    empty_like,
    is_array,
    is_gpu_array,
    loaded_cupy,
)
from fastadam.kernels.dtypes import computing_dtype, is_floating, type_name
from fastadam.model.device import device_holding
from fastadam.model.initializer import Array

__all__ = ["check_place", "check_shape", "checked_grad", "filled_like", "unscaled"]


def checked_grad(grad: npt.ArrayLike, array: Array, label: str) -> Array:
    """Return a caller's gradient as an array that fits a parameter's, or raise.

    The parameter is called `label` in messages.
    """
    try:
        lent: Array = _as_array(grad, array, label)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"the gradient of {label} cannot be made an array of numbers: {error}"
        ) from error
    check_place(lent, array, label)
    if lent.dtype == object and not isinstance(grad, list | tuple) and not is_array(grad):
        raise TypeError(
            f"the gradient of {label} must be an array of shape {array.shape}, like the "
            f"parameter, not {type(grad).__name__}"
        )
    if not is_floating(lent.dtype):
        raise TypeError(
            f"the gradient of {label} has dtype {lent.dtype}; it must be a real "
            f"floating dtype such as {array.dtype.name}"
        )
    check_shape(lent, array, label)
    return lent


def _as_array(grad: Any, array: Array, label: str) -> Any:
    """Return a caller's gradient as an array; on a GPU, other libraries' by DLPack."""
    if is_array(grad):
        return grad
    if is_gpu_array(array) and _is_on_gpu(grad):
        with beside(array):
            return loaded_cupy().from_dlpack(grad)
    for each in grad if isinstance(grad, list | tuple) else ():
        refuse_masked(f"a part of the gradient of {label}", each)
    return np.asarray(grad)


def check_place(grad: Any, array: Array, label: str) -> None:
    """Raise TypeError unless the gradient is of the parameter's library, and beside it."""
    if not is_array(grad):
        kind = "cupy.ndarray" if is_gpu_array(array) else "numpy.ndarray"
        raise TypeError(f"the gradient of {label} must be a {kind} or None, not {type_name(grad)}")
    refuse_masked(f"the gradient of {label}", grad)
    if device_of(grad) != device_of(array):
        here, there = device_holding(array), device_holding(grad)
        move = "cupy.asarray(grad)" if is_gpu_array(array) else "cupy.asnumpy(grad)"
        raise TypeError(
            f"the gradient of {label} is on {there.name}, the parameter on {here.name}; "
            f"move one of them, as with {move}"
        )


def check_shape(grad: Array, array: Array, label: str) -> None:
    """Raise ValueError unless the gradient has the parameter's shape."""
    if grad.shape != array.shape:
        raise ValueError(
            f"the gradient of {label} has shape {grad.shape}, the parameter {array.shape}"
        )


def filled_like(array: Array, value: float | None) -> Array | None:
    """Return a gradient filled with a value, None for none.

    An integer array, which cannot hold NaN, has none.
    """
    if value is None or not np.issubdtype(array.dtype, np.inexact):
        return None
    filled: Array = empty_like(array)
    filled.fill(value)
    return filled


def _is_on_gpu(x: Any) -> bool:
    """Tell whether something says by DLPack that it is in a GPU's memory."""
    where = getattr(x, "__dlpack_device__", None)
    # 2 is CUDA's number, 13 that of memory that CUDA manages
    return where is not None and int(where()[0]) in (2, 13)


def unscaled(grad: Array, scale: float | None) -> Array:
    """Return the true gradient, in the computing dtype, of one multiplied by a loss scale."""
    wide = grad.astype(computing_dtype(grad.dtype) or grad.dtype, copy=False)
    unscaled: Array = wide if scale is None else wide / wide.dtype.type(scale)
    return unscaled
