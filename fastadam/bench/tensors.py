"""Who steps PyTorch's tensors: fastadam's classes for them, PyTorch's own, and DeepSpeed's."""

from __future__ import annotations

from typing import ClassVar

from fastadam.bench.arrays import Array
from fastadam.bench.contender import Contender, check, imported
from fastadam.bench.libraries import (
    DeepSpeed,
    FastadamTensors,
    Torch,
    TorchForeach,
    TorchFused,
    TorchSingle,
    tensor,
)
from fastadam.bench.peers import Roster
from fastadam.bench.settings import VARIANTS, Variant
from fastadam.optimizer_hooks import GradientClipping
from fastadam.optimizers import Adam

__all__ = ["ClippedTensors", "Tensors"]

# The largest norm of all gradients, far below what they have in every case.
_LARGEST_NORM = 1.0


class _FastadamClipping(FastadamTensors):
    """fastadam, which clips inside the step."""

    more: ClassVar[dict[str, float]] = {"max_grad_norm": _LARGEST_NORM}


class _Clipping(Torch):
    """``clip_grad_norm_``, and PyTorch's step."""

    def __init__(self, variant: Variant, params: list[Array]) -> None:
        super().__init__(variant, params)
        self._clip = imported("torch").nn.utils.clip_grad_norm_

    def give(self, grads: list[Array]) -> None:
        """Copy the gradients, which are clipped in place."""
        for parameter, grad in zip(self.parameters, grads, strict=True):
            parameter.grad = tensor(grad).clone()

    def step(self) -> None:
        """Step."""
        self._clip(self.parameters, _LARGEST_NORM)
        self.optimizer.step()


class _FusedClipping(_Clipping, TorchFused):
    """With the fused step."""


class _ForeachClipping(_Clipping, TorchForeach):
    """With an operation at a time."""


class _SingleClipping(_Clipping, TorchSingle):
    """With a tensor at a time."""


def _named(*kinds: type[Contender]) -> dict[str, type[Contender]]:
    """Return contenders by their names."""
    return {kind.name: kind for kind in kinds}


class Tensors(Roster):
    """Who steps PyTorch's tensors on the CPUs of this machine."""

    contenders: ClassVar[dict[str, type[Contender]]] = _named(
        FastadamTensors, TorchFused, TorchForeach, TorchSingle, DeepSpeed
    )


class ClippedTensors(Roster):
    """The same, with gradients clipped by the norm of all; DeepSpeed itself clips none."""

    contenders: ClassVar[dict[str, type[Contender]]] = _named(
        _FastadamClipping, _FusedClipping, _ForeachClipping, _SingleClipping
    )

    def check(self, kind: type[Contender], variant: str, dtype: str) -> float:
        """Compare with fastadam's steps, whose gradients are clipped by a hook."""
        return check(kind, VARIANTS[variant], dtype, _clip)


def _clip(optimizer: Adam) -> None:
    """Let an optimizer clip gradients."""
    optimizer.add_hook(GradientClipping(_LARGEST_NORM))
