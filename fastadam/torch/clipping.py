"""Gradients clipped on their way into the step: by value, by their norm, or both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from fastadam.kernels.gpu.sums import GpuSums
from fastadam.kernels.multi_tensor import MultiTensorStep
from fastadam.kernels.ops import CLIP, MULTIPLY, Op
from fastadam.kernels.sums import global_norm

__all__ = ["BOUNDS", "Clipping", "GpuNorm", "Norm", "clipped", "clipped_on_gpu", "clipping"]

# What bounds of gradients are called as attributes of an optimizer.
BOUNDS = ("max_grad_norm", "max_grad_value")

# What clip_grad_norm_ adds to the norm that it divides by.
_TINY = 1e-6


class Clipping(NamedTuple):
    """Bounds of gradients; None is no bound. Values are clipped first."""

    norm: float | None
    value: float | None


class Norm(NamedTuple):
    """The norm of all gradients together, and the sums of squares that it is made of."""

    total: float
    squares: list[float]


class GpuNorm:
    """The norm of gradients on one GPU, which is waited for when somebody looks at it.

    Parameters
    ----------
    sums : GpuSums
        The sums of squares.
    """

    def __init__(self, sums: GpuSums) -> None:
        self._sums = sums

    @property
    def squares(self) -> list[float]:
        """The sum of squares of each gradient."""
        return self._sums.values()

    @property
    def total(self) -> float:
        """The norm of all of them together."""
        return global_norm((), self.squares)


def clipping(norm: object, value: object) -> Clipping | None:
    """Return the bounds, checked; None where there is none.

    Parameters
    ----------
    norm, value : float or None
        What `max_grad_norm` and `max_grad_value` say.

    Raises
    ------
    TypeError
        If one is no number.
    ValueError
        If one is not above 0.
    """
    if norm is None and value is None:
        return None
    return Clipping(_bound("max_grad_norm", norm), _bound("max_grad_value", value))


def _bound(name: str, bound: object) -> float | None:
    """Return one bound, checked."""
    if bound is None:
        return None
    if isinstance(bound, bool) or not isinstance(bound, int | float):
        raise TypeError(f"{name} must be a number or None, not {type(bound).__name__}")
    if not bound > 0:
        raise ValueError(f"{name} = {bound!r} must be above 0; None clips nothing")
    return float(bound)


def clipped(
    steps: MultiTensorStep, bounds: Clipping, programs: Sequence[list[Op]]
) -> tuple[list[list[Op]], Norm | None]:
    """Return programs that clip first, and the norm that was found on the way.

    Parameters
    ----------
    steps : MultiTensorStep
        Whose gradients have been read.
    bounds : Clipping
        The bounds.
    programs : sequence of list of Op
        What is done to the gradients after that.
    """
    first = [] if bounds.value is None else [Op(CLIP, -bounds.value, bounds.value)]
    norm = None
    if bounds.norm is not None:
        norm = measured(steps, first)
        factor = bounds.norm / (norm.total + _TINY)
        # a factor of 1 keeps its place, so that the programs keep their shape; NaN is not above 1
        first.append(Op(MULTIPLY, b=1.0 if factor >= 1 else factor))
    return [[*first, *program] for program in programs], norm


def measured(steps: MultiTensorStep, first: list[Op]) -> Norm:
    """Return the norm of all gradients after some operations, that of no gradients being 0."""
    if first:
        steps.program([first], 0, False)
        squares = steps.sums_of_squares_after(len(first))
    else:
        squares = steps.sums_of_squares()
    return Norm(global_norm((), squares), squares)


def clipped_on_gpu(steps: MultiTensorStep, bound: float) -> GpuNorm:
    """Let a step multiply its gradients, which are on one GPU, so that their norm is bounded.

    Nothing is waited for: the norm stays on the GPU, and so does what they are multiplied with.

    Parameters
    ----------
    steps : MultiTensorStep
        Whose gradients have been read.
    bound : float
        The bound.
    """
    sums = steps.gpu_sums()
    assert sums is not None
    steps.prepare(None, sums.bound_rate(bound), False)
    return GpuNorm(sums)
