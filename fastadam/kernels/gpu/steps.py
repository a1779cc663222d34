"""All that one step of many parameters makes on GPUs: launches, sums, and captures in graphs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastadam.algorithms.adam import Coefficients
from fastadam.kernels.backend import capturing
from fastadam.kernels.gpu.engine import Launch
from fastadam.kernels.gpu.sums import GpuSums
from fastadam.kernels.gpu.table import GpuTable, Written
from fastadam.kernels.gpu.uploads import Recording

__all__ = ["GpuSteps", "one_scale"]


def one_scale(scales: Sequence[float | None] | None) -> float | None:
    """Return the one number that all gradients are divided by; 0 for nothing, None for several."""
    if scales is None:
        return 0.0
    one = scales[0]
    return one if one is not None and list(scales).count(one) == len(scales) else None


class GpuSteps:
    """The tables on GPUs of one step.

    Parameters
    ----------
    tables : list of GpuTable
        What is stepped on GPUs; none where everything is on the CPU.
    size : int
        How many parameters the step has, on the CPU and on GPUs.
    alone : bool
        Whether nothing is on the CPU.
    """

    def __init__(self, tables: list[GpuTable], size: int, alone: bool) -> None:
        self._tables = tables
        self._size = size
        devices = {table.device for table in tables}
        self._devices = devices
        self._on_one = alone and len(devices) == 1
        self._kept = False
        # what graphs read, and where all of them put their sums
        self._recordings: list[Recording] = []
        self._recording: Recording | None = None
        # whether a graph has taken memory that was reserved for it
        self._taken = False
        self._replayed_sums: GpuSums | None = None

    def keep(self, low_precision: Sequence[Any], written: Sequence[Any], kept: bool) -> bool:
        """Read gradients that are part of what is written from copies, and keep what can be kept.

        Parameters
        ----------
        low_precision : sequence
            The half-precision parameters that are rounded from their masters, None for others;
            empty where there is none.
        written : sequence of array
            All that the step writes, on the CPU and on GPUs.
        kept : bool
            Whether the step may be kept at all.

        Returns
        -------
        bool
            Whether the tables may be kept for another step.
        """
        reached = Written.by(written)
        own = [
            [low_precision[i] if low_precision else None for i in table.indices]
            for table in self._tables
        ]
        for table, halves_of in zip(self._tables, own, strict=True):
            apart = table.untangle(reached)
            kept = kept and apart and table.can_be_kept(halves_of)
        if kept:
            for table, halves_of in zip(self._tables, own, strict=True):
                table.keep(halves_of, reached)
        self._kept = kept
        return kept

    def refresh(self, coefficients: list[Coefficients]) -> bool:
        """Take over gradients and scalars; False if something is not what was described."""
        if self._recording is not None:
            self._record(None)
        if self._taken and not self.capturing():
            self._reserve()
        return not self._kept or all(table.refresh(coefficients) for table in self._tables)

    @property
    def on_one(self) -> bool:
        """Whether all tables are kept, and on one GPU: then their launches can be made ready."""
        return self._kept and len(self._devices) == 1

    @property
    def device(self) -> int:
        """The GPU of all tables."""
        found: int = self._tables[0].device
        return found

    def launches(self) -> list[Launch]:
        """Return the launches of all tables, ready for the current stream of their device."""
        made = [table.launch() for table in self._tables]
        return [launch for launch in made if launch is not None]

    def run(self, serial: bool) -> None:
        """Launch the step; `serial` where its parameters reach into one another."""
        for table in self._tables:
            if self._kept:
                table.run()
            else:
                table.run_anew(serial)

    def sums_of_squares(self, scale: float) -> dict[int, float]:
        """Return the sum of squares of every gradient, by place; they are waited for."""
        found = {device: sums.values() for device, sums in self._sum(scale).items()}
        return {i: found[table.device][i] for table in self._tables for i in table.indices}

    def sums_of_one(self, scale: float) -> GpuSums | None:
        """Return the sums of squares as they are on the one GPU where everything is; else None."""
        return next(iter(self._sum(scale).values())) if self._on_one else None

    def _sum(self, scale: float) -> dict[int, GpuSums]:
        """Launch the sums of all gradients; somebody may look at them much later."""
        if self._on_one and self._replayed_sums is None:
            self._replayed_sums = GpuSums(self._size, self._tables[0].device, replayed=True)
        if self._recording is not None:
            assert self._replayed_sums is not None
            sums = {self._replayed_sums.device: self._replayed_sums}
        else:
            sums = {device: GpuSums(self._size, device) for device in self._devices}
        for table in self._tables:
            if table.computing == np.float64:
                sums[table.device].may_overflow = True
            table.sums_of_squares(scale, sums[table.device].totals)
        return sums

    def can_prepare(self, scaled: bool, write: bool) -> bool:
        """Tell whether the gradients may be divided, multiplied and written on the way."""
        return all(table.can_prepare(scaled, write) for table in self._tables)

    def prepare(self, scale: float, rate: Any, write: bool) -> None:
        """Say what the next step does to the gradients; a scale of 0 divides nothing."""
        for table in self._tables:
            table.prepare(scale, rate, write)

    def capturing(self) -> bool:
        """Tell whether a launch would become part of a CUDA graph."""
        return any(map(capturing, self._devices))

    def begin_capture(self) -> bool:
        """Make ready for a step to be captured; False if not everything is on one GPU."""
        if not self._on_one:
            return False
        self._record(Recording(self._tables[0].device))
        return True

    def _record(self, recording: Recording | None) -> None:
        """Let what is launched from now on be part of a graph, or not."""
        self._recording = recording
        for table in self._tables:
            table.recording = recording

    def capture(self) -> None:
        """Launch the step into the graph that is being captured; it reads its scalars later."""
        assert self._recording is not None
        for table in self._tables:
            table.capture()
        self._recordings.append(self._recording)
        self._taken = True
        self._record(None)

    def _reserve(self) -> None:
        """Have memory for the next graphs."""
        for table in self._tables:
            table.reserve()
        self._taken = False

    def forget(self) -> None:
        """Let go of what graphs read, none of which is launched any more."""
        self._recordings = []

    def replay(self) -> None:
        """Write the scalars of the last `refresh` to where graphs read them.

        Raises
        ------
        RuntimeError
            If a graph is being captured, of which this would become a part.
        """
        if self.capturing():
            raise RuntimeError(
                "prepare_replay() was called while a CUDA graph is captured: it comes before each "
                "launch of the graph, outside of captures"
            )
        for recording in self._recordings:
            recording.send()
        for table in self._tables:
            table.write_scalars()
        self._reserve()
