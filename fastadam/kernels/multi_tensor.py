"""The step of many parameters in one call of the kernels, kept for the next one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fastadam.algorithms.adam import Coefficients
from fastadam.algorithms.number import GREATEST_SCALE, LEAST_SCALE
from fastadam.kernels._source import Source
from fastadam.kernels.arrays import check_apart
from fastadam.kernels.backend import copy_into, is_gpu_array, on_device
from fastadam.kernels.cpu import _threads
from fastadam.kernels.cpu._door import commit, reaches, refresh, run, step_and_commit
from fastadam.kernels.cpu._written import Written
from fastadam.kernels.cpu.converting import dense_gradient
from fastadam.kernels.gpu.steps import GpuSteps, one_scale
from fastadam.kernels.gpu.sums import GpuSums
from fastadam.kernels.gpu.table import GpuTable
from fastadam.kernels.grouping import OF_PARAMETERS, coefficients_of, tables_of, written_by
from fastadam.kernels.memory import reach_into_another
from fastadam.kernels.ops import Op
from fastadam.kernels.sums import largest_square
from fastadam.kernels.table import Step, Table

__all__ = ["CHANGED", "MultiTensorStep"]

Array = npt.NDArray[Any]

_PLAIN: Any = (float, int, np.floating, np.integer)

# What is wrong where something differs that has just been described.
CHANGED = (
    "the arrays of an update have changed while they were looked at; let nobody else change them "
    "meanwhile"
)


class MultiTensorStep:
    """The checked step of many parameters, which are read anew from their owner before each.

    Parameters
    ----------
    source : Source
        Who owns the arrays.
    steps : sequence of Step
        What the source holds now, in its order. They are checked as ``adam_batch`` says. Steps that
        share their coefficients share the object. Where there is no gradient, ``g`` is None.
    low_precision : sequence of array or None, optional
        The half-precision parameters that are rounded from their masters, the steps' ``p``.

    Attributes
    ----------
    steady : bool
        Whether this may be kept for another step.
    whole : bool
        Whether every gradient was there at the last `refresh`, and can be looked at in one pass.
    in_c : bool
        Whether a step is one call into C.
    prepared : bool
        Whether the next step does anything to gradients on its way.
    moved : bool
        Whether the last `refresh` has found an array elsewhere.
    converted : bool
        Whether any gradient is read in another layout or dtype than its own. Such gradients are
        divided, and summed in another order, as they are.
    low_precision : bool
        Whether any gradient is stored in half precision.
    on_gpu : list of GpuTable
        What is stepped on GPUs.
    most_threads : int or None
        How many threads the owner of the arrays allows, unless their number is set by hand.
    gpu : GpuSteps
        How that is done, and captured in a CUDA graph.
    """

    def __init__(
        self, source: Source, steps: Sequence[Step], low_precision: Sequence[Array | None] = ()
    ) -> None:
        self._source = source
        self._on_cpu, self.on_gpu = tables_of(steps, source)
        self._tables: list[Table | GpuTable] = [*self._on_cpu, *self.on_gpu]
        self._rows = [table.rows for table in self._on_cpu]
        self.coefficients = coefficients_of(steps)
        written = written_by(steps, low_precision)
        check_apart(written)
        params = [array for _, key, array in written if key in OF_PARAMETERS]
        # steps on parameters that reach into one another are made one after the other
        self._serial = reach_into_another(params)
        arrays = [array for *_, array in written]
        self._loose = reach_into_another(arrays)
        self._written = Written()
        self._size = len(steps)
        self._strided = any(table.strided for table in self._on_cpu)
        self.whole = self.in_c = self.moved = self.prepared = False
        self.most_threads: int | None = None
        self.converted = self.low_precision = False
        # each half-precision array with the master that is to be rounded to it after the step
        self._of_gpu: list[tuple[Any, Any]] = []
        self._to_round: list[tuple[Any, Any]] = []
        self.gpu = GpuSteps(self.on_gpu, len(steps), not self._on_cpu)
        whole = all(step.g is not None for step in steps)
        self.steady = not self.on_gpu or self.gpu.keep(
            low_precision, arrays, whole and not self._serial
        )
        if not self.steady:
            self._of_gpu = [
                (half, step.p)
                for half, step in zip(low_precision, steps, strict=False)
                if half is not None and is_gpu_array(half)
            ]

    def reaches(self, gradients: list[Any], more: list[Any]) -> bool:
        """Tell whether a gradient may be part of what is written, by what was read last.

        Parameters
        ----------
        gradients : list
            Any arrays, or None.
        more : list
            Further arrays that are written.
        """
        return bool(self.on_gpu) or reaches(self._written, gradients, more)

    def refresh(self, coefficients: list[Coefficients]) -> bool:
        """Read everything anew from its owner, and take over what the scalars are now.

        Parameters
        ----------
        coefficients : list of Coefficients
            In the order in which they first appeared in the steps.

        Returns
        -------
        bool
            False if something is not what was described, but for gradients and for arrays of the
            same size, dtype and layout that lie elsewhere: then all is to be described anew.
        """
        self.coefficients = coefficients
        if not refresh(self._rows, self._written, coefficients, self._loose, dense_gradient):
            return False
        self.whole = self.steady and not self._strided
        self.moved = self.converted = self.low_precision = False
        self._to_round = self._of_gpu
        for rows in self._rows:
            self.moved = self.moved or rows.moved
            self.converted = self.converted or rows.converted
            self.low_precision = self.low_precision or rows.low_precision
            self.whole = self.whole and not (rows.without and not self._source.regroups)
            # such a master has been brought up to date by whoever made it
            if rows.to_round:
                self._to_round = [*self._to_round, *rows.to_round]
                self.steady = False
        self.in_c = not (self._to_round or (self.on_gpu and not self.gpu.on_one))
        return not self.on_gpu or self.gpu.refresh(coefficients)

    def read(self, coefficients: list[Coefficients]) -> None:
        """Read everything as `refresh` does, where it has just been described.

        If anything differs, it is a RuntimeError: it has changed while it was described.
        """
        if not self.refresh(coefficients):
            raise RuntimeError(CHANGED)

    def let_go(self) -> None:
        """Let gradients go that have been read for a step that is not made."""
        for rows in self._rows:
            rows.release()

    def can_divide_by(self, scales: Sequence[float | None] | None) -> bool:
        """Tell whether gradients can be divided by these scales; on GPUs all must be one.

        A scale that float32 does not have is for those who look at every parameter's dtype.
        """
        if scales is not None:
            seen = None
            for scale in scales:
                # nearly always the same object
                if scale is seen or scale is None:
                    continue
                if not isinstance(scale, _PLAIN) or not LEAST_SCALE <= scale <= GREATEST_SCALE:
                    return False
                seen = scale
        return not self.on_gpu or one_scale(scales) is not None

    def sums_of_squares(self, scales: Sequence[float | None] | None = None) -> list[float]:
        """Return the sums of squares of the gradients that `refresh` has read.

        Parameters
        ----------
        scales : sequence of float, optional
            What each gradient is divided by first; None is nothing. On GPUs, all by one.
        """
        if len(self._tables) == 1 and self._on_cpu:
            # in the order of the indices
            own = None if scales is None else [scale or 0 for scale in scales]
            return self._on_cpu[0].sums_of_squares(own, self.most_threads)
        totals = [0.0] * self._size
        for table in self._on_cpu:
            own = None if scales is None else [scales[i] or 0 for i in table.indices]
            for i, total in zip(
                table.indices, table.sums_of_squares(own, self.most_threads), strict=True
            ):
                totals[i] = total
        if self.on_gpu:
            for i, total in self.gpu.sums_of_squares(one_scale(scales) or 0.0).items():
                totals[i] = total
        return totals

    def doubtful(self, squares: Sequence[float]) -> bool:
        """Tell, by all sums of squares, whether a square may not be finite where it is computed."""
        for table in self._tables:
            limit = largest_square(table.computing)
            own = [squares[i] for i in table.indices]
            # mostly not even their sum is too large
            if not sum(own) <= limit and not all(square <= limit for square in own):
                return True
        return False

    def gpu_sums(self, scales: Sequence[float | None] | None = None) -> GpuSums | None:
        """Return the sums of squares as they are on the one GPU where everything is; else None.

        Nothing is waited for.
        """
        return self.gpu.sums_of_one(one_scale(scales) or 0.0) if self.on_gpu else None

    def prepare(self, scales: Sequence[float | None] | None, rate: Any, write: bool) -> bool:
        """Say what the next step does to gradients on GPUs; `program` is for those on the CPU.

        It divides them by `scales` and multiplies them with `rate`, on the way: they are
        neither read nor written once more.

        Parameters
        ----------
        scales : sequence of float, optional
            What each is divided by, all by the same; None is nothing.
        rate : float or cupy.ndarray
            What all are multiplied with, rounded to their parameter's computing dtype.
        write : bool
            Whether the result is written in the place of the gradients.

        Returns
        -------
        bool
            False if that cannot be done on the way: some are on the CPU; a half-precision gradient
            that is not divided would have to be rounded in between; one that is stored in another
            type than the step is computed in, or shares memory with another, cannot be written.
            Then the step is to be made in another way.
        """
        if scales is None and isinstance(rate, float) and rate == 1:
            if self.prepared:
                self.leave_gradients()
            return True
        scale = one_scale(scales)
        if self._on_cpu or not self.can_divide_by(scales):
            return False
        if not self.gpu.can_prepare(bool(scale), write):
            return False
        self.prepared = True
        self.gpu.prepare(scale or 0.0, rate, write)
        return True

    def leave_gradients(self) -> None:
        """Say that the next step uses the gradients as they are."""
        for table in self._on_cpu:
            table.set_program([[]], 0)
        if self.on_gpu:
            self.gpu.prepare(0.0, 1.0, False)
        self.prepared = False

    def program(
        self, programs: Sequence[Sequence[Op]], which: int | Sequence[int], write: bool
    ) -> bool:
        """Say which operations are applied to the gradients that `refresh` has read.

        To be said again after every `refresh`; `prepare` says something else.
        `sums_of_squares_after` sums what is left on the way.

        Parameters
        ----------
        programs : sequence of sequence of Op
            The operations, each program in its order; ``[[]]`` for nothing. They are applied to
            float32, or to float64 where that is computed in; a half-precision gradient that was
            not divided is what hooks one after the other would leave if a ROUND follows each.
            Where a parameter is a float32 master, they see its half-precision parameter.
        which : int or sequence of int
            Which program is that of all parameters, or of each, in the order of the steps.
        write : bool
            Whether what a program leaves is written in the place of the gradient, stored as it is.

        Returns
        -------
        bool
            False, and nothing has changed, if that cannot be done: anything is on a GPU, is strided
            or has no gradient; if a gradient that is to be written is read-only, converted, or
            shares memory with another; if one in half precision would be both divided and
            written, which loses what the quotient's float32 holds.
        """
        if self.on_gpu or not self.whole:
            return False
        if len(self._on_cpu) == 1:
            # in the order of the indices
            own = [which]
        else:
            own = [
                which if isinstance(which, int) else [which[i] for i in table.indices]
                for table in self._on_cpu
            ]
        tables = list(zip(self._on_cpu, own, strict=True))
        if write:
            for table, each in tables:
                if not table.can_write(programs, each):
                    return False
        self.prepared = True
        for table, each in tables:
            table.set_program(programs, each, table.table["g"] if write else None)
        return True

    def rounds(self) -> list[bool]:
        """Tell whose gradients are stored in half precision, as their parameters are.

        What a hook does to such a gradient is rounded.
        """
        found = [False] * self._size
        for table in self._on_cpu:
            for i, rounds in zip(table.indices, table.rounds(), strict=True):
                found[i] = rounds
        return found

    def sums_of_squares_after(self, n: int | Sequence[int]) -> list[float]:
        """Return the sums of squares of gradients after the first operations of their programs.

        Nothing is written. Only after `program` has returned True; of half-precision gradients the
        bits are those of sums over what hooks would have written if the last operation is ROUND.

        Parameters
        ----------
        n : int or sequence of int
            How many operations, of all programs or for each parameter; a program may have fewer.
        """
        if len(self._on_cpu) == 1:
            return self._on_cpu[0].sums_of_squares_after(n, self.most_threads)
        totals = [0.0] * self._size
        for table in self._on_cpu:
            own = n if isinstance(n, int) else [n[i] for i in table.indices]
            for i, total in zip(
                table.indices, table.sums_of_squares_after(own, self.most_threads), strict=True
            ):
                totals[i] = total
        return totals

    def step(self, owner: dict[str, Any], noted: dict[str, Any], unscaled: Sequence[Any]) -> None:
        """Make the step that `refresh` has made ready, and commit it.

        On the CPU and one GPU it is one call into C, but for masters whose half-precision
        parameters lie otherwise; where it is more, whoever calls holds signals back.

        Parameters
        ----------
        owner, noted : dict
            The attributes of the rules' optimizer, and what some of them become.
        unscaled : sequence of Parameter
            Whose loss scale becomes None.
        """
        n_threads, total = [], 0
        for rows in self._rows:
            total += rows.total
            n_threads.append(_threads.n_threads(rows.total, self.most_threads))
        # what is done chunk by chunk takes longer
        timed = total >= _threads.SERIAL_BELOW and not self._strided
        started = time.perf_counter_ns() if timed else 0
        what = self._rows, n_threads, self.coefficients, self._serial
        noting = self._source, owner, noted, list(unscaled)
        if not self.in_c:
            if self.on_gpu:
                self.gpu.run(self._serial)
            run(*what)
            with np.errstate(all="ignore"):
                for half, master in self._to_round:
                    copy_into(half, master)
            commit(*noting)
        elif self.on_gpu:
            with on_device(self.gpu.device):
                step_and_commit(*what, *noting, self.gpu.launches())
        else:
            step_and_commit(*what, *noting, [])
        for rows in self._rows:
            rows.release()
        if timed:
            _threads.note_time(max(n_threads), total, time.perf_counter_ns() - started)

    def replay(self, owner: dict[str, Any], noted: dict[str, Any], unscaled: Sequence[Any]) -> None:
        """Write the scalars of `refresh` to where graphs read them, and commit as for a step."""
        self.gpu.replay()
        commit(self._source, owner, noted, list(unscaled))
