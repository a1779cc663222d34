"""The first GPU as the place of a benchmark: who takes part, what the floor is, the GPU's clock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import repeat
from typing import Any, ClassVar

from cuda_steps import (
    ChainerKernels,
    Copy,
    FastadamGpu,
    FastadamGraph,
    TorchCudaForeach,
    TorchCudaFused,
)

from fastadam.bench.contender import Contender
from fastadam.bench.peers import Roster
from fastadam.bench.timing import Subject
from fastadam.kernels.backend import require_cupy

KINDS: tuple[type[Contender], ...] = (
    *(FastadamGpu, FastadamGraph, TorchCudaFused, TorchCudaForeach, ChainerKernels),
)


class Cuda(Roster):
    """Who takes part on the first GPU, with CuPy.

    Raises
    ------
    RuntimeError
        If there is no CuPy, or no GPU.
    """

    device: ClassVar[str] = "cuda"
    contenders: ClassVar[dict[str, type[Contender]]] = {kind.name: kind for kind in KINDS}
    floor: ClassVar[type[Any]] = Copy

    def __init__(self, names: Sequence[str]) -> None:
        self._cupy = require_cupy()
        super().__init__(names)
        gpu = describe()
        self.versions["gpu"] = f"{gpu['gpu']}, driver {gpu['driver']}, cupy {gpu['cupy']}"

    @staticmethod
    def block(subject: Subject, steps: int) -> float:
        """Make steps; return the microseconds of one by the GPU's clock."""
        step, before = subject.step, subject.before
        if before is None:
            return _timed(step, steps) / steps
        total = 0.0
        for _ in repeat(None, steps):
            before()
            total += _timed(step, 1)
        return total / steps

    def free_bytes(self) -> int | None:
        """Return how much of the GPU's memory is free, and CuPy's own that nobody uses."""
        free: int = self._cupy.cuda.runtime.memGetInfo()[0]
        return free + int(self._cupy.get_default_memory_pool().free_bytes())


def _timed(step: Callable[[], object], steps: int) -> float:
    """Return the microseconds between two events around steps."""
    cuda = require_cupy().cuda
    start, end = cuda.Event(), cuda.Event()
    cuda.runtime.deviceSynchronize()
    start.record()
    for _ in repeat(None, steps):
        step()
    end.record()
    end.synchronize()
    return float(cuda.get_elapsed_time(start, end)) * 1000


def describe() -> dict[str, Any]:
    """Return the GPU's name, and the versions of driver, runtime and CuPy."""
    cupy = require_cupy()
    runtime = cupy.cuda.runtime
    return {
        "gpu": runtime.getDeviceProperties(0)["name"].decode(),
        "driver": runtime.driverGetVersion(),
        "runtime": runtime.runtimeGetVersion(),
        "cupy": cupy.__version__,
    }
