"""Optimizers, update rules and hyperparameters, under the module name that Chainer has them.

The names of five hooks that Chainer once had here are there, too. They warn; the hooks are in
:mod:`fastadam.optimizer_hooks`.
"""

import warnings
from typing import Any

from fastadam import optimizer_hooks
from fastadam.update.gradient_method import GradientMethod
from fastadam.update.hyperparameter import Hyperparameter, HyperparameterProxy
from fastadam.update.optimizer import Optimizer
from fastadam.update.rule import UpdateRule

__all__ = [
    "GradientClipping",
    "GradientHardClipping",
    "GradientMethod",
    "GradientNoise",
    "Hyperparameter",
    "HyperparameterProxy",
    "Lasso",
    "Optimizer",
    "UpdateRule",
    "WeightDecay",
]


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


class WeightDecay(_OldName, optimizer_hooks.WeightDecay):
    """Deprecated name of :class:`fastadam.optimizer_hooks.WeightDecay`."""


class Lasso(_OldName, optimizer_hooks.Lasso):
    """Deprecated name of :class:`fastadam.optimizer_hooks.Lasso`."""


class GradientClipping(_OldName, optimizer_hooks.GradientClipping):
    """Deprecated name of :class:`fastadam.optimizer_hooks.GradientClipping`."""


class GradientNoise(_OldName, optimizer_hooks.GradientNoise):
    """Deprecated name of :class:`fastadam.optimizer_hooks.GradientNoise`."""


class GradientHardClipping(_OldName, optimizer_hooks.GradientHardClipping):
    """Deprecated name of :class:`fastadam.optimizer_hooks.GradientHardClipping`."""
