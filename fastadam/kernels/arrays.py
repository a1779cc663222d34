"""What the arrays of a step must be, on the CPU and on a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fastadam.algorithms.adam import ADAM, Coefficients
from fastadam.kernels.backend import device_of, is_array, is_gpu_array
from fastadam.kernels.dtypes import computing_dtype, is_floating, type_name
from fastadam.kernels.memory import first_sharing

__all__ = [
    "check_apart",
    "check_arrays",
    "check_parameter",
    "check_scalars",
    "is_writeable",
    "overlaps_itself",
    "refuse_masked",
]

Array = npt.NDArray[Any]


# What to do about a state that does not fit.
_ANEW = "after a change of {what}, set the optimizer up again"


def check_arrays(
    name: str,
    p: Any,
    g: Any,
    state: Sequence[Any],
    flags: Any = None,
    remedy: str = _ANEW,
) -> None:
    """Refuse arrays that no kernel can step, naming the parameter, the reason and the remedy.

    `state` is in the order of the algorithm's streams; None is one that is not there, and an error
    if `flags`, scalars of a step, ask for it. What to do about a state of another shape or dtype,
    ``{what}``, is the caller's to say.

    Raises
    ------
    TypeError
        If an array is neither NumPy's nor CuPy's, is not where its parameter is, or has a dtype
        that cannot be stepped.
    ValueError
        If shapes differ, an array to write is read-only or overlaps itself, two of the arrays
        overlap, or one is missing that a flag asks for.
    """
    check_parameter(name, p)
    where = f"parameter {name!r}"
    computing = computing_dtype(p.dtype)
    assert computing is not None
    written: dict[str, Any] = {}
    for stream, array in zip(ADAM.streams, state, strict=True):
        if array is not None or stream.when is None:
            written[stream.name] = array
        elif flags is not None and getattr(flags, stream.when):
            raise ValueError(
                f"{where}: {stream.when} needs the array {stream.name}, and it is None"
            )
    _check_library(f"{where}: its gradient", g, p)
    if not is_floating(g.dtype):
        raise TypeError(f"{where}: its gradient has dtype {g.dtype}; it must be real floating")
    if g.shape != p.shape:
        raise ValueError(f"{where} has shape {p.shape}, but its gradient has shape {g.shape}")
    for key, array in written.items():
        _check_library(f"{where}: its state {key}", array, p)
        if array.dtype != computing:
            raise TypeError(
                f"{where} has dtype {p.dtype}, whose state is {computing}, but its state {key} "
                f"has {array.dtype}; {remedy.format(what='dtype')}"
            )
        if array.shape != p.shape:
            raise ValueError(
                f"{where} has shape {p.shape}, but its state {key} has {array.shape}; "
                f"{remedy.format(what='shape')}"
            )
    for key, array in written.items():
        _check_written(f"{where}: its {key}", f"{where}: elements of its {key}", array)
    check_apart([(name, key, array) for key, array in {"array": p, **written}.items()])


def check_parameter(name: str, p: Any) -> None:
    """Refuse a parameter that no kernel can step, naming it, the reason and the remedy.

    Raises
    ------
    TypeError
        If it is no array of NumPy's or CuPy's, is masked, byte-swapped, or of a dtype that cannot
        be stepped.
    ValueError
        If it is read-only, or overlaps itself.
    """
    where = f"parameter {name!r}"
    if not is_array(p):
        raise TypeError(f"{where} must be a cupy.ndarray or numpy.ndarray, not {type_name(p)}")
    refuse_masked(where, p)
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
    _check_written(f"{where}: its array", f"{where}: elements of its array", p)


def _check_written(what: str, elements: str, array: Any) -> None:
    """Refuse an array that cannot be written element by element."""
    if not is_writeable(array):
        raise ValueError(
            f"{what} is read-only and cannot be updated in place; give the optimizer a writable "
            "copy"
        )
    if overlaps_itself(array):
        raise ValueError(
            f"{elements} share memory (strides {array.strides} for shape {array.shape}); give the "
            "optimizer a copy"
        )


def refuse_masked(what: str, array: Any) -> None:
    """Refuse a masked array, behind whose mask anything may be.

    Raises
    ------
    TypeError
        With the way to make a plain one.
    """
    if isinstance(array, np.ma.MaskedArray):
        raise TypeError(
            f"{what} is a masked array, and what is behind its mask would be used; give a plain "
            "one, as with x.filled(0)"
        )


def check_apart(written: Sequence[tuple[str, str, Any]]) -> None:
    """Refuse arrays that one step writes and that share memory, unless all are parameters.

    Parameters
    ----------
    written : sequence of (str, str, array)
        The name of the parameter, what of it the array is, and the array; "array" is the
        parameter itself, and steps on parameters that share memory are made one after the other.

    Raises
    ------
    ValueError
        If two of them share memory.
    """
    parameters = [key == "array" for _, key, _ in written]
    found = first_sharing([array for _, _, array in written], parameters)
    if found is None:
        return
    j, i = found
    (other_name, other_key, _), (name, key, _) = written[j], written[i]
    if name == other_name:
        first, second = (other_key, key) if j < i else (key, other_key)
        raise ValueError(f"parameter {name!r}: its {first} and its {second} share memory")
    raise ValueError(
        f"parameter {name!r}: its {key} and the {other_key} of parameter {other_name!r} "
        "share memory; give one of them a copy"
    )


def check_scalars(name: str, scalars: Coefficients, computing: np.dtype[Any]) -> None:
    """Refuse scalars that the kernels would take as others: an eps of 0, infinite ones.

    Raises
    ------
    ValueError
        With the hyperparameter, and for eps the least that is good.
    """
    eps = scalars.eps
    with np.errstate(over="ignore", under="ignore"):
        rounded = {key: float(computing.type(getattr(scalars, key))) for key, _ in ADAM.finite}
    smallest = np.finfo(np.float32).tiny if computing == np.float32 else 0
    if eps != 0 and (rounded["eps"] == 0 or abs(rounded["eps"]) < smallest):
        raise ValueError(
            f"parameter {name!r}: eps = {eps} is too small for {computing}, "
            f"where it would act as 0; use at least {np.finfo(computing).tiny}"
        )
    for key, hyperparameter in ADAM.finite:
        if rounded[key] in (np.inf, -np.inf):
            raise ValueError(
                f"parameter {name!r}: {hyperparameter} is too large for {computing}, where {key} = "
                f"{getattr(scalars, key)} would be infinite"
            )


def is_writeable(array: Any) -> bool:
    """Tell whether an array may be written; all of CuPy's may."""
    return is_gpu_array(array) or bool(array.flags.writeable)


def _check_library(what: str, array: Any, p: Any) -> None:
    """Refuse an array that is not of the library, and on the device, of its parameter."""
    gpu = is_gpu_array(p)
    kind = "cupy.ndarray" if gpu else "numpy.ndarray"
    if not is_array(array):
        raise TypeError(f"{what} must be a {kind}, not {type_name(array)}")
    refuse_masked(what, array)
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


def overlaps_itself(array: Array) -> bool:
    """Tell whether two indices may reach one element: an axis fails to step over smaller ones."""
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
