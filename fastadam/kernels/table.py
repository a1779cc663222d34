"""The descriptor table: which arrays a call of the loops steps, checked and laid end to end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastadam.algorithms.adam import ADAM, Coefficients
from fastadam.kernels.arrays import check_arrays, check_scalars, extent
from fastadam.kernels.cpu import _tensors, engine, strided
from fastadam.kernels.cpu.gradient_table import GradientTable
from fastadam.kernels.dtypes import bfloat16_number, computing_dtype
from fastadam.kernels.ops import DIVIDE, OP, Op

__all__ = [
    "N_COEFFICIENTS",
    "TENSOR",
    "Step",
    "Table",
    "overlap",
    "parameters_overlap",
    "spans",
    "untangle",
]

Array = npt.NDArray[Any]

# The columns with the arrays that a step writes.
WRITTEN_ARRAYS = ("p", *ADAM.state, "half")

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
    ]
)


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

    def __init__(self, steps: list[Step], places: list[int], numbers: dict[int, int]) -> None:
        self.steps = steps
        self.kept_alive: list[tuple[Array | None, ...]] = []
        self.places = places
        self.table = np.empty(len(steps), TENSOR)
        self.others = _tensors.describe(steps, self.table, bfloat16_number())
        for i in self.others:
            check_arrays(*steps[i])
        computing = computing_dtype(steps[0].p.dtype)
        assert computing is not None
        self.computing = computing
        first = {id(step.coefficients): step for step in reversed(steps)}
        rows = {key: row for row, key in enumerate(first)}
        self.sets = [numbers[key] for key in first]
        with np.errstate(over="ignore", under="ignore"):
            values = [step.coefficients[:N_COEFFICIENTS] for step in first.values()]
            self.coefficients = np.array(values, np.float64).astype(computing)
        for step in first.values():
            check_scalars(step.name, step.coefficients, computing)
        self.table["row"] = [rows[id(step.coefficients)] for step in steps]
        for flag in ADAM.flags:
            self.table[flag] = [getattr(step.coefficients, flag) for step in steps]
        self.ops = np.empty(0, OP)
        self._gradients: GradientTable | None = None
        self.rows: Any = None
        self.total = int(self.table["start"][-1] + self.table["n"][-1])

    def keep_masters(self, halves: Sequence[Array | None]) -> bool:
        """Note the half-precision arrays that parameters are the masters of, None for none.

        False if one cannot be walked beside its master.
        """
        return _tensors.keep_masters(self.steps, list(halves), self.table, bfloat16_number())

    def keep(
        self,
        halves: Sequence[Array | None],
        low: npt.NDArray[np.uintp],
        high: npt.NDArray[np.uintp],
    ) -> None:
        """Make ready for `follow`; all arrays but the gradients are kept alive."""
        # masters were rounded after this step, but are within the next: gradients are looked at
        # again, wherever they are
        self.table["g"] = 0
        self.rows = _tensors.Rows(
            self.table,
            self.coefficients,
            self.sets,
            engine.loop(self.coefficients.dtype),
            low,
            high,
            bfloat16_number(),
        )
        self.rows.take_ops(self.ops)
        self.kept_alive = [
            (step.p, *step.state, half) for step, half in zip(self.steps, halves, strict=True)
        ]
        self.steps = []

    def follow(
        self,
        params: list[Any],
        attribute: str,
        rules: list[Any],
        ts: list[int],
        gradients: list[Any],
        coefficients: list[Coefficients],
    ) -> bool:
        """Take over the gradients of another step, as `Batch.follow` says."""
        followed: bool = self.rows.follow(params, attribute, rules, ts, gradients, coefficients)
        return followed

    def set_program(
        self,
        programs: Sequence[Sequence[Op]],
        which: int | Sequence[int],
        out: npt.NDArray[np.uintp] | None = None,
    ) -> None:
        """Say what is done to the gradients, as they are now, before the next step.

        Strided rows, of a table that is not kept, have none of it done.

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
        ops: list[Op] = []
        rows: list[tuple[int, int]] = []
        for program in programs:
            rows.append((len(ops), len(program)))
            ops.extend(program)
        self.ops = np.array(ops, OP)
        if isinstance(which, int):
            self.table["first_op"], self.table["n_ops"] = rows[which]
        else:
            self.table["first_op"] = [rows[k][0] for k in which]
            self.table["n_ops"] = [rows[k][1] for k in which]
        self.table["out"] = 0 if out is None else out
        if self.rows is not None:
            self.rows.take_ops(self.ops)

    def can_write(self, programs: Sequence[Sequence[Op]], which: int | Sequence[int]) -> bool:
        """Tell whether what programs leave may be written in the place of the gradients.

        Not if two gradients share memory, nor if a half-precision one is divided: its quotient
        is in the computing dtype.
        """
        divide = np.array([any(op.kind == DIVIDE for op in program) for program in programs])
        return not np.any(divide[which] & (self.table["g_type"] != 0)) and self._separate()

    def can_prepare(self, scales: Sequence[float | None] | None, rate: float, write: bool) -> bool:
        """Tell whether the gradients may be divided, multiplied and written on the way."""
        half = self.table["g_type"] != 0
        if not half.any():
            return not write or self._separate()
        # a quotient is in the computing dtype, but a product in the gradient's own
        divided = scales is not None and not np.any([s is None for s in scales] & half)
        return not write and (divided or rate == 1)

    def squares(self, scales: Sequence[float] | None) -> list[float]:
        """Return the sum of squares of every gradient, divided by its scale; 0 is no scale."""
        gradients = self._gradient_table()
        gradients.take(scales)
        return gradients.squares()

    def squares_after(self, n: int | Sequence[int]) -> list[float]:
        """Return the sum of squares of every gradient after the first operations of its program.

        Nothing is written. The bits are those of the sums over arrays that the operations had been
        applied to; half-precision ones only if the last of them is ROUND.

        Parameters
        ----------
        n : int or sequence of int
            How many operations, of every row or of each; a program may have fewer.
        """
        gradients = self._gradient_table()
        counts = [n] * len(self.table) if isinstance(n, int) else n
        gradients.take_ops(self.ops, counts)
        return gradients.squares()

    def _gradient_table(self) -> GradientTable:
        """Return the table of the gradients, which is made once."""
        if self._gradients is None:
            sizes = self.table["n"].tolist()
            self._gradients = GradientTable(sizes, self.coefficients.dtype, self.table)
        return self._gradients

    def _separate(self) -> bool:
        """Tell whether no two gradients share memory."""
        low, high = self.extents("g")
        order = np.argsort(low)
        return bool(np.all(high[order][:-1] <= low[order][1:]))

    def extents(self, key: str) -> tuple[npt.NDArray[np.uintp], npt.NDArray[np.uintp]]:
        """First byte and last byte plus one of every array of one kind; 0 where there is none."""
        low = self.table[key].copy()
        if not low.any() and not self.others:
            return low, low
        itemsize: Any = self.coefficients.itemsize
        if key in ("p", "g", "half"):
            itemsize = np.where(self.table[f"{key}_type"] != 0, 2, itemsize)
        n = np.where(low != 0, self.table["n"], 0)
        low[n == 0] = 0
        high = low + (n * itemsize).astype(np.uintp)
        for i in self.others if key != "half" else ():
            array = self.steps[i].named().get(key)
            if array is not None:
                low[i], high[i] = extent(array)
        return low, high

    def copy_gradient(self, i: int) -> None:
        """Read the gradient of one row from a copy."""
        g = self.steps[i].g.copy(order="K")
        self.steps[i] = self.steps[i]._replace(g=g)
        self.table["g"][i] = g.ctypes.data

    def runs(self, serial: bool) -> list[Callable[[], None]]:
        """Step the dense rows in one call (where they overlap, in one each), then the others."""
        calls: list[Callable[[], None]] = []
        if serial:
            for one in np.flatnonzero(self.table["n"]):
                row = self.table[one : one + 1].copy()
                row["start"] = 0
                calls.append(engine.runner(row, self.coefficients, int(row["n"][0]), self.ops))
        else:
            calls.append(engine.runner(self.table, self.coefficients, self.total, self.ops))
        return calls + [partial(self._run_strided, i) for i in self.others]

    def _run_strided(self, i: int) -> None:
        """Step the arrays of one row through dense chunks."""
        step = self.steps[i]
        state = step.stepped()
        row = self.table[i : i + 1].copy()
        with strided.chunks(step.p, step.g, *state.values()) as iterator:
            for p, g, *arrays in iterator:
                chunk = dict(zip(state, arrays, strict=True))
                part = step._replace(p=p, g=g, state=tuple(map(chunk.get, ADAM.state)))
                _tensors.describe([part], row, bfloat16_number())
                engine.run(row, self.coefficients)


