"""What hooks do to gradients: many of them in one call of the loops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fastadam.kernels.backend import is_gpu_array
from fastadam.kernels.cpu import _tensors, engine
from fastadam.kernels.dtypes import bfloat16_number, computing_dtype
from fastadam.kernels.gpu.arrays import change_on_gpu
from fastadam.kernels.ops import ADD, ADD_SIGN, CLIP, MULTIPLY, OP
from fastadam.kernels.table import N_COEFFICIENTS, TENSOR

__all__ = ["ADD", "ADD_SIGN", "CLIP", "MULTIPLY", "change_gradients"]

Array = npt.NDArray[Any]


def change_gradients(
    change: int,
    pairs: Sequence[tuple[Array, Array]],
    numbers: Sequence[tuple[float, float]],
    rates: Any = None,
) -> list[int]:
    """Change gradients in place, on all threads, or on GPUs.

    On a CPU it is a program of one operation for each, without a step.

    Parameters
    ----------
    change : int
        ADD, ADD_SIGN, CLIP or MULTIPLY.
    pairs : sequence of (numpy.ndarray, numpy.ndarray)
        Parameter and gradient, of one shape. A half-precision gradient is widened to float32,
        changed, and rounded; so is, for this, a half-precision parameter.
    numbers : sequence of (float, float)
        ``a`` and ``b`` for each pair, rounded once to the type of the computation.
    rates : cupy.ndarray of float64, optional
        The numbers ``b``, on the GPU where all pairs are: one for each, or one for all.

    Returns
    -------
    list of int
        Which pairs were left as they are: of other types, of layouts that differ, strided,
        misaligned or read-only.
    """
    groups: dict[np.dtype[Any], list[int]] = {}
    left = []
    on_gpu = [i for i, (_, g) in enumerate(pairs) if is_gpu_array(g)]
    if on_gpu:
        theirs = [pairs[i] for i in on_gpu], [numbers[i] for i in on_gpu]
        left = [on_gpu[i] for i in change_on_gpu(change, *theirs, rates)]
    for i, (_, g) in enumerate(pairs):
        if is_gpu_array(g):
            continue
        dtype = computing_dtype(g.dtype)
        if dtype is None:
            left.append(i)
        else:
            groups.setdefault(dtype, []).append(i)
    for computing, indices in groups.items():
        table = np.zeros(len(indices), TENSOR)
        own = [pairs[i] for i in indices]
        left += [indices[i] for i in _tensors.describe_gradients(own, table, bfloat16_number())]
        ops = np.empty(len(indices), OP)
        ops["kind"] = change
        ops["a"], ops["b"] = np.array([numbers[i] for i in indices], np.float64).T
        table["first_op"], table["n_ops"] = range(len(indices)), 1
        # the loops take their type from scalars, of which no step needs any
        engine.run(table, np.zeros((1, N_COEFFICIENTS), computing), ops)
    return left
