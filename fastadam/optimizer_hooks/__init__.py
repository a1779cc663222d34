"""The hooks that Chainer ships, under the module name that Chainer has them."""

from fastadam.optimizer_hooks.gradient_clipping import GradientClipping
from fastadam.optimizer_hooks.gradient_hard_clipping import GradientHardClipping
from fastadam.optimizer_hooks.gradient_lars import GradientLARS
from fastadam.optimizer_hooks.gradient_noise import GradientNoise, exponential_decay_noise
from fastadam.optimizer_hooks.lasso import Lasso
from fastadam.optimizer_hooks.weight_decay import WeightDecay

__all__ = [
    "GradientClipping",
    "GradientHardClipping",
    "GradientLARS",
    "GradientNoise",
    "Lasso",
    "WeightDecay",
    "exponential_decay_noise",
]
