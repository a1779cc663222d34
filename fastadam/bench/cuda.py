"""The first GPU as the place of a benchmark: who takes part, what the floor is, the GPU's clock."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from itertools import repeat
from typing import Any, ClassVar

from fastadam.bench import arrays
from fastadam.bench.cases import Case
from fastadam.bench.contender import Contender
from fastadam.bench.cuda_steps import (
    Apex,
    ChainerKernels,
    Copy,
    FastadamGpu,
    FastadamGraph,
    FastadamOnTorch,
    TorchCudaForeach,
    TorchCudaFused,
)
from fastadam.bench.floor import bytes_moved
from fastadam.bench.peers import OURS, Roster
from fastadam.bench.settings import VARIANTS
from fastadam.bench.timing import Subject
from fastadam.kernels.backend import require_cupy

__all__ = ["Cuda", "describe"]

_KINDS: tuple[type[Contender], ...] = (
    *(FastadamGpu, FastadamGraph, FastadamOnTorch, TorchCudaFused, TorchCudaForeach, Apex),
    ChainerKernels,
)


class Cuda(Roster):
    """Who takes part on the first GPU, with CuPy.

    Raises
    ------
    RuntimeError
        If there is no CuPy, or no GPU.
    """

    device: ClassVar[str] = "cuda"
    contenders: ClassVar[dict[str, type[Contender]]] = {kind.name: kind for kind in _KINDS}
    floor: ClassVar[type[Any]] = Copy
    # what drivers, compilers and allocators raise: what has been measured is kept
    failures: ClassVar[tuple[type[Exception], ...]] = (Exception,)
    own: ClassVar[frozenset[str]] = frozenset({FastadamGraph.name, FastadamOnTorch.name})

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

    def place(self, n_threads: int) -> str:
        """Say where steps are made."""
        return "on a GPU"

    def ready(self, variant: str, dtypes: Sequence[str], n_threads: int) -> list[type[Contender]]:
        """Return those that make this step, and make it right.

        Raises
        ------
        RuntimeError
            If fastadam does not.
        """
        able = super().ready(variant, dtypes, n_threads)
        if OURS[0] not in [kind.name for kind in able]:
            raise RuntimeError("fastadam's step on the GPU is not the step on the CPU")
        return able

    def free_bytes(self) -> int | None:
        """Return how much of the GPU's memory is free, or kept for arrays that nobody has."""
        free = int(self._cupy.cuda.runtime.memGetInfo()[0])
        free += int(self._cupy.get_default_memory_pool().free_bytes())
        torch = _torch_on_gpu()
        if torch is not None:
            free += torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
        return free

    def needed_bytes(self, case: Case, dtype: str | None, variant: str, contenders: int) -> int:
        """Return about how much of the GPU's memory a comparison takes."""
        stored, state = arrays.state_bytes(case, dtype, VARIANTS[variant])
        # gradients are each contender's own; the copy moves as much as it takes; temporary arrays
        each = 2 * stored + state
        return contenders * each + bytes_moved(case, dtype, VARIANTS[variant]) + 3 * stored

    def release(self) -> None:
        """Give the GPU's memory back that CuPy and PyTorch keep for their next arrays."""
        self._cupy.get_default_memory_pool().free_all_blocks()
        torch = _torch_on_gpu()
        if torch is not None:
            torch.cuda.empty_cache()


def _torch_on_gpu() -> Any:
    """Return PyTorch, if it is loaded and sees a GPU."""
    torch = sys.modules.get("torch")
    return torch if torch is not None and torch.cuda.is_available() else None


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
    """Return what the GPU is, and the versions of driver, runtime, compiler and CuPy.

    Raises
    ------
    RuntimeError
        If there is no CuPy, or no GPU.
    """
    cupy = require_cupy()
    runtime = cupy.cuda.runtime
    count = runtime.deviceGetAttribute(runtime.cudaDevAttrMultiProcessorCount, 0)
    return {
        "gpu": runtime.getDeviceProperties(0)["name"].decode(),
        "compute_capability": str(cupy.cuda.Device(0).compute_capability),
        "multiprocessors": int(count),
        "memory_bytes": int(runtime.memGetInfo()[1]),
        "driver": runtime.driverGetVersion(),
        "runtime": runtime.runtimeGetVersion(),
        "nvrtc": ".".join(map(str, cupy.cuda.nvrtc.getVersion())),
        "cupy": cupy.__version__,
    }
