"""What the arrays of a step must be, on the CPU and on a GPU, and where they lie."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastadam.kernels.backend import address, device_of, is_array, is_gpu_array, shares_memory
from fastadam.kernels.coefficients import Coefficients
from fastadam.kernels.dtypes import computing_dtype, is_floating, type_name

__all__ = ["check_arrays", "check_scalars", "extent", "is_writeable"]

Array = npt.NDArray[Any]

# The scalars that must be finite where they are computed with, and what they are made of.
_FINITE = {
    "alpha_t": "alpha",
    "eps": "eps",
    "eta": "eta",
    "one_minus_decay": "weight_decay_rate",
    "lower": "final_lr",
}


def check_arrays(name: str, p: Any, g: Any, m: Any, v: Any, vhat: Any, amsgrad: bool) -> None:
    """Refuse arrays that no kernel can step, naming the parameter, the reason and the remedy.

    Raises
    ------
    TypeError
        If an array is neither NumPy's nor CuPy's, is not where its parameter is, or has a dtype
        that cannot be stepped.
    ValueError
        If shapes differ, an array to write is read-only or overlaps itself, two of the arrays
        overlap, or AMSGrad has no ``vhat``.
    """
    where = f"parameter {name!r}"
    if not is_array(p):
        raise TypeError(f"{where} must be a cupy.ndarray or numpy.ndarray, not {type_name(p)}")
    if not p.dtype.isnative:
        raise TypeError(
            f"{where} has byte-swapped dtype {p.dtype.str!r}; convert it to the native byte "
            f"order, as with astype({p.dtype.newbyteorder('=').str!r})"
        )
    computing = computing_dtype(p.dtype)
    if computing is None:
        raise TypeError(
            f"{where} has dtype {p.dtype}; there are steps for float16, bfloat16, float32 and "
            "float64: convert the array, as with astype(numpy.float32)"
        )
    if amsgrad and vhat is None:
        raise ValueError(f"{where}: AMSGrad needs the array vhat, and it is None")
    _check_library(f"{where}: its gradient", g, p)
    if not is_floating(g.dtype):
        raise TypeError(f"{where}: its gradient has dtype {g.dtype}; it must be real floating")
    if g.shape != p.shape:
        raise ValueError(f"{where} has shape {p.shape}, but its gradient has shape {g.shape}")
    written = {"m": m, "v": v} if vhat is None else {"m": m, "v": v, "vhat": vhat}
    for key, array in written.items():
        _check_library(f"{where}: its state {key}", array, p)
        if array.dtype != computing:
            raise TypeError(
                f"{where} has dtype {p.dtype}, whose state is {computing}, but its state {key} "
                f"has {array.dtype}; after a change of dtype, set the optimizer up again"
            )
        if array.shape != p.shape:
            raise ValueError(
                f"{where} has shape {p.shape}, but its state {key} has {array.shape}; "
                "after a change of shape, set the optimizer up again"
            )
    arrays = {"array": p, **written}
    for key, array in arrays.items():
        if not is_writeable(array):
            raise ValueError(
                f"{where}: its {key} is read-only and cannot be updated in place; "
                "give the optimizer a writable copy"
            )
        if _overlaps_itself(array):
            raise ValueError(
                f"{where}: elements of its {key} share memory (strides {array.strides} for shape "
                f"{array.shape}); give the optimizer a copy"
            )
    keys = list(arrays)
    for i, first in enumerate(keys):
        for second in keys[i + 1 :]:
            if shares_memory(arrays[first], arrays[second]):
                raise ValueError(f"{where}: its {first} and its {second} share memory")


def check_scalars(name: str, scalars: Coefficients, computing: np.dtype[Any]) -> None:
    """Refuse scalars that the kernels would take as others: an eps of 0, infinite ones.

    Raises
    ------
    ValueError
        With the hyperparameter, and for eps the least that is good.
    """
    eps = scalars.eps
    with np.errstate(over="ignore", under="ignore"):
        rounded = {key: float(computing.type(getattr(scalars, key))) for key in _FINITE}
    smallest = np.finfo(np.float32).tiny if computing == np.float32 else 0
    if eps != 0 and (rounded["eps"] == 0 or abs(rounded["eps"]) < smallest):
        raise ValueError(
            f"parameter {name!r}: eps = {eps} is too small for {computing}, "
            f"where it would act as 0; use at least {np.finfo(computing).tiny}"
        )
    for key, hyperparameter in _FINITE.items():
        if rounded[key] in (np.inf, -np.inf):
            raise ValueError(
                f"parameter {name!r}: {hyperparameter} is too large for {computing}, where {key} = "
                f"{getattr(scalars, key)} would be infinite"
            )


def is_writeable(array: Any) -> bool:
    """Tell whether an array may be written; all of CuPy's may."""
    return is_gpu_array(array) or bool(array.flags.writeable)


def extent(array: Array) -> tuple[int, int]:
    """First byte and last byte plus one of an array in any layout."""
    if array.size == 0:
        return 0, 0
    low = high = address(array)
    for stride, n in zip(array.strides, array.shape, strict=True):
        if stride < 0:
            low += stride * (n - 1)
        else:
            high += stride * (n - 1)
    return low, high + array.itemsize


def _check_library(what: str, array: Any, p: Any) -> None:
    """Refuse an array that is not of the library, and on the device, of its parameter."""
    gpu = is_gpu_array(p)
    kind = "cupy.ndarray" if gpu else "numpy.ndarray"
    if not is_array(array):
        raise TypeError(f"{what} must be a {kind}, not {type_name(array)}")
    if is_gpu_array(array) != gpu:
        move = "cupy.asarray(x)" if gpu else "cupy.asnumpy(x)"
        raise TypeError(
            f"{what} must be a {kind}, not {type_name(array)}: it belongs where the parameter is; "
            f"move it with {move}"
        )
    if device_of(array) != device_of(p):
        raise TypeError(
            f"{what} is on GPU {device_of(array)}, and the parameter on GPU {device_of(p)}: move it"
        )


def _overlaps_itself(array: Array) -> bool:
    """Whether two indices may reach one element: an axis fails to step over the smaller ones."""
    if array.size == 0:
        return False
    reach = array.itemsize
    for stride, n in sorted(
        (abs(stride), n) for stride, n in zip(array.strides, array.shape, strict=True) if n > 1
    ):
        if stride < reach:
            return True
        reach += stride * (n - 1)
    return False
