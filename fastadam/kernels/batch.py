"""Many parameters in one call: the door into the kernels and its descriptor table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastadam.kernels import _table, cpu, strided
from fastadam.kernels.coefficients import Coefficients
from fastadam.kernels.dtypes import bfloat16_number, computing_dtype

__all__ = ["TENSOR", "Step", "adam_batch", "check_batch"]

Array = npt.NDArray[Any]

# One row of the descriptor table, as _table.pxd spells it in C.
TENSOR = np.dtype(
    [
        *((name, np.uintp) for name in ("p", "g", "m", "v", "vhat")),
        *((name, np.intp) for name in ("n", "start", "row", "amsgrad", "adabound")),
        *((name, np.intp) for name in ("p_type", "g_type")),
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


def check_batch(steps: Sequence[Step]) -> None:
    """Raise what ``adam_batch`` would raise for these steps, and change nothing."""
    _tables(steps)


def adam_batch(steps: Sequence[Step], begin: Callable[[], object] | None = None) -> None:
    """Make one step of the Adam family on every parameter, in place.

    All steps are checked before the first array is written; `begin` is called in between. Gradients
    are read as they were when the call began, even where one shares memory with a parameter;
    parameters that share memory are stepped one after the other.

    Raises
    ------
    TypeError, ValueError
        As ``cpu.check_arrays``, naming the parameter; also if an eps that is not 0 would be 0
        in the parameter's dtype.
    """
    tables = _tables(steps)
    serial = _untangle(tables)
    if begin is not None:
        begin()
    for table in tables:
        table.run(serial)


def _tables(steps: Sequence[Step]) -> list[_Table]:
    """Group the steps by what they compute in, one table and so one call each; check them."""
    groups: dict[object, list[Step]] = {}
    for step in steps:
        dtype = getattr(step.p, "dtype", None)
        groups.setdefault(dtype and computing_dtype(dtype), []).append(step)
    return [_Table(group) for group in groups.values()]


class _Table:
    """The checked descriptor table of steps that are computed in one dtype."""

    def __init__(self, steps: list[Step]) -> None:
        self.steps = steps
        self.table = np.empty(len(steps), TENSOR)
        self.others = _table.describe(steps, self.table, bfloat16_number())
        for i in self.others:
            cpu.check_arrays(*steps[i][:6], amsgrad=steps[i].coefficients.amsgrad)
        computing = computing_dtype(steps[0].p.dtype)
        assert computing is not None
        # by identity: the steps that share their coefficients share the object
        sets = {id(step.coefficients): step for step in steps}
        rows = {key: row for row, key in enumerate(sets)}
        with np.errstate(over="ignore", under="ignore"):
            self.coefficients = np.array(
                [step.coefficients[:8] for step in sets.values()], np.float64
            ).astype(computing)
        for step, rounded in zip(sets.values(), self.coefficients, strict=True):
            _check_eps(step, rounded[Coefficients._fields.index("eps")])
        self.table["row"] = [rows[id(step.coefficients)] for step in steps]
        self.table["amsgrad"] = [step.coefficients.amsgrad for step in steps]
        self.table["adabound"] = [step.coefficients.adabound for step in steps]

    def extents(self, key: str) -> tuple[npt.NDArray[np.uintp], npt.NDArray[np.uintp]]:
        """First byte and last byte plus one of every ``p`` or every ``g``."""
        low = self.table[key].copy()
        half = self.table[f"{key}_type"] != 0
        itemsize = np.where(half, 2, self.coefficients.itemsize).astype(np.uintp)
        high = low + self.table["n"].astype(np.uintp) * itemsize
        for i in self.others:
            low[i], high[i] = _extent(getattr(self.steps[i], key))
        return low, high

    def copy_gradient(self, i: int) -> None:
        """Read the gradient of one row from a copy."""
        g = self.steps[i].g.copy(order="K")
        self.steps[i] = self.steps[i]._replace(g=g)
        self.table["g"][i] = g.ctypes.data

    def run(self, serial: bool) -> None:
        """Step the dense rows in one call (where they overlap, in one each), then the others."""
        if serial:
            for one in np.flatnonzero(self.table["n"]):
                row = self.table[one : one + 1].copy()
                row["start"] = 0
                cpu.run(row, self.coefficients)
        else:
            cpu.run(self.table, self.coefficients)
        for i in self.others:
            self._run_strided(i)

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


def _check_eps(step: Step, rounded: np.floating[Any]) -> None:
    """Refuse an eps that the kernel would take as 0."""
    eps = step.coefficients.eps
    smallest = np.finfo(np.float32).tiny if rounded.dtype == np.float32 else 0
    if eps != 0 and (rounded == 0 or abs(rounded) < smallest):
        raise ValueError(
            f"parameter {step.name!r}: eps = {eps} is too small for {rounded.dtype}, "
            f"where it would act as 0; use at least {np.finfo(rounded.dtype).tiny}"
        )


def _extent(array: Array) -> tuple[int, int]:
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


def _untangle(tables: list[_Table]) -> bool:
    """Give gradients that share memory with a parameter a copy; tell whether parameters overlap."""
    if not tables:
        return False
    extents = [table.extents("p") for table in tables]
    low = np.concatenate([low for low, _ in extents])
    high = np.concatenate([high for _, high in extents])
    order = np.argsort(low)
    low, high = low[order], np.maximum.accumulate(high[order])
    for table in tables:
        g_low, g_high = table.extents("g")
        before = np.searchsorted(low, g_high, side="left")  # parameters that begin before its end
        reach = np.concatenate([np.zeros(1, np.uintp), high])[before]
        for i in np.flatnonzero(reach > g_low):
            table.copy_gradient(int(i))
    return bool(np.any(high[:-1] > low[1:]))
