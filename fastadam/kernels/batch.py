"""Many parameters in one call: the door into the kernels."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fastadam.kernels import _table, cpu
from fastadam.kernels.coefficients import Coefficients
from fastadam.kernels.dtypes import bfloat16_number
from fastadam.kernels.table import AS_IT_IS, PREPARED, WRITTEN, Step, spans, tables_of, untangle

__all__ = ["Batch", "adam_batch", "check_batch"]

Array = npt.NDArray[Any]


def check_batch(steps: Sequence[Step]) -> None:
    """Raise what ``adam_batch`` would raise for these steps, and change nothing."""
    tables_of(steps)


def adam_batch(steps: Sequence[Step]) -> None:
    """Make one step of the Adam family on every parameter, in place.

    All steps are checked before the first array is written. Gradients are read as they were when
    the call began, even where one shares memory with a parameter; parameters that share memory
    are stepped one after the other.

    Raises
    ------
    TypeError, ValueError
        As ``cpu.check_arrays``, naming the parameter; also if an eps that is not 0 would be 0
        in the parameter's dtype.
    """
    batch = Batch(steps)
    n_threads = batch.n_threads()
    started = time.perf_counter_ns()
    for run in batch.runs():
        run()
    if batch.steady:
        batch.note_time(n_threads, started)


class Batch:
    """The checked steps of many parameters, which may be kept for the next step.

    Parameters
    ----------
    steps : sequence of Step
        They are checked as ``adam_batch`` says. Steps that share their coefficients share
        the object.

    Attributes
    ----------
    steady : bool
        Whether the batch may be kept: all arrays are dense, and none shares memory with another.
    """

    def __init__(self, steps: Sequence[Step]) -> None:
        self._tables = tables_of(steps)
        # a gradient that shares memory is read from a copy
        self._serial, copied = untangle(self._tables)
        others = any(table.others for table in self._tables)
        self.steady = not (self._serial or copied or others)
        self._total = sum(table.total for table in self._tables)
        self._rows: list[_table.Rows] | None = None
        self._prepared = False

    def runs(self) -> list[Callable[[], None]]:
        """Return the calls that make the step: all in C, if the batch is steady."""
        return [call for table in self._tables for call in table.runs(self._serial)]

    def keep(self, halves: Sequence[Array | None]) -> bool:
        """Make ready for `follow`, which will be given other gradients: none is kept alive.

        The other arrays are kept, so that none of them can go while its address is in use.

        Parameters
        ----------
        halves : sequence of numpy.ndarray or None
            The half-precision parameters that the arrays ``p`` of the steps are the float32
            masters of. From now on, a step takes over what has been written to them, and rounds
            the masters to them.

        Returns
        -------
        bool
            False if a parameter cannot be walked beside its master, or shares memory with
            another: then this batch cannot be kept.
        """
        for table in self._tables:
            own = [halves[i] for i in table.places]
            if not _table.keep_masters(table.steps, own, table.table, bfloat16_number()):
                return False
        low, high = spans(self._tables)
        if np.any(high[:-1] > low[1:]):
            return False
        self._rows = [
            _table.Rows(
                table.table,
                table.coefficients,
                table.sets,
                cpu.loop(table.coefficients.dtype),
                low,
                high,
                bfloat16_number(),
            )
            for table in self._tables
        ]
        for table in self._tables:
            table.kept_alive = [
                (s.p, s.m, s.v, s.vhat, halves[i])
                for s, i in zip(table.steps, table.places, strict=True)
            ]
            table.steps = []
        return True

    def follow(
        self,
        params: list[Any],
        attribute: str,
        rules: list[Any],
        ts: list[int],
        gradients: list[Any],
        coefficients: list[Coefficients],
    ) -> bool:
        """Make ready for another step, with other gradients and coefficients.

        Parameters
        ----------
        params : list
            In the order of the steps that the batch was made of; their arrays are to be found
            under `attribute`.
        rules : list
            In the same order; ``_state`` is a dict of arrays, and ``t`` is that of `ts`.
        gradients : list
            In the same order.
        coefficients : list of Coefficients
            In the order in which they first appeared in these steps.

        Returns
        -------
        bool
            False if an array is not where it was or not what it was, if a t is another, or if
            coefficients are those of another variant or have an eps that would act as 0: then
            nothing has changed but which gradients would be read, and another batch is to be made.
        """
        assert self._rows is not None
        if len(self._rows) == 1:
            return self._rows[0].follow(params, attribute, rules, ts, gradients, coefficients)
        for table, rows in zip(self._tables, self._rows, strict=True):
            p, r, t, g = (
                [every[i] for i in table.places] for every in (params, rules, ts, gradients)
            )
            if not rows.follow(p, attribute, r, t, g, coefficients):
                return False
        return True

    def squares(self, scales: Sequence[float | None] | None = None) -> list[float]:
        """Return the sums of squares of the gradients that `follow` has taken over.

        Parameters
        ----------
        scales : sequence of float, optional
            What each gradient is divided by first; None is nothing.
        """
        totals = [0.0] * sum(len(table.places) for table in self._tables)
        for table in self._tables:
            own = None if scales is None else [scales[i] or 0 for i in table.places]
            for i, total in zip(table.places, table.squares(own), strict=True):
                totals[i] = total
        return totals

    def prepare(
        self,
        gradients: Sequence[Array],
        scales: Sequence[float | None] | None,
        rate: float,
        write: bool,
    ) -> bool:
        """Say what the next step does to the gradients that `follow` has taken over.

        It divides them by `scales` and multiplies them with `rate`, on the way: they are
        neither read nor written once more.

        Parameters
        ----------
        gradients : sequence of numpy.ndarray
            The gradients.
        scales : sequence of float, optional
            What each is divided by; None is nothing.
        rate : float
            What all are multiplied with, rounded to their parameter's computing dtype.
        write : bool
            Whether the result is written in the place of the gradients.

        Returns
        -------
        bool
            False if that cannot be done on the way: a half-precision gradient that is not
            divided would have to be rounded in between; one that is read-only, is stored in
            another type than the step is computed in, or shares memory with another, cannot be
            written. Then the step is to be made in another way.
        """
        plain = scales is None and rate == 1
        if plain and not self._prepared:
            return True
        if write and not plain and not all(g.flags.writeable for g in gradients):
            return False
        for table in self._tables:
            own = None if scales is None else [scales[i] for i in table.places]
            if not plain and not table.can_prepare(own, rate, write):
                return False
        for table in self._tables:
            divisors = 0.0 if scales is None else [scales[i] or 0.0 for i in table.places]
            table.table["prepare"] = AS_IT_IS if plain else WRITTEN if write else PREPARED
            table.table["scale"] = divisors
            table.table["rate"] = rate
        self._prepared = not plain
        return True

    def step_and_count(
        self,
        coefficients: list[Coefficients],
        rules: list[Any],
        ts: list[int],
        following: list[int],
        owner: dict[str, Any],
        noted: dict[str, Any],
        unscaled: Sequence[Any],
    ) -> None:
        """Make the step that `follow` has made ready, and count it, all in C.

        Parameters
        ----------
        coefficients : list of Coefficients
            As for `follow`.
        rules, ts, following : list
            Whose t, which are `ts`, become those of `following`.
        owner, noted : dict
            The attributes of the rules' optimizer, and what some of them become.
        unscaled : sequence of Parameter
            Whose loss scale becomes None.
        """
        assert self._rows is not None
        n_threads = self.n_threads()
        started = time.perf_counter_ns()
        _table.step_and_count(
            self._rows, n_threads, coefficients, rules, ts, following, owner, noted, unscaled
        )
        self.note_time(n_threads, started)

    def n_threads(self) -> list[int]:
        """Return how many threads each table's call takes."""
        return [cpu.n_threads(table.total) for table in self._tables]

    def note_time(self, n_threads: list[int], started: int) -> None:
        """Take in how long the step took that has just been made on so many threads."""
        if self._total:
            cpu.note_time(max(n_threads), self._total, time.perf_counter_ns() - started)
