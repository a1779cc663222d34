"""Sums of squares on a GPU, in the defined order, and what clipping makes of them there.

The host waits for a sum only if somebody asks for its value.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fastadam.kernels.backend import current_stream, loaded_cupy, on_device, wait_for
from fastadam.kernels.gpu.engine import (
    CHUNK,
    THREADS,
    WARP,
    KeptLaunch,
    c_flag,
    launch,
)
from fastadam.kernels.gpu.uploads import DeviceTable, Recording, allocate

__all__ = ["SPAN", "GpuSquares", "GpuSums", "lars_rates"]

# One row, as gpu/source.py spells it.
SPAN = np.dtype([(name, np.uint64) for name in ("n", "start", "place")])


class GpuSums:
    """The sums of squares of gradients on one GPU.

    Parameters
    ----------
    n : int
        How many.
    device : int
        The GPU.
    replayed : bool
        Whether they are made by graphs, on streams that nobody tells.

    Attributes
    ----------
    totals : cupy.ndarray of float64, shape (n,)
        The sums; 0 where none has been made, unless they are replayed.
    may_overflow : bool
        Whether a sum may be infinite though all elements are finite: those of float64.
    """

    may_overflow = False

    def __init__(self, n: int, device: int, replayed: bool = False) -> None:
        self.device = device
        # the sums are to be looked at in the order of the stream that makes them
        self._stream = None if replayed else current_stream(device)
        self.totals = allocate(device, n, np.float64)
        self._rate = allocate(device, 1, np.float64)
        if not replayed:
            with on_device(device):
                self.totals.fill(0)

    def values(self) -> list[float]:
        """Return the sums, which are waited for."""
        if self._stream is None:
            wait_for(self.device)
        with on_device(self.device):
            values: list[float] = self.totals.get(self._stream).tolist()
        return values

    def clip_rate(self, threshold: float) -> Any:
        """Return, on the GPU, what all gradients are multiplied with to be clipped to a norm."""
        return self._rate_by("clip_rate", threshold)

    def bound_rate(self, bound: float) -> Any:
        """Return the same as PyTorch's ``clip_grad_norm_`` has it, which spoils all by a NaN."""
        return self._rate_by("bound_rate", bound)

    def _rate_by(self, kernel: str, bound: float) -> Any:
        launch(kernel, (), self.device, 1, (self.totals, self.totals.size, bound, self._rate))
        return self._rate


class GpuSquares:
    """The table of gradients on one GPU; it may be kept.

    Parameters
    ----------
    sizes : sequence of int
        Elements of each gradient.
    indices : sequence of int
        The indices of their sums.
    device : int
        The GPU.
    """

    def __init__(self, sizes: Sequence[int], indices: Sequence[int], device: int) -> None:
        self.device = device
        spans = np.zeros(len(sizes), SPAN)
        chunks = -(-np.asarray(sizes, np.int64) // CHUNK)
        spans["n"] = sizes
        spans["start"] = np.cumsum(chunks) - chunks
        spans["place"] = indices
        self._spans: npt.NDArray[Any] = spans
        self._chunks = np.repeat(np.arange(len(sizes), dtype=np.uint32), chunks)
        self._on_gpu = DeviceTable(device), DeviceTable(device)
        self._n = len(self._chunks)
        self._launch = KeptLaunch("squares", device)
        self._sums = allocate(device, len(self._chunks), np.float64)

    def run(
        self,
        types: tuple[str, str],
        gradients: Any,
        quotients: Any,
        scale: float,
        totals: Any,
        recording: Recording | None = None,
    ) -> None:
        """Launch the sums.

        Parameters
        ----------
        types : (str, str)
            What is computed in, and how the gradients are stored.
        gradients : cupy.ndarray
            The address of each gradient.
        quotients : cupy.ndarray or None
            Where each is written, divided.
        scale : float
            What each is divided by, 0 for nothing.
        totals : cupy.ndarray of float64
            Receives the sums, each in its place.
        recording : Recording, optional
            Of the graph that this is captured in.
        """
        stream = None if recording is not None else current_stream(self.device)
        spans, chunks = (
            # they never change
            table.put(rows, recording, 0, stream)
            for table, rows in zip(self._on_gpu, (self._spans, self._chunks), strict=True)
        )
        n = self._n
        how = *types, c_flag(scale != 0), c_flag(quotients is not None)
        arguments = (spans, gradients, quotients, chunks, n, scale, self._sums)
        self._launch.run(how, -(-n // (THREADS // WARP)), arguments)
        launch("add_chunks", (), self.device, len(self._spans), (spans, self._sums, totals))


def lars_rates(
    p_sums: GpuSums, g_sums: GpuSums, threshold: float, weight_decay: float, eps: float
) -> Any:
    """Return, on the GPU, the rates of ``GradientLARS`` with these arguments.

    They are made from the sums of the parameters and of their gradients.
    """
    n = p_sums.totals.size
    with on_device(p_sums.device):
        rates = loaded_cupy().empty(n, np.float64)
    arguments = (p_sums.totals, g_sums.totals, n, threshold, weight_decay, eps, rates)
    launch("lars_rates", (), p_sums.device, -(-n // THREADS), arguments)
    return rates
