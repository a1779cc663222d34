"""Where a benchmark runs: who takes part there, what the floor is, and how steps are timed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from fastadam.bench import arrays
from fastadam.bench.arrays import Array
from fastadam.bench.cases import Case
from fastadam.bench.contender import Contender
from fastadam.bench.floor import Floor
from fastadam.bench.other_steps import Chainer, Optax
from fastadam.bench.own import FastadamArrays, FastadamLink, PlainNumpy
from fastadam.bench.settings import Variant
from fastadam.bench.timing import Subject, block
from fastadam.bench.torch_steps import DeepSpeed, TorchForeach, TorchFused, TorchSingle

__all__ = ["Cpu", "by_name"]


def by_name(*kinds: type[Contender]) -> dict[str, type[Contender]]:
    """Return contenders by their names."""
    return {kind.name: kind for kind in kinds}


class Cpu:
    """The CPUs of this machine."""

    name: ClassVar[str] = "cpu"
    contenders: ClassVar[dict[str, type[Contender]]] = by_name(
        *(FastadamArrays, FastadamLink, PlainNumpy, TorchFused, TorchForeach, TorchSingle),
        *(Optax, DeepSpeed, Chainer),
    )

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
