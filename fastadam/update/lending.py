"""A caller's gradients, handed to the parameters for one update."""

from __future__ import annotations

from typing import Any, cast

import numpy.typing as npt

from fastadam.kernels.backend import is_array
from fastadam.kernels.dtypes import type_name
from fastadam.model.parameter import Parameter, lend, lendable, replace_grad
from fastadam.update.target import Target

__all__ = ["lend_gradients", "lend_one"]


def lend_gradients(targets: Target, grads: Any, loss_scale: float | None = None) -> None:
    """Give every parameter its gradient; if one is refused, all keep what they had.

    Parameters
    ----------
    targets : Target
        The walked target.
    grads : array, dict or list
        The gradients in the target's structure; None in it is no gradient.
    loss_scale : float, optional
        What the loss was multiplied by.

    Raises
    ------
    TypeError, ValueError
        If gradients are missing, superfluous or misshaped, or are no real floating numbers; if
        there are none at all, but None.
    """
    if grads is None:
        raise TypeError(
            "no gradients came, but None: did the function that computes them forget its return? "
            "(None may only be in the place of single gradients of a dict or list)"
        )
    ready = [
        (param := targets.parameters[path], None if grad is None else _checked(param, grad))
        for path, grad in targets.gradients(grads).items()
    ]
    for param, checked in ready:
        lend_one(param, checked, loss_scale)


def lend_one(param: Any, checked: Any, loss_scale: float | None) -> None:
    """Give a parameter a gradient that fits.

    Parameters
    ----------
    param : Parameter
        The parameter.
    checked : array or None
        Its gradient.
    loss_scale : float or None
        What the loss was multiplied by.
    """
    if checked is None:
        param.cleargrad()
    elif isinstance(param, Parameter):
        lend(param, checked)
    else:
        replace_grad(param, checked)
    param._loss_scale = loss_scale


def _checked(param: Any, grad: Any) -> npt.NDArray[Any]:
    """Return a gradient as an array that fits, in a copy for another library's parameter."""
    if isinstance(param, Parameter):
        return lendable(param, grad)
    name, array = getattr(param, "name", None), param.array
    if array is not None and not is_array(array):
        raise TypeError(f"parameter {name!r} must be a numpy.ndarray, not {type_name(array)}")
    ours = Parameter(array, name=name)
    ours.lend_grad(grad)
    # its users may write it
    return cast("npt.NDArray[Any]", ours.grad)
