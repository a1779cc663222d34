"""The five hooks under the names that Chainer once had in its module of optimizers."""

from __future__ import annotations

import warnings
from typing import Any

from fastadam.optimizer_hooks import (
    gradient_clipping,
    gradient_hard_clipping,
    gradient_noise,
    lasso,
    weight_decay,
)

__all__ = ["GradientClipping", "GradientHardClipping", "GradientNoise", "Lasso", "WeightDecay"]


class _OldName:
    """A hook that warns when it is made, and otherwise is the one in `optimizer_hooks`."""

    name: str

    def __init__(self, *args: Any, **kwds: Any) -> None:
        warnings.warn(
            f"fastadam.optimizer.{self.name} is deprecated; the hook is "
            f"fastadam.optimizer_hooks.{self.name}",
            DeprecationWarning,
            stacklevel=2,
        )
        super().__init__(*args, **kwds)


class WeightDecay(_OldName, weight_decay.WeightDecay):
    """Deprecated name of :class:`fastadam.optimizer_hooks.WeightDecay`."""


class Lasso(_OldName, lasso.Lasso):
    """Deprecated name of :class:`fastadam.optimizer_hooks.Lasso`."""


class GradientClipping(_OldName, gradient_clipping.GradientClipping):
    """Deprecated name of :class:`fastadam.optimizer_hooks.GradientClipping`."""


class GradientNoise(_OldName, gradient_noise.GradientNoise):
    """Deprecated name of :class:`fastadam.optimizer_hooks.GradientNoise`."""


class GradientHardClipping(_OldName, gradient_hard_clipping.GradientHardClipping):
    """Deprecated name of :class:`fastadam.optimizer_hooks.GradientHardClipping`."""
