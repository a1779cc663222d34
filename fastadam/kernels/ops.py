"""What is done to gradients before a step: programs of operations, as the loops take them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["ADD", "ADD_SIGN", "CLIP", "DIVIDE", "MULTIPLY", "OP", "ROUND", "Op"]

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
