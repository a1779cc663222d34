"""The descriptor table: which arrays a call of the loops steps, checked and laid end to end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastadam.algorithms.adam import ADAM, Coefficients
from fastadam.kernels.arrays import check_arrays, check_scalars
from fastadam.kernels.cpu import _tensors, engine, strided
from fastadam.kernels.cpu.gradient_table import GradientTable
from fastadam.kernels.dtypes import bfloat16_number, computing_dtype
from fastadam.kernels.memory import extent

__all__ = [
    "AS_IT_IS",
    "N_COEFFICIENTS",
    "PREPARED",
    "TENSOR",
    "WRITTEN",
    "Step",
    "Table",
    "overlap",
    "parameters_overlap",
    "spans",
    "untangle",
]

Array = npt.NDArray[Any]

# What is done to a gradient before its step, as _tensors.pxd says.
AS_IT_IS, PREPARED, WRITTEN = range(3)

# The columns with the arrays that a step writes.
WRITTEN_ARRAYS = ("p", *ADAM.state, "half")

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
            return not write or self._separate()
        # a quotient is in the computing dtype, but a product in the gradient's own
        divided = scales is not None and not np.any([s is None for s in scales] & half)
        return not write and (divided or rate == 1)

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
                calls.append(engine.runner(row, self.coefficients, int(row["n"][0])))
        else:
            calls.append(engine.runner(self.table, self.coefficients, self.total))
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
