"""Where a benchmark runs: who takes part there, what the floor is, and how steps are timed."""

from __future__ import annotations

from collections.abc import Callable
from itertools import repeat
from typing import Any, ClassVar

from fastadam.bench import arrays
from fastadam.bench.arrays import Array
from fastadam.bench.cases import Case
from fastadam.bench.contender import Contender
from fastadam.bench.cuda_steps import (
    ChainerKernels,
    Copy,
    FastadamGpu,
    FastadamGraph,
    TorchCudaForeach,
    TorchCudaFused,
)
from fastadam.bench.floor import Floor
from fastadam.bench.other_steps import Chainer, Optax
from fastadam.bench.own import FastadamArrays, FastadamLink, PlainNumpy
from fastadam.bench.settings import Variant
from fastadam.bench.timing import Subject, block
from fastadam.bench.torch_steps import DeepSpeed, TorchForeach, TorchFused, TorchSingle
from fastadam.kernels.backend import require_cupy

__all__ = ["DEVICES", "Cpu", "Cuda"]


def _by_name(*kinds: type[Contender]) -> dict[str, type[Contender]]:
    return {kind.name: kind for kind in kinds}


class Cpu:
    """The CPUs of this machine."""

    name: ClassVar[str] = "cpu"
    contenders: ClassVar[dict[str, type[Contender]]] = _by_name(
        *(FastadamArrays, FastadamLink, PlainNumpy, TorchFused, TorchForeach, TorchSingle),
        *(Optax, DeepSpeed, Chainer),
    )
    # What is measured if nothing is asked for.
    cases: ClassVar[tuple[str, ...] | None] = None
    what: ClassVar[tuple[str, ...] | None] = None

    def describe(self) -> dict[str, Any]:
        """Return nothing beyond what is told of every machine."""
        return {}

    def floor(
        self, case: Case, dtype: str | None, variant: Variant, grads: list[Array]
    ) -> Callable[[], None]:
        """Return a step's reads and writes without its arithmetic."""
        return Floor(case, dtype, variant, grads).step

    def block(self, subject: Subject, steps: int) -> float:
        """Make steps; return the microseconds of one."""
        return block(subject, steps)

    def free_bytes(self) -> int | None:
        """Return how much memory is free."""
        return arrays.free_bytes()


class Cuda:
    """The first GPU, with CuPy.

    Raises
    ------
    RuntimeError
        If there is no CuPy, or no GPU.
    """

    name: ClassVar[str] = "cuda"
    contenders: ClassVar[dict[str, type[Contender]]] = _by_name(
        FastadamGpu, FastadamGraph, TorchCudaFused, TorchCudaForeach, ChainerKernels
    )
    cases: ClassVar[tuple[str, ...] | None] = (
        *("mlp", "many", "many-fresh", "16m", "resnet50", "gpt2", "100m"),
    )
    what: ClassVar[tuple[str, ...] | None] = ("ratios", "host")

    def __init__(self) -> None:
        self._cupy = require_cupy()

    def describe(self) -> dict[str, Any]:
        """Return the GPU's name, and the versions of driver, runtime and CuPy."""
        runtime = self._cupy.cuda.runtime
        return {
            "gpu": runtime.getDeviceProperties(0)["name"].decode(),
            "driver": runtime.driverGetVersion(),
            "runtime": runtime.runtimeGetVersion(),
            "cupy": self._cupy.__version__,
        }

    def floor(
        self, case: Case, dtype: str | None, variant: Variant, grads: list[Array]
    ) -> Callable[[], None]:
        """Return a copy, on the GPU, of half of the bytes that a step reads and writes."""
        return Copy(case, dtype, variant).step

    def block(self, subject: Subject, steps: int) -> float:
        """Make steps; return the microseconds of one by the GPU's clock."""
        step, before = subject.step, subject.before
        if before is None:
            return self._timed(step, steps) / steps
        total = 0.0
        for _ in repeat(None, steps):
            before()
            total += self._timed(step, 1)
        return total / steps

    def _timed(self, step: Callable[[], object], steps: int) -> float:
        """Return the microseconds between two events around steps."""
        cuda = self._cupy.cuda
        start, end = cuda.Event(), cuda.Event()
        cuda.runtime.deviceSynchronize()
        start.record()
        for _ in repeat(None, steps):
            step()
        end.record()
        end.synchronize()
        return float(cuda.get_elapsed_time(start, end)) * 1000

    def free_bytes(self) -> int | None:
        """Return how much of the GPU's memory is free, and CuPy's own that nobody uses."""
        free: int = self._cupy.cuda.runtime.memGetInfo()[0]
        return free + int(self._cupy.get_default_memory_pool().free_bytes())


# By the names of --device.
DEVICES: dict[str, Callable[[], Cpu | Cuda]] = {"cpu": Cpu, "cuda": Cuda}
