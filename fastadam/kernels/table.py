"""The descriptor table: which arrays a call of the loops steps, checked and laid end to end."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastadam.algorithms.adam import ADAM, Coefficients
from fastadam.kernels._source import Source
from fastadam.kernels.arrays import check_arrays, check_scalars
from fastadam.kernels.cpu import _tensors, engine, strided
from fastadam.kernels.cpu._rows import Rows
from fastadam.kernels.cpu.gradient_table import GradientTable
from fastadam.kernels.dtypes import bfloat16_number, computing_dtype

__all__ = [
    "AS_IT_IS",
    "N_COEFFICIENTS",
    "PREPARED",
    "TENSOR",
    "WRITTEN",
    "Step",
    "Table",
]

Array = npt.NDArray[Any]

# What is done to a gradient before its step, as _tensors.pxd says.
AS_IT_IS, PREPARED, WRITTEN = range(3)

# Numbers in a row of scalars.
N_COEFFICIENTS = len(ADAM.scalars)

# One row of the descriptor table, as _tensors.pxd spells it in C.
TENSOR = np.dtype(
    [
        *((name, np.uintp) for name in ("p", "g", *ADAM.state)),
        *((name, np.intp) for name in ("n", "start", "row", *ADAM.flags)),
        *((name, np.intp) for name in ("p_type", "g_type", "prepare")),
        *((name, np.float64) for name in ("scale", "rate")),
        ("half", np.uintp),
        ("half_type", np.intp),
        ("change", np.intp),
    ]
)


# The flags of a row, for `describe`.
_Flags = namedtuple("_Flags", ADAM.flags)


class Step(NamedTuple):
    """What one step of one parameter reads and writes; ``name`` is for messages.

    ``state`` is in the order of the algorithm's streams, None for one that is not there.
    """

    name: str
    p: Array
    g: Array
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

    `places` are where its steps are in the whole batch; `numbers` say which of the batch's sets of
    coefficients is which, by their ids.
    """

    def __init__(
        self, steps: list[Step], places: list[int], numbers: dict[int, int], source: Source
    ) -> None:
        self.places = places
        # where there is no gradient, the parameter stands in for it
        steps = [step if step.g is not None else step._replace(g=step.p) for step in steps]
        self.table = np.empty(len(steps), TENSOR)
        self.others, odd = _tensors.describe(steps, self.table, bfloat16_number())
        for i in (*self.others, *odd):
            check_arrays(*steps[i])
        computing = computing_dtype(steps[0].p.dtype)
        assert computing is not None
        self.computing = computing
        first = {id(step.coefficients): step for step in reversed(steps)}
        rows = {key: row for row, key in enumerate(first)}
        sets = [numbers[key] for key in first]
        self.coefficients = np.empty((len(first), N_COEFFICIENTS), computing)
        for step in first.values():
            check_scalars(step.name, step.coefficients, computing)
        self.table["row"] = [rows[id(step.coefficients)] for step in steps]
        for flag in ADAM.flags:
            self.table[flag] = [getattr(step.coefficients, flag) for step in steps]
        self._gradients: GradientTable | None = None
        self.rows = Rows(
            source,
            places,
            self.table,
            self.coefficients,
            sets,
            engine.loop(computing),
            self.others,
            bfloat16_number(),
        )

    @property
    def total(self) -> int:
        """How many elements the loops step."""
        return self.rows.total

    def prepare(
        self, divisors: float | Sequence[float], rate: float, write: bool, plain: bool
    ) -> None:
        """Say what the next steps do to the gradients: nothing, if `plain`."""
        self.table["prepare"] = AS_IT_IS if plain else WRITTEN if write else PREPARED
        self.table["scale"] = divisors
        self.table["rate"] = rate

    def squares(self, scales: Sequence[float] | None) -> list[float]:
        """Return the sum of squares of every gradient, divided by its scale; 0 is no scale."""
        if self._gradients is None:
            sizes = self.table["n"].tolist()
            self._gradients = GradientTable(sizes, self.coefficients.dtype, self.table)
        self._gradients.take(scales)
        return self._gradients.squares()

    def can_prepare(self, scales: Sequence[float | None] | None, rate: float, write: bool) -> bool:
        """Tell whether the gradients may be divided, multiplied and written on the way."""
        half = self.table["g_type"] != 0
        if not half.any():
            return not write or self.rows.may_write()
        # a quotient is in the computing dtype, but a product in the gradient's own
        divided = scales is not None and not np.any([s is None for s in scales] & half)
        return not write and (divided or rate == 1)

    def run_strided(self) -> None:
        """Step the arrays that share no dense layout, chunk by chunk."""
        for i in self.others:
            p, g, _, state = self.rows.arrays(i)
            if g is not None:
                self._run_strided(i, p, g, state)

    def _run_strided(self, i: int, p: Array, g: Array, state: Sequence[Array | None]) -> None:
        """Step the arrays of one row through dense chunks."""
        there = {k: array for k, array in enumerate(state) if array is not None}
        row = self.table[i : i + 1].copy()
        flags = _Flags(*(bool(row[flag][0]) for flag in ADAM.flags))
        with strided.chunks(p, g, *there.values()) as iterator:
            for p_part, g_part, *parts in iterator:
                found = dict(zip(there, parts, strict=True))
                own = tuple([found.get(k) for k in range(len(state))])
                part = "", p_part, g_part, own, flags
                _tensors.describe([part], row, bfloat16_number())
                engine.run(row, self.coefficients)
