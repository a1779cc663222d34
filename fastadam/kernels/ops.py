"""What is done to gradients before a step: programs of operations, as the loops take them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

__all__ = ["ADD", "ADD_SIGN", "CLIP", "DIVIDE", "MULTIPLY", "OP", "ROUND", "Op", "unscaling"]

# What an operation does, as _tensors.pxd lists it: g = g / a, g = (g + a * p) * b,
# g = g + a * sign(p), g = clip(g, a, b), g = g * b, and g rounded to the half type that it is
# stored in. The hooks' kernel on GPUs knows the middle four by the same numbers.
DIVIDE, ADD, ADD_SIGN, CLIP, MULTIPLY, ROUND = range(6)

# One row of the table of operations, as _tensors.pxd spells it in C.
OP = np.dtype([("kind", np.intp), ("a", np.float64), ("b", np.float64)])


class Op(NamedTuple):
    """One operation on a gradient: its kind and its numbers, of which it may use none.

    They are rounded once to the type of the computation. A division, whose ``a`` is not 0, flushes
    subnormal float32 before and after, as the step does; nothing else flushes.
    """

    kind: int
    a: float = 0.0
    b: float = 1.0


def unscaling(
    scales: Sequence[float | None] | None, rate: float
) -> tuple[list[list[Op]], int | list[int]]:
    """Return the programs that divide by scales and multiply with a rate, and which is whose.

    Parameters
    ----------
    scales : sequence of float, optional
        What each gradient is divided by; None, or 0, is nothing.
    rate : float
        What all are multiplied with.

    Returns
    -------
    programs : list of list of Op
        One for each scale that there is.
    which : int or list of int
        The one program, or the number of each gradient's.
    """
    product = [] if rate == 1 else [Op(MULTIPLY, b=rate)]
    if scales is None:
        return [product], 0
    each = dict.fromkeys(scales)
    programs = [[Op(DIVIDE, scale), *product] if scale else product for scale in each]
    if len(programs) == 1:
        # nearly always
        return programs, 0
    numbers = {scale: number for number, scale in enumerate(each)}
    return programs, [numbers[scale] for scale in scales]
