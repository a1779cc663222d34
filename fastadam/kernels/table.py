"""The descriptor table: which arrays a call of the loops steps, checked and laid end to end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastadam.algorithms.adam import ADAM, Coefficients
from fastadam.kernels._source import Source
from fastadam.kernels.arrays import check_arrays, check_scalars
from fastadam.kernels.cpu import _tensors, engine
from fastadam.kernels.cpu._rows import Rows
from fastadam.kernels.cpu.converting import dense_gradient
from fastadam.kernels.cpu.gradient_table import GradientTable
from fastadam.kernels.dtypes import bfloat16_number, computing_dtype
from fastadam.kernels.ops import DIVIDE, OP, Op

__all__ = [
    "N_COEFFICIENTS",
    "TENSOR",
    "Step",
    "Table",
]

Array = npt.NDArray[Any]


# Numbers in a row of scalars.
N_COEFFICIENTS = len(ADAM.scalars)

# One row of the descriptor table, as _tensors.pxd spells it in C.
TENSOR = np.dtype(
    [
        *((name, np.uintp) for name in ("p", "g", *ADAM.state)),
        *((name, np.intp) for name in ("n", "start", "row", *ADAM.flags)),
        *((name, np.intp) for name in ("p_type", "g_type", "first_op", "n_ops", "step")),
        *((name, np.uintp) for name in ("out", "half")),
        ("half_type", np.intp),
        ("walk", np.uintp),
    ]
)


class Step(NamedTuple):
    """What one step of one parameter reads and writes; ``name`` is for messages.

    ``state`` is in the order of the algorithm's streams, None for one that is not there.
    """

    name: str
    p: Array
    # None where there is none, and so no step but a count
    g: Any
    state: tuple[Array | None, ...]
    coefficients: Coefficients

    def named(self) -> dict[str, Array]:
        """Return the arrays that are there, by their names."""
        return {"p": self.p, "g": self.g, **_there(zip(ADAM.state, self.state, strict=True))}

    def stepped(self) -> dict[str, Array]:
        """Return the state that the step reads and writes, by name."""
        needed = ADAM.needed(self.coefficients)
        pairs = zip(ADAM.state, self.state, strict=True)
        return _there((key, array) for key, array in pairs if key in needed)


def _there(pairs: Iterable[tuple[str, Array | None]]) -> dict[str, Array]:
    """Return the arrays that are not None."""
    return {key: array for key, array in pairs if array is not None}


class Table:
    """The checked descriptor table of steps that are computed in one dtype.

    `indices` are where its steps are in the whole batch; `numbers` say which of the batch's sets of
    coefficients is which, by their ids.
    """

    def __init__(
        self, steps: list[Step], indices: list[int], numbers: dict[int, int], source: Source
    ) -> None:
        self.indices = indices
        # where there is no gradient, the parameter stands in for it
        steps = [step if step.g is not None else step._replace(g=step.p) for step in steps]
        self.table = np.empty(len(steps), TENSOR)
        self.strided, odd = _tensors.describe(steps, self.table, bfloat16_number())
        for i in (*self.strided, *odd):
            check_arrays(*steps[i])
        computing = computing_dtype(steps[0].p.dtype)
        assert computing is not None
        self.computing = computing
        first = {id(step.coefficients): step for step in reversed(steps)}
        rows = {key: row for row, key in enumerate(first)}
        sets = [numbers[key] for key in first]
        self.coefficients = np.empty((source.regroups or len(first), N_COEFFICIENTS), computing)
        for step in first.values():
            check_scalars(step.name, step.coefficients, computing)
        self.table["row"] = [rows[id(step.coefficients)] for step in steps]
        for flag in ADAM.flags:
            self.table[flag] = [getattr(step.coefficients, flag) for step in steps]
        self.ops = np.empty(0, OP)
        # how many operations each program has, and which program is whose
        self._shape: tuple[list[int], int | Sequence[int]] | None = None
        self._written = False
        self._gradients: GradientTable | None = None
        self._without: list[int] = []
        self.rows = Rows(
            source,
            indices,
            self.table,
            self.coefficients,
            sets,
            engine.loop(computing),
            self.strided,
            bfloat16_number(),
        )
        self.rows.take_ops(self.ops)

    @property
    def total(self) -> int:
        """How many elements the loops step."""
        return self.rows.total

    def set_program(
        self,
        programs: Sequence[Sequence[Op]],
        which: int | Sequence[int],
        out: npt.NDArray[np.uintp] | None = None,
    ) -> None:
        """Say what is done to the gradients, as they are now, before the next step.

        Not for strided rows: see `MultiTensorStep.program`.

        Parameters
        ----------
        programs : sequence of sequence of Op
            Operations, each program in its order; ``[[]]`` for nothing. Where a parameter is a
            float32 master they see its half-precision parameter, as hooks do.
        which : int or sequence of int
            Which program is every row's, or each row's.
        out : numpy.ndarray of uintp, optional
            Where what a program leaves is written, stored as the row's gradient is and rounded for
            that; the column ``g`` for the gradients themselves. A program without operations
            writes nothing. By default the step alone sees it.
        """
        shape = list(map(len, programs)), which
        if shape != self._shape:
            # noted when all of it is made: whoever is interrupted on the way begins anew
            self._shape = None
            self.ops = np.zeros(sum(shape[0]), OP)
            ends = np.cumsum(shape[0])
            first = np.array(ends - shape[0])
            self.table["n_ops"] = 0
            self.rows.take_ops(self.ops)
            self.table["first_op"], self.table["n_ops"] = first[which], np.array(shape[0])[which]
            self._shape = shape
        self.rows.set_ops(programs)
        if out is not None or self._written:
            self._written = True
            self.table["out"] = 0 if out is None else out
            self._written = out is not None

    def rounds(self) -> list[bool]:
        """Tell whose gradients are stored in half precision, as their parameters are."""
        table = self.table
        if self.computing != np.float32 or not table["g_type"].any():
            return [False] * len(table)
        stored = np.where(table["half"] != 0, table["half_type"], table["p_type"])
        found: list[bool] = ((table["g_type"] != 0) & (table["g_type"] == stored)).tolist()
        return found

    def can_write(self, programs: Sequence[Sequence[Op]], which: int | Sequence[int]) -> bool:
        """Tell whether what programs leave may be written in the place of the gradients.

        Not if two gradients share memory, nor if a half-precision one is divided: its quotient
        is in the computing dtype.
        """
        divide = np.array([any(op.kind == DIVIDE for op in program) for program in programs])
        half = self.table["g_type"] != 0
        return not np.any(divide[which] & half) and bool(self.rows.may_write())

    def sums_of_squares(self, scales: Sequence[float] | None, most: int | None) -> list[float]:
        """Return the sum of squares of every gradient, divided by its scale; 0 is no scale.

        `most` is how many threads the owner of the arrays allows.
        """
        gradients = self._gradient_table()
        gradients.take(scales)
        return gradients.sums_of_squares(most)

    def sums_of_squares_after(self, n: int | Sequence[int], most: int | None) -> list[float]:
        """Return the sum of squares of every gradient after the first operations of its program.

        Nothing is written. The bits are those of the sums over arrays that the operations had been
        applied to; half-precision ones only if the last of them is ROUND.

        Parameters
        ----------
        n : int or sequence of int
            How many operations, of every row or of each; a program may have fewer.
        most : int or None
            How many threads the owner of the arrays allows.
        """
        gradients = self._gradient_table()
        counts = [n] * len(self.table) if isinstance(n, int) else n
        gradients.take_ops(self.ops, counts)
        return gradients.sums_of_squares(most)

    def _gradient_table(self) -> GradientTable:
        """Return the table of the gradients, made anew where others are there than last time.

        Those that lie apart are brought together in copies, for the sums and for the step.
        """
        self.rows.gather(dense_gradient)
        if self._gradients is None or self.rows.without != self._without:
            sizes = self.table["n"].tolist()
            self._gradients = GradientTable(sizes, self.coefficients.dtype, self.table)
            self._without = self.rows.without
        return self._gradients
