"""Optimizers, update rules and hyperparameters, under the module name that Chainer has them.

The names of five hooks that Chainer once had here are there, too. They warn; the hooks are in
:mod:`fastadam.optimizer_hooks`.
"""

from fastadam.optimizer_hooks.deprecated import (
    GradientClipping,
    GradientHardClipping,
    GradientNoise,
    Lasso,
    WeightDecay,
)
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
