"""The descriptor table: which arrays a call of the loops steps, checked and laid end to end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastadam.kernels import _table, cpu, strided
from fastadam.kernels.coefficients import Coefficients
from fastadam.kernels.dtypes import bfloat16_number, computing_dtype
from fastadam.kernels.norm import GradientTable

__all__ = [
    "AS_IT_IS",
    "PREPARED",
    "TENSOR",
    "WRITTEN",
    "Step",
    "Table",
    "extent",
    "spans",
    "tables_of",
    "untangle",
]

Array = npt.NDArray[Any]

# What is done to a gradient before its step, as _table.pxd says.
AS_IT_IS, PREPARED, WRITTEN = range(3)

# One row of the descriptor table, as _table.pxd spells it in C.
TENSOR = np.dtype(
    [
        *((name, np.uintp) for name in ("p", "g", "m", "v", "vhat")),
        *((name, np.intp) for name in ("n", "start", "row", "amsgrad", "adabound")),
        *((name, np.intp) for name in ("p_type", "g_type", "prepare")),
        *((name, np.float64) for name in ("scale", "rate")),
        ("half", np.uintp),
        ("half_type", np.intp),
        ("change", np.intp),
    ]
)


class Step(NamedTuple):
    """What one step of one parameter reads and writes; ``name`` is for messages."""

    name: str
    p: Array
    g: Array
    m: Array
    v: Array
    vhat: Array | None
    coefficients: Coefficients


def tables_of(steps: Sequence[Step]) -> list[Table]:
    """Group the steps by what they compute in, one table and so one call each; check them."""
    groups: dict[object, list[int]] = {}
    for i, step in enumerate(steps):
        dtype = getattr(step.p, "dtype", None)
        groups.setdefault(dtype and computing_dtype(dtype), []).append(i)
    # by identity: the steps that share their coefficients share the object
    sets = {id(step.coefficients): step.coefficients for step in steps}
    numbers = {key: number for number, key in enumerate(sets)}
    return [Table([steps[i] for i in places], places, numbers) for places in groups.values()]


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
        self.others = _table.describe(steps, self.table, bfloat16_number())
        for i in self.others:
            cpu.check_arrays(*steps[i][:6], amsgrad=steps[i].coefficients.amsgrad)
        computing = computing_dtype(steps[0].p.dtype)
        assert computing is not None
        first = {id(step.coefficients): step for step in reversed(steps)}
        rows = {key: row for row, key in enumerate(first)}
        self.sets = [numbers[key] for key in first]
        with np.errstate(over="ignore", under="ignore"):
            values = np.array([step.coefficients[:8] for step in first.values()], np.float64)
            self.coefficients = values.astype(computing)
        for step in first.values():
            self._check_eps(step.name, step.coefficients.eps)
        self.table["row"] = [rows[id(step.coefficients)] for step in steps]
        self.table["amsgrad"] = [step.coefficients.amsgrad for step in steps]
        self.table["adabound"] = [step.coefficients.adabound for step in steps]
        self._gradients: GradientTable | None = None
        self.total = int(self.table["start"][-1] + self.table["n"][-1])

    def squares(self, scales: Sequence[float] | None) -> list[float]:
        """Return the sum of squares of every gradient, divided by its scale; 0 is no scale."""
        if self._gradients is None:
            self._gradients = GradientTable(self.table["n"].tolist(), self.coefficients.dtype)
        for key in ("g", "g_type"):
            self._gradients.rows[key] = self.table[key]
        self._gradients.rows["scale"] = 0 if scales is None else scales
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

    def _check_eps(self, name: str, eps: float) -> None:
        """Refuse an eps that the kernel would take as 0."""
        computing = self.coefficients.dtype
        with np.errstate(over="ignore", under="ignore"):
            rounded = abs(float(computing.type(eps)))
        smallest = np.finfo(np.float32).tiny if computing == np.float32 else 0
        if eps != 0 and (rounded == 0 or rounded < smallest):
            raise ValueError(
                f"parameter {name!r}: eps = {eps} is too small for {computing}, "
                f"where it would act as 0; use at least {np.finfo(computing).tiny}"
            )

    def extents(self, key: str) -> tuple[npt.NDArray[np.uintp], npt.NDArray[np.uintp]]:
        """First byte and last byte plus one of every ``p``, every ``g`` or every ``half``."""
        low = self.table[key].copy()
        half = self.table[f"{key}_type"] != 0
        itemsize = np.where(half, 2, self.coefficients.itemsize).astype(np.uintp)
        n = np.where(low != 0, self.table["n"], 0).astype(np.uintp)
        high = low + n * itemsize
        for i in self.others if key != "half" else ():
            low[i], high[i] = extent(getattr(self.steps[i], key))
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
                calls.append(cpu.runner(row, self.coefficients, int(row["n"][0])))
        else:
            calls.append(cpu.runner(self.table, self.coefficients, self.total))
        return calls + [partial(self._run_strided, i) for i in self.others]

    def _run_strided(self, i: int) -> None:
        """Step the arrays of one row through dense chunks."""
        name, p, g, m, v, vhat, coefficients = self.steps[i]
        vhat = vhat if coefficients.amsgrad else None
        row = self.table[i : i + 1].copy()
        with strided.chunks(p, g, m, v, vhat) as iterator:
            for chunk in iterator:
                arrays = chunk if vhat is not None else (*chunk, None)
                _table.describe([(name, *arrays, coefficients)], row, bfloat16_number())
                cpu.run(row, self.coefficients)


def extent(array: Array) -> tuple[int, int]:
    """First byte and last byte plus one of an array in any layout."""
    if array.size == 0:
        return 0, 0
    low = high = array.ctypes.data
    for stride, n in zip(array.strides, array.shape, strict=True):
        if stride < 0:
            low += stride * (n - 1)
        else:
            high += stride * (n - 1)
    return low, high + array.itemsize


def spans(tables: list[Table]) -> tuple[npt.NDArray[np.uintp], npt.NDArray[np.uintp]]:
    """Where the parameters begin, ascending, and the greatest end so far."""
    extents = [table.extents(key) for table in tables for key in ("p", "half")]
    low = np.concatenate([low for low, _ in extents])
    high = np.concatenate([high for _, high in extents])
    order = np.argsort(low)
    return low[order], np.maximum.accumulate(high[order])


def untangle(tables: list[Table]) -> tuple[bool, bool]:
    """Give gradients that share memory with a parameter a copy.

    Tell whether parameters overlap, and whether gradients were copied.
    """
    if not tables:
        return False, False
    low, high = spans(tables)
    copied = False
    for table in tables:
        g_low, g_high = table.extents("g")
        before = np.searchsorted(low, g_high, side="left")  # parameters that begin before its end
        reach = np.concatenate([np.zeros(1, np.uintp), high])[before]
        for i in np.flatnonzero(reach > g_low):
            table.copy_gradient(int(i))
            copied = True
    return bool(np.any(high[:-1] > low[1:])), copied