def spans(tables: Sequence[Any]) -> tuple[npt.NDArray[np.uintp], npt.NDArray[np.uintp]]:
    """Where the arrays that are written begin, ascending, and the greatest end so far."""
    return ordered([table.extents(key) for table in tables for key in WRITTEN_ARRAYS])


def ordered(
    extents: Sequence[tuple[npt.NDArray[np.uintp], npt.NDArray[np.uintp]]],
) -> tuple[npt.NDArray[np.uintp], npt.NDArray[np.uintp]]:
    """Sort first bytes, and return the greatest end so far beside them."""
    if not extents:
        return np.empty(0, np.uintp), np.empty(0, np.uintp)
    low = np.concatenate([low for low, _ in extents])
    high = np.concatenate([high for _, high in extents])
    order = np.argsort(low)
    return low[order], np.maximum.accumulate(high[order])


def overlap(low: npt.NDArray[np.uintp], high: npt.NDArray[np.uintp]) -> bool:
    """Tell whether ordered extents reach into one another."""
    return bool(np.any(high[:-1] > low[1:]))


def parameters_overlap(tables: Sequence[Any]) -> bool:
    """Tell whether parameters reach into one another, which are to be stepped one by one."""
    return overlap(*ordered([table.extents(key) for table in tables for key in ("p", "half")]))


def untangle(
    tables: Sequence[Any], low: npt.NDArray[np.uintp], high: npt.NDArray[np.uintp]
) -> bool:
    """Give gradients that share memory with what is written, as of `spans`, a copy.

    Tell whether any was copied.
    """
    copied = False
    for table in tables:
        g_low, g_high = table.extents("g")
        before = np.searchsorted(low, g_high, side="left")  # arrays that begin before its end
        reach = np.concatenate([np.zeros(1, np.uintp), high])[before]
        for i in np.flatnonzero(reach > g_low):
            table.copy_gradient(int(i))
            copied = True
    return copied
