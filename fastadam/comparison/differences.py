"""Differences of optimizers, targets and runs: the record of each, and the table of all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, overload

import numpy as np

from fastadam.update.text_table import table

__all__ = ["Absent", "Difference", "Differences"]


class Absent(Enum):
    """Stands for a value that one of the two does not have; prints as ``absent``."""

    ABSENT = "absent"

    def __repr__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing in which two optimizers, targets or snapshots differ.

    Parameters
    ----------
    where : str
        Path of the parameter; ``''`` for the optimizer itself.
    what : str
        Name of what differs: ``'t'``, ``'hyperparam.alpha'``, ``'hooks'``, ``'rule.enabled'``, a
        state such as ``'m'``, ``'fp32_param'``, or ``'param'`` for the parameter's array;
        ``'kept'`` for what else of a module is saved, as a buffer, whose name `where` is;
        ``'m.shape'`` and ``'m.dtype'`` for arrays that cannot be compared by element.
    a, b : object
        The two values; for arrays, those of the first element that differs.
    count, size : int or None
        How many elements of an array differ, and how many it has.
    ulps : int, float or None
        The largest distance in units in the last place of the arrays' dtype; infinite between NaN
        and a number. 0 if nothing but signs of zeros differ.
    relative, absolute : float or None
        The largest ``|a - b| / max(|a|, |b|)`` and ``|a - b|``.
    first_index : tuple of int or None
        Index of the first element that differs, in C order.
    """

    where: str
    what: str
    a: Any
    b: Any
    count: int | None = None
    size: int | None = None
    ulps: int | float | None = None
    relative: float | None = None
    absolute: float | None = None
    first_index: tuple[int, ...] | None = None


@dataclass(frozen=True, eq=False)
class Differences(Sequence[Difference]):
    """All differences, in order; prints as a table, and is true if there are any.

    Facts come first. Then come arrays, by path, each parameter's in the order in which a step
    makes them (``m``, ``v``, ``vhat``, further state, ``fp32_param``, ``param``): the first row is
    the one nearest to the cause.

    Parameters
    ----------
    differences : tuple of Difference
        The differences.
    t : int or None
        For runs, the optimizer's `t` where they first differ.
    agreed : int or None
        For runs, how many steps agree before that, or all of them; None for anything else.
    """

    differences: tuple[Difference, ...]
    t: int | None = None
    agreed: int | None = None

    @property
    def equal(self) -> bool:
        """Whether there is no difference."""
        return not self.differences

    def __len__(self) -> int:
        return len(self.differences)

    @overload
    def __getitem__(self, index: int) -> Difference: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Difference, ...]: ...
    def __getitem__(self, index: int | slice) -> Difference | tuple[Difference, ...]:
        return self.differences[index]

    def __repr__(self) -> str:
        steps = f"{self.agreed} step{'' if self.agreed == 1 else 's'}"
        if self.equal:
            return "no difference" if self.agreed is None else f"no difference in {steps}"
        rows = [_HEAD, *map(_cells, self.differences)]
        # without the columns that would be empty
        columns = [column for column in zip(*rows, strict=True) if any(column[1:])]
        lines = table(list(zip(*columns, strict=True)), "l" * len(columns))
        if self.agreed is not None:
            at = "" if self.t is None else f" at t={self.t},"
            lines.insert(0, f"first difference{at} after {steps} without any")
        return "\n".join(lines)


_HEAD = ("where", "what", "a", "b", "differ", "ULPs", "relative", "absolute", "first at")


def _cells(difference: Difference) -> tuple[str, ...]:
    """Spell the cells of one row."""
    d = difference
    return (
        d.where or "-",
        d.what,
        _text(d.a),
        _text(d.b),
        "" if d.count is None else f"{d.count} of {d.size}",
        "" if d.ulps is None else str(d.ulps),
        "" if d.relative is None else f"{d.relative:.3g}",
        "" if d.absolute is None else f"{d.absolute:.3g}",
        "" if d.first_index is None else str(d.first_index),
    )


def _text(value: Any) -> str:
    """Spell a value: elements and dtypes as NumPy prints them, classes by their names."""
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    return str(value) if isinstance(value, (np.generic, np.dtype, str)) else repr(value)
