"""What a hook works on: parameters and true gradients, in the type that steps are computed in."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastadam.gradient_pass import is_scaled, unscale_gradients
from fastadam.kernels.dtypes import computing_dtype
from fastadam.parameter import replace_grad

__all__ = ["Gradient", "gradient_of", "non_negative"]

Array = npt.NDArray[Any]


class Gradient(NamedTuple):
    """A parameter's array p and its gradient as an array that may be written.

    ``g`` and ``p`` are in the type that hooks compute in, T: the gradient's, but float32 for
    float16 and bfloat16.
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
    update, is divided by it first. None, too, for arrays that cannot be stepped: the update
    says what is wrong with them.
    """
    if param.array is None or param.grad is None:
        return None
    if is_scaled(param):
        unscale_gradients([param])
    stored = param.grad
    if not stored.flags.writeable:
        stored = stored.copy()
        replace_grad(param, stored)
    T = computing_dtype(stored.dtype)  # noqa: N806
    if T is None or computing_dtype(param.array.dtype) is None:
        return None
    # an array that is in T already is not copied
    return Gradient(param.array.astype(T, copy=False), stored.astype(T, copy=False), stored)


def non_negative(hook: Any, **values: Any) -> None:
    """Refuse arguments of a hook that are not numbers, are NaN, or are below 0.

    Raises
    ------
    TypeError, ValueError
        With the names of hook and argument.
    """
    for name, value in values.items():
        where = f"{type(hook).__name__}({name}={value!r})"
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise TypeError(f"{where}: {name} must be a number") from None
        if not number >= 0:
            raise ValueError(f"{where}: {name} must not be below 0")
