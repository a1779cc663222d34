"""Float32 masters of half-precision parameters: how they follow, and how they are rounded."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastadam.kernels.arrays import is_writeable
from fastadam.kernels.backend import beside, device_of, move
from fastadam.model.parameter import Parameter

__all__ = ["follow", "followed", "new_master", "round_to"]

Array = npt.NDArray[Any]


def new_master(array: Array, param: Any) -> Any:
    """Return a parameter of an array, of the library that the half-precision parameter is of.

    Chainer's rules and hooks want Chainer's parameters.
    """
    ours = param is None or isinstance(param, Parameter)
    kind = Parameter if ours else type(param)
    return kind(array, name=getattr(param, "name", None))


def follow(master: Any, param: Any) -> Any:
    """Return a master that is up to date with its half-precision parameter; change none.

    An element of the parameter that is not its master's, rounded, has been written from outside
    (loaded, copied, assigned) and goes over to the master; the others keep the digits that the
    parameter cannot hold.

    Parameters
    ----------
    master : Parameter or None
        The master so far; another is returned if there is none, or it is not up to date.
    param : Parameter
        The parameter: float16 or bfloat16.
    """
    half = param.array
    if not is_writeable(half):
        raise ValueError(
            f"parameter {param.name!r}: its array is read-only and cannot be updated in place; "
            "give the optimizer a writable copy"
        )
    with beside(half):
        if master is None or master.array is None or master.array.shape != half.shape:
            return new_master(half.astype(np.float32), param)
        array = move(master.array, device_of(half))
        array, changed = followed(array, half)
        return new_master(array, param) if changed or array is not master.array else master


def followed(array: Array, half: Array) -> tuple[Array, bool]:
    """Return a master with the elements of its parameter that were written since, and if any were.

    It is the master itself if none were.

    Parameters
    ----------
    array, half : array
        The master and its parameter: of one shape, and on one device.
    """
    written = _bits(_rounded(array, half)) != _bits(half)
    if not written.any():
        return array, False
    array = array.copy()
    array[written] = half[written]
    return array, True


def round_to(param: Any, master: Any) -> None:
    """Write a master, rounded, to its parameter's array, and drop the master's gradient."""
    with beside(param.array):
        param.array[...] = _rounded(master.array, param.array)
    master.cleargrad()


def _rounded(master: Array | None, half: Array) -> Array:
    """Return a master in the dtype of its parameter."""
    assert master is not None
    with np.errstate(over="ignore"):
        rounded: Array = master.astype(half.dtype)
    return rounded


def _bits(array: Array) -> npt.NDArray[np.uint16]:
    """Return the patterns, since NaN is not equal to itself."""
    bits: npt.NDArray[np.uint16] = array.view(np.uint16)
    return bits
