"""What a hook works on: parameters and true gradients, in the type that steps are computed in."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastadam.gradient_pass import is_scaled, unscale_gradients
from fastadam.kernels.dtypes import computing_dtype, is_floating
from fastadam.parameter import replace_grad

__all__ = ["Gradient", "gradient_of", "non_negative", "number"]

Array = npt.NDArray[Any]


class Gradient(NamedTuple):
    """A parameter's array p and its gradient as an array that may be written.

    ``g`` and ``p`` are in the type that hooks compute in, T: the gradient's, but float32 for
    float16 and bfloat16. ``g`` may be ``stored``, the parameter's gradient itself.
    """

    p: Array
    g: Array
    stored: Array

    def scalar(self, value: float) -> Any:
        """Return a number in T; one that is too large for it is infinite."""
        with np.errstate(over="ignore"):
            return self.g.dtype.type(value)

    def put(self, g: Array) -> None:
        """Write a gradient in place of the old one, rounded once to its dtype."""
        if g is not self.stored:
            np.copyto(self.stored, g, casting="same_kind")


def gradient_of(param: Any) -> Gradient | None:
    """Return what a hook works on; None if the array or the gradient is missing.

    A gradient that is still multiplied by a loss scale, because the hook is called outside an
    update, is divided by it first. One that must not be written, since it is read-only or shares
    memory with the parameter, is replaced by a copy.

    Raises
    ------
    TypeError
        If parameter or gradient do not hold real floating numbers.
    """
    if param.array is None:
        return None
    if is_scaled(param):
        unscale_gradients([param])
    if param.grad is None:
        return None
    stored = param.grad
    for what, array in (("array", param.array), ("gradient", stored)):
        if not is_floating(array.dtype):
            raise TypeError(
                f"the {what} of parameter {param.name!r} has dtype {array.dtype}; the hooks of "
                "optimizer_hooks are for real floating numbers: disable its rule, or convert it"
            )
    if not stored.flags.writeable or np.may_share_memory(stored, param.array):
        stored = stored.copy()
        replace_grad(param, stored)
    # float128, which users' own rules may step, is left as it is
    T = computing_dtype(stored.dtype) or stored.dtype  # noqa: N806
    # an array that is in T already is not copied
    return Gradient(param.array.astype(T, copy=False), stored.astype(T, copy=False), stored)


def number(hook: Any, **values: Any) -> None:
    """Refuse arguments of a hook that are not numbers, or are NaN.

    Raises
    ------
    TypeError, ValueError
        With the names of hook and argument.
    """
    for name, value in values.items():
        where = f"{type(hook).__name__}({name}={value!r})"
        try:
            nan = math.isnan(value)
        except (TypeError, ValueError):
            raise TypeError(f"{where}: {name} must be a number") from None
        if nan:
            raise ValueError(f"{where}: {name} must not be NaN")


def non_negative(hook: Any, **values: Any) -> None:
    """Refuse arguments of a hook that are not numbers, are NaN, or are below 0.

    Raises
    ------
    TypeError, ValueError
        With the names of hook and argument.
    """
    number(hook, **values)
    for name, value in values.items():
        if value < 0:
            where = f"{type(hook).__name__}({name}={value!r})"
            raise ValueError(f"{where}: {name} must not be below 0")
