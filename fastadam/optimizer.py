"""Optimizers, update rules and hyperparameters, under the module name that Chainer has them."""

from fastadam._optimizer import Optimizer
from fastadam.gradient_method import GradientMethod
from fastadam.hyperparameter import Hyperparameter, HyperparameterProxy
from fastadam.update_rule import UpdateRule

__all__ = ["GradientMethod", "Hyperparameter", "HyperparameterProxy", "Optimizer", "UpdateRule"]
