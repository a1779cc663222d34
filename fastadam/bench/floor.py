"""The memory floor: what the reads and writes of a step cost by themselves."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastadam.algorithms.adam import ADAM, Coefficients
from fastadam.bench import arrays
from fastadam.bench.arrays import Array
from fastadam.bench.cases import Case
from fastadam.bench.settings import Variant
from fastadam.kernels.cpu import _floor, _tensors, _threads
from fastadam.kernels.dtypes import bfloat16_number, computing_dtype, state_like
from fastadam.kernels.table import TENSOR, Step

__all__ = ["Floor", "bytes_moved"]

# A table is described together with scalars, which the floor does not read.
_NO_COEFFICIENTS = Coefficients(0.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0, False, False)


class Floor:
    """Passes over the arrays of a step that read and write what the step reads and writes.

    The table, the cut over threads and the number of threads are those of fastadam's kernels.
    Gradients are read only; a dtype of None is each tensor's own.
    """

    def __init__(self, case: Case, dtype: str | None, variant: Variant, grads: list[Array]) -> None:
        self._tables: list[tuple[Any, Any, int]] = []
        self.arrays: list[list[Array]] = []
        groups: dict[Any, list[Step]] = {}
        params = arrays.parameters(case, dtype)
        for tensor, p, g in zip(case.tensors, params, grads, strict=True):
            state = {key: state_like(p) for key in ADAM.needed(variant)}
            self.arrays.append([p, g, *state.values()])
            step = Step(tensor.name, p, g, tuple(map(state.get, ADAM.state)), _NO_COEFFICIENTS)
            groups.setdefault(computing_dtype(p.dtype), []).append(step)
            for array in state.values():
                array.fill(1)  # pages of zeros that nobody has written share one page
        for computing, steps in groups.items():
            table = np.empty(len(steps), TENSOR)
            others, odd = _tensors.describe(steps, table, bfloat16_number())
            assert not others, "all arrays are dense"
            assert not odd, "all gradients have a loop"
            table["row"] = 0
            table["amsgrad"] = variant.amsgrad
            table["adabound"] = False
            loop = _floor.floor_float32 if computing == np.float32 else _floor.floor_float64
            self._tables.append((loop, table, int(table["start"][-1] + table["n"][-1])))

    def step(self) -> None:
        """Pass over all arrays once."""
        for loop, table, total in self._tables:
            loop(table, _threads.n_threads(total))


def bytes_moved(case: Case, dtype: str | None, variant: Variant) -> int:
    """Return how many bytes one step reads and writes: 28 for an element of float32 Adam.

    Examples
    --------
    >>> from fastadam.bench.cases import one
    >>> from fastadam.bench.settings import VARIANTS
    >>> [bytes_moved(one(1, 'one'), 'float32', VARIANTS[name]) for name in ('adam', 'amsgrad')]
    [28, 36]
    """
    stored, state = arrays.state_bytes(case, dtype, variant)
    return 2 * stored + arrays.gradient_bytes(case, dtype) + 2 * state
