"""A caller's gradients, handed to the parameters for one update."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastadam.parameter import Parameter, replace_grad
from fastadam.targets import Target

__all__ = ["lend_gradients"]


def lend_gradients(targets: Target, grads: Any, loss_scale: float | None = None) -> None:
    """Give every parameter its gradient; if one is refused, leave none behind.

    Parameters
    ----------
    targets : Target
        The walked target.
    grads : array, dict or list
        The gradients in the target's structure; None is no gradient.
    loss_scale : float, optional
        What the loss was multiplied by.

    Raises
    ------
    TypeError, ValueError
        If gradients are missing, superfluous or misshaped, or are no real floating numbers.
    """
    found = targets.gradients(grads)
    try:
        for path, grad in found.items():
            param = targets.parameters[path]
            if grad is None:
                param.cleargrad()
            elif isinstance(param, Parameter):
                param.lend_grad(grad)
            else:
                # another library's parameter is given a copy, which its users may write
                ours = Parameter(param.array, name=getattr(param, "name", None))
                ours.lend_grad(grad)
                replace_grad(param, np.asarray(ours.grad))
            param._loss_scale = loss_scale
    except BaseException:
        for path in found:
            param = targets.parameters[path]
            param.cleargrad()
            param._loss_scale = None
        raise
