"""Clipping of gradients by their common norm, as a hook."""

from __future__ import annotations

import math
from typing import Any

from fastadam.kernels.changing import MULTIPLY
from fastadam.kernels.sums import global_norm, gpu_sums
from fastadam.optimizer_hooks._gradient import ShowsArguments, change, check_numbers, gradients_of
from fastadam.update.loss_scale import note_norm
from fastadam.update.optimizer import Optimizer
from fastadam.update.overrides import folds

__all__ = ["GradientClipping"]


@folds
class GradientClipping(ShowsArguments):
    r"""Hook that scales all gradients down so that their common norm is at most a threshold.

    .. math::
        n &= \sqrt{\textstyle\sum_i \|g_i\|^2} \\
        g_i &\leftarrow \min\left(1, \frac{\text{threshold}}{n}\right) g_i

    The norm is of the parameters that are to be updated, and summed in float64, so that no
    half-precision gradient makes it overflow. Gradients whose norm is not finite are left as
    they are: what happens then is for ``on_nonfinite`` and loss scaling to say.

    Parameters
    ----------
    threshold : float
        The largest norm; not below 0.

    Raises
    ------
    TypeError, ValueError
        If it is no number, NaN, or below 0.

    References
    ----------
    Pascanu, Mikolov and Bengio, "On the difficulty of training recurrent neural networks",
    arXiv:1211.5063.

    Examples
    --------
    >>> import numpy as np
    >>> import fastadam
    >>> opt = fastadam.Adam().setup({'w': np.ones(2)})
    >>> opt.add_hook(fastadam.optimizer_hooks.GradientClipping(1.0))
    """

    name = "GradientClipping"
    timing = "pre"

    def __init__(self, threshold: float) -> None:
        check_numbers(self, 0, threshold=threshold)
        self.threshold = threshold

    def __call__(self, opt: Any) -> None:
        """Change the gradients of an optimizer's parameters, in place.

        Parameters
        ----------
        opt : Optimizer
            A set-up optimizer, fastadam's or another library's with ``target.params()``.

        Raises
        ------
        RuntimeError
            If the optimizer is not set up.
        TypeError
            If a parameter or gradient does not hold real floating numbers.
        """
        found = gradients_of(_hooked_parameters(opt))
        gradients = [gradient.g for gradient in found]
        sums = gpu_sums(gradients)
        # n = sqrt(sum of all squares); where all is on one GPU, nobody waits for it
        rates = None if sums is None else sums.clip_rate(self.threshold)
        norm = global_norm(gradients) if sums is None else None
        rate = 1.0 if norm is None else self.rate(norm)
        note_norm(opt, self, norm, sums)
        if rate is not None:
            # g *= threshold / n
            change(MULTIPLY, found, [(0.0, rate)] * len(found), rates)

    def rate(self, norm: float) -> float | None:
        """Return what gradients of this norm are multiplied with; None if they stay as they are.

        Parameters
        ----------
        norm : float
            The norm of all gradients together.
        """
        # min(1, threshold / n)
        return self.threshold / norm if self.threshold < norm < math.inf else None


def _hooked_parameters(opt: Any) -> list[Any]:
    """Return the parameters that an optimizer is going to update, each once."""
    if isinstance(opt, Optimizer):
        return opt._hooked_parameters()
    params = list({id(param): param for param in opt.target.params()}.values())
    # a frozen one may have no rule, but so may all of an optimizer that knows no rules
    return [p for p in params if getattr(getattr(p, "update_rule", None), "enabled", True)]
