"""Many parameters in one call: the door into the kernels."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fastadam.algorithms.adam import Coefficients
from fastadam.algorithms.number import GREATEST_SCALE, LEAST_SCALE
from fastadam.kernels.arrays import check_apart, is_writeable
from fastadam.kernels.backend import capturing, is_gpu_array
from fastadam.kernels.cpu import _tensors, engine
from fastadam.kernels.dtypes import computing_dtype
from fastadam.kernels.gpu.engine import SETS, Recording
from fastadam.kernels.gpu.sums import GpuSums
from fastadam.kernels.gpu.table import GpuTable, gpu_key
from fastadam.kernels.ops import Op, unscaling
from fastadam.kernels.sums import largest_square
from fastadam.kernels.table import Step, Table, overlap, parameters_overlap, spans, untangle

__all__ = ["Batch", "adam_batch", "check_batch"]

Array = npt.NDArray[Any]

_PLAIN: Any = (float, int, np.floating, np.integer)


def check_batch(steps: Sequence[Step], halves: Sequence[Array | None] = ()) -> None:
    """Raise what ``adam_batch`` would raise for these steps, and change nothing.

    `halves` are as for `Batch`.
    """
    on_cpu, on_gpu = _tables_of(steps)
    _check_apart(steps, overlap(*spans([*on_cpu, *on_gpu])), halves)


def _check_apart(steps: Sequence[Step], overlapping: bool, halves: Sequence[Array | None]) -> None:
    """Refuse arrays that are written and share memory, but for parameters.

    `overlapping` says whether any of the steps' own arrays reach into one another; the halves are
    looked at in any case.
    """
    # of arrays that lie apart, as nearly all do, no two are looked at
    if not overlapping and all(half is None for half in halves):
        return
    written: list[tuple[str, str, Any]] = []
    for i, step in enumerate(steps):
        half = halves[i] if halves else None
        written.append((step.name, "array" if half is None else "float32 master", step.p))
        written += [(step.name, key, array) for key, array in step.stepped().items()]
        if half is not None:
            written.append((step.name, "array", half))
    check_apart(written)


def adam_batch(steps: Sequence[Step]) -> None:
    """Make one step of the Adam family on every parameter, in place.

    All steps are checked before the first array is written. Gradients are read as they were when
    the call began, even where one shares memory with what is written; parameters that share memory
    are stepped one after the other.

    Raises
    ------
    TypeError, ValueError
        As ``arrays.check_arrays``, naming the parameter; also if states share memory, or share it
        with a parameter, and if a number is not one of the parameter's computing dtype.
    """
    batch = Batch(steps)
    n_threads = batch.n_threads()
    started = time.perf_counter_ns()
    for run in batch.runs():
        run()
    if batch.steady:
        batch.note_time(n_threads, started)


def _tables_of(steps: Sequence[Step]) -> tuple[list[Table], list[GpuTable]]:
    """Group the steps by what one call can make, and check them.

    On the CPU one call makes all that is computed in one dtype, on a GPU all that shares types and
    variant.
    """
    on_cpu: dict[object, list[int]] = {}
    on_gpu: dict[object, list[int]] = {}
    sets_of: dict[object, dict[int, int]] = {}
    for i, step in enumerate(steps):
        if is_gpu_array(step.p):
            key = gpu_key(step)
            of_key = sets_of.setdefault(key, {})
            number = of_key.setdefault(id(step.coefficients), len(of_key))
            # a launch takes so many sets of coefficients
            on_gpu.setdefault((*key, number // SETS), []).append(i)
        else:
            dtype = getattr(step.p, "dtype", None)
            on_cpu.setdefault(dtype and computing_dtype(dtype), []).append(i)
    # by identity: the steps that share their coefficients share the object
    sets = {id(step.coefficients): step.coefficients for step in steps}
    numbers = {key: number for number, key in enumerate(sets)}
    return (
        [Table([steps[i] for i in places], places, numbers) for places in on_cpu.values()],
        [GpuTable([steps[i] for i in places], places, numbers) for places in on_gpu.values()],
    )


class Batch:
    """The checked steps of many parameters, which may be kept for the next step.

    Parameters
    ----------
    steps : sequence of Step
        They are checked as ``adam_batch`` says. Steps that share their coefficients share
        the object.
    halves : sequence of array or None, optional
        The half-precision parameters that will be rounded from their masters, the steps' ``p``.

    Attributes
    ----------
    steady : bool
        Whether the batch may be kept: all arrays are dense, and none shares memory with another.
    on_gpu : list of GpuTable
        What is stepped on GPUs.
    """

    def __init__(self, steps: Sequence[Step], halves: Sequence[Array | None] = ()) -> None:
        self._on_cpu, self.on_gpu = _tables_of(steps)
        self._tables: list[Table | GpuTable] = [*self._on_cpu, *self.on_gpu]
        written = spans(self._tables)
        overlapping = overlap(*written)
        _check_apart(steps, overlapping, halves)
        # a gradient that shares memory is read from a copy
        copied = untangle(self._tables, *written)
        self._serial = overlapping and parameters_overlap(self._tables)
        others = any(table.others for table in self._tables)
        self.steady = not (self._serial or copied or others)
        self._total = sum(table.total for table in self._on_cpu)
        self._prepared = False
        # what graphs read, and where all of them put their sums
        self._recordings: list[Recording] = []
        self._recording: Recording | None = None
        self._replayed_sums: GpuSums | None = None

    def runs(self) -> list[Callable[[], None]]:
        """Return the calls that make the step: all in C, if the batch is steady, on the CPU."""
        return [call for table in self._tables for call in table.runs(self._serial)]

    def keep(self, halves: Sequence[Array | None]) -> bool:
        """Make ready for `follow`, which will be given other gradients: none is kept alive.

        The other arrays are kept, so that none of them can go while its address is in use.

        Parameters
        ----------
        halves : sequence of array or None
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
            if not table.keep_masters([halves[i] for i in table.places]):
                return False
        low, high = spans(self._tables)
        if overlap(low, high):
            return False
        for table in self._tables:
            table.keep([halves[i] for i in table.places], low, high)
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
        self._record(None)
        if len(self._tables) == 1:
            table = self._tables[0]
            return table.follow(params, attribute, rules, ts, gradients, coefficients)
        for table in self._tables:
            p, r, t, g = (
                [every[i] for i in table.places] for every in (params, rules, ts, gradients)
            )
            if not table.follow(p, attribute, r, t, g, coefficients):
                return False
        return True

    def takes(self, scales: Sequence[float | None] | None) -> bool:
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
        return not self.on_gpu or _one_scale(scales) is not None

    def squares(self, scales: Sequence[float | None] | None = None) -> list[float]:
        """Return the sums of squares of the gradients that `follow` has taken over.

        Parameters
        ----------
        scales : sequence of float, optional
            What each gradient is divided by first; None is nothing. On GPUs, as `takes` says.
        """
        if len(self._tables) == 1 and self._on_cpu:
            # in the order of the places
            own = None if scales is None else [scale or 0 for scale in scales]
            return self._on_cpu[0].squares(own)
        totals = [0.0] * sum(len(table.places) for table in self._tables)
        for table in self._on_cpu:
            own = None if scales is None else [scales[i] or 0 for i in table.places]
            for i, total in zip(table.places, table.squares(own), strict=True):
                totals[i] = total
        found = {device: sums.values() for device, sums in self._sum_on_gpus(scales).items()}
        for gpu in self.on_gpu:
            for i in gpu.places:
                totals[i] = found[gpu.device][i]
        return totals

    def doubtful(self, squares: Sequence[float]) -> bool:
        """Tell whether a square of a gradient may not be finite where the step computes it.

        Parameters
        ----------
        squares : sequence of float
            The sums of squares of all gradients.
        """
        for table in self._tables:
            limit = largest_square(table.computing)
            own = [squares[i] for i in table.places]
            # mostly not even their sum is too large
            if not sum(own) <= limit and not all(square <= limit for square in own):
                return True
        return False

    def gpu_sums(self, scales: Sequence[float | None] | None = None) -> GpuSums | None:
        """Return the sums of squares as they are on the one GPU where everything is; else None.

        Nothing is waited for.
        """
        if not self._on_one_gpu():
            return None
        return next(iter(self._sum_on_gpus(scales).values()))

    def _on_one_gpu(self) -> bool:
        """Tell whether all is on one GPU."""
        return not self._on_cpu and len({gpu.device for gpu in self.on_gpu}) == 1

    def _sum_on_gpus(self, scales: Sequence[float | None] | None) -> dict[int, GpuSums]:
        """Launch the sums of all gradients on GPUs; somebody may look at them much later."""
        n = sum(len(table.places) for table in self._tables)
        devices = dict.fromkeys(gpu.device for gpu in self.on_gpu)
        if self._on_one_gpu() and self._replayed_sums is None:
            self._replayed_sums = GpuSums(n, self.on_gpu[0].device, replayed=True)
        if self._recording is not None:
            assert self._replayed_sums is not None
            sums = {self._replayed_sums.device: self._replayed_sums}
        else:
            sums = {device: GpuSums(n, device) for device in devices}
        for gpu in self.on_gpu:
            if gpu.computing == np.float64:
                sums[gpu.device].may_overflow = True
            gpu.squares(_one_scale(scales) or 0.0, sums[gpu.device].totals)
        return sums

    def prepare(
        self,
        gradients: Sequence[Array],
        scales: Sequence[float | None] | None,
        rate: Any,
        write: bool,
    ) -> bool:
        """Say what the next step does to the gradients that `follow` has taken over.

        It divides them by `scales` and multiplies them with `rate`, on the way: they are
        neither read nor written once more.

        Parameters
        ----------
        gradients : sequence of array
            The gradients.
        scales : sequence of float, optional
            What each is divided by; None is nothing.
        rate : float or cupy.ndarray
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
        plain = scales is None and isinstance(rate, float) and rate == 1
        if plain and not self._prepared:
            return True
        one_scale = _one_scale(scales)
        if not plain:
            # all arrays of CuPy's may be written
            if write and self._on_cpu and not all(is_writeable(g) for g in gradients):
                return False
            for table in self._on_cpu:
                own = None if scales is None else [scales[i] for i in table.places]
                if not table.can_prepare(own, rate, write):
                    return False
            if not self.takes(scales) or not all(
                gpu.can_prepare(bool(one_scale), write) for gpu in self.on_gpu
            ):
                return False
        for table in self._on_cpu:
            own = None if scales is None else [scales[i] for i in table.places]
            programs, which = unscaling(own, rate)
            table.set_program(programs, which, table.table["g"] if write else None)
        for gpu in self.on_gpu:
            gpu.prepare(one_scale or 0.0, rate, write)
        self._prepared = not plain
        return True

    def program(
        self, programs: Sequence[Sequence[Op]], which: int | Sequence[int], write: bool
    ) -> bool:
        """Say which operations are applied to the gradients that `follow` has taken over.

        To be said again after every `follow`; `prepare` says something else. `squares_after` sums
        what is left on the way.

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
            Whoever asks has seen that all of them may be written: here are addresses alone.

        Returns
        -------
        bool
            False, and nothing has changed, if that cannot be done: anything is on a GPU, or cannot
            be kept (it is strided, or shares memory with a parameter); if two gradients that
            are to be written share memory; if one in half precision would be both divided and
            written, which loses what the quotient's float32 holds.
        """
        if self.on_gpu or not self.steady:
            return False
        own = [
            which if isinstance(which, int) else [which[i] for i in table.places]
            for table in self._on_cpu
        ]
        tables = list(zip(self._on_cpu, own, strict=True))
        if write and not all(table.can_write(programs, each) for table, each in tables):
            return False
        for table, each in tables:
            table.set_program(programs, each, table.table["g"] if write else None)
        self._prepared = True
        return True

    def squares_after(self, n: int | Sequence[int]) -> list[float]:
        """Return the sums of squares of gradients after the first operations of their programs.

        Nothing is written. Only after `program` has returned True; of half-precision gradients the
        bits are those of sums over what hooks would have written if the last operation is ROUND.

        Parameters
        ----------
        n : int or sequence of int
            How many operations, of all programs or for each parameter; a program may have fewer.
        """
        totals = [0.0] * sum(len(table.places) for table in self._tables)
        for table in self._on_cpu:
            own = n if isinstance(n, int) else [n[i] for i in table.places]
            for i, total in zip(table.places, table.squares_after(own), strict=True):
                totals[i] = total
        return totals

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
        """Make the step that `follow` has made ready, and count it, all in C after the launches.

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
        n_threads = self.n_threads()
        for gpu in self.on_gpu:
            gpu.run()
        started = time.perf_counter_ns()
        rows = [table.rows for table in self._on_cpu]
        _tensors.step_and_count(
            rows, n_threads, coefficients, rules, ts, following, owner, noted, unscaled
        )
        self.note_time(n_threads, started)

    def capturing(self) -> bool:
        """Tell whether a step, or a part of it, would become part of a CUDA graph."""
        return bool(self.on_gpu) and any(map(capturing, {gpu.device for gpu in self.on_gpu}))

    def begin_capture(self) -> bool:
        """Make ready for what `follow` has taken over to be captured; False if it cannot be."""
        if not self._on_one_gpu():
            return False
        self._record(Recording(self.on_gpu[0].device))
        return True

    def _record(self, recording: Recording | None) -> None:
        """Let what is launched from now on be part of a graph, or not."""
        self._recording = recording
        for gpu in self.on_gpu:
            gpu.recording = recording

    def capture(self) -> None:
        """Launch the step into the graph that is being captured; it reads its scalars later."""
        assert self._recording is not None
        for gpu in self.on_gpu:
            gpu.capture()
        self._recordings.append(self._recording)
        self._record(None)

    def replay_and_count(
        self,
        rules: list[Any],
        ts: list[int],
        following: list[int],
        owner: dict[str, Any],
        noted: dict[str, Any],
        unscaled: Sequence[Any],
    ) -> None:
        """Write the scalars of `follow` to where graphs read them, and count as for a step."""
        for recording in self._recordings:
            recording.send()
        for gpu in self.on_gpu:
            gpu.write_scalars()
            # for the next graph
            gpu.reserve()
        _tensors.step_and_count([], [], [], rules, ts, following, owner, noted, unscaled)

    def n_threads(self) -> list[int]:
        """Return how many threads each call on the CPU takes."""
        return [engine.n_threads(table.total) for table in self._on_cpu]

    def note_time(self, n_threads: list[int], started: int) -> None:
        """Take in how long the step took that has just been made on so many threads."""
        if self._total:
            engine.note_time(max(n_threads), self._total, time.perf_counter_ns() - started)


def _one_scale(scales: Sequence[float | None] | None) -> float | None:
    """Return the one number that all gradients are divided by; 0 for nothing, None for several."""
    if scales is None:
        return 0.0
    one = scales[0]
    return one if one is not None and all(scale == one for scale in scales) else None
