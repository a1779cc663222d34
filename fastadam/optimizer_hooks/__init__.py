"""The hooks that Chainer ships, under the module name that Chainer has them.

What each is made with is an attribute of it, too, and may be changed at any time. Each has a
``name``, that of its class, under which it is added, and the ``timing`` 'pre'. All may be added to
an optimizer; those that look at one gradient at a time have a true ``call_for_each_param``, and may
be added to the rule of one parameter as well: that is all but `GradientClipping`.
"""

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
