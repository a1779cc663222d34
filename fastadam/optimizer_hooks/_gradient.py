"""What a hook works on: parameters and true gradients, in the type that steps are computed in."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastadam.algorithms.number import number
from fastadam.kernels.arrays import is_writeable
from fastadam.kernels.backend import beside, get_array_module
from fastadam.kernels.changing import ADD, ADD_SIGN, CLIP, MULTIPLY, change_gradients
from fastadam.kernels.dtypes import computing_dtype, is_floating
from fastadam.model.parameter import replace_grad
from fastadam.update.gradients import alone, is_scaled, unscale_gradients
from fastadam.update.hyperparameter import plain

__all__ = [
    "ChangesGradients",
    "Gradient",
    "ShowsArguments",
    "apply_ops",
    "change",
    "check_numbers",
    "gradients_of",
]

Array = npt.NDArray[Any]


class Gradient(NamedTuple):
    """A parameter's array p and its gradient g, as they are stored."""

    p: Array
    g: Array

    @property
    def computing(self) -> np.dtype[Any]:
        """The type that hooks compute in: the gradient's, but float32 for half-precision ones."""
        # float128, which users' own rules may step, is left as it is
        return computing_dtype(self.g.dtype) or self.g.dtype

    def scalar(self, value: float) -> Any:
        """Return a number in the type of the computation; infinite if it is too large for it."""
        with np.errstate(over="ignore"):
            return self.computing.type(value)


# The operations in array operations, of (p, g, a, b): for what the loops cannot walk.
_FORMULAS: dict[int, Callable[[Array, Array, Any, Any], Array]] = {
    ADD: lambda p, g, a, b: (g + a * p) * b,
    ADD_SIGN: lambda p, g, a, _: g + a * np.sign(p),
    CLIP: lambda _, g, a, b: np.clip(g, a, b),
    MULTIPLY: lambda p, g, a, b: g * b,
}


def change(
    kind: int,
    gradients: Sequence[Gradient],
    numbers: Sequence[tuple[float, float]],
    rates: Any = None,
) -> None:
    """Change gradients that share no memory, in one call those that the loops can walk.

    `numbers` has ``a`` and ``b`` of each. The rates are the numbers ``b`` on the GPU: one for each,
    or one for all.
    """
    for i in change_gradients(kind, gradients, numbers, rates):
        found = gradients[i]
        a, b = map(found.scalar, numbers[i])
        module: Any = get_array_module(found.g)
        with beside(found.g):
            if rates is not None:
                b = rates[i % rates.size].astype(found.computing)
            p, g = (each.astype(found.computing, copy=False) for each in found)
            module.copyto(found.g, _FORMULAS[kind](p, g, a, b), casting="same_kind")


def gradients_of(params: Iterable[Any]) -> list[Gradient]:
    """Return what a hook works on; parameters without array or gradient are left out.

    Gradients that are still multiplied by a loss scale, because the hook is called outside an
    update, are divided by it first. Those that must not be written, since they are read-only or
    share memory with the parameter or with one another, are replaced by copies.

    Raises
    ------
    TypeError
        If a parameter or gradient does not hold real floating numbers; no gradient has been
        changed then, but for the division.
    """
    params = [param for param in params if param.array is not None]
    unscale_gradients([param for param in params if is_scaled(param)])
    params = [param for param in params if param.grad is not None]
    for param in params:
        for what, array in (("array", param.array), ("gradient", param.grad)):
            if not is_floating(array.dtype):
                raise TypeError(
                    f"the {what} of parameter {param.name!r} has dtype {array.dtype}; the hooks of "
                    "optimizer_hooks are for real floating numbers: disable its rule, or convert it"
                )
    stored = [param.grad for param in params]
    for i, (param, single) in enumerate(zip(params, alone(stored), strict=True)):
        grad = stored[i]
        apart = not get_array_module(grad).may_share_memory(grad, param.array)
        if single and is_writeable(grad) and apart:
            continue
        stored[i] = grad.copy()
        replace_grad(param, stored[i])
    return [Gradient(param.array, grad) for param, grad in zip(params, stored, strict=True)]


class ShowsArguments:
    """What every hook here is: something that shows its arguments as they are now."""

    def __repr__(self) -> str:
        shown = (
            f"{name}={getattr(value, '__name__', None) or repr(plain(value))}"
            for name, value in vars(self).items()
            if not name.startswith("_")
        )
        return f"{type(self).__name__}({', '.join(shown)})"


class ChangesGradients(ShowsArguments):
    """A hook that changes the gradient of each parameter by itself."""

    call_for_each_param = True
    timing = "pre"

    def __call__(self, rule: Any, param: Any) -> None:
        """Change the gradient of one parameter, in place.

        Parameters
        ----------
        rule : UpdateRule or None
            Unused.
        param : Parameter
            Nothing happens if its array or its gradient is missing.

        Raises
        ------
        TypeError
            If they do not hold real floating numbers.
        """
        self.call_for_all([param])

    def call_for_all(self, params: Sequence[Any]) -> None:
        """Change the gradients of many parameters in one call; updates do it so.

        If one does not hold real floating numbers, none is changed.
        """
        raise NotImplementedError


def apply_ops(hook: Any, params: Sequence[Any]) -> None:
    """Change the gradients of many parameters in one call; updates do it so."""
    found = gradients_of(params)
    for kind, a, b in hook.ops():
        change(kind, found, [(a, b)] * len(found))


def check_numbers(hook: Any, least: float = -math.inf, **values: Any) -> None:
    """Refuse arguments of a hook that are no numbers, are NaN, or are below the least."""
    for name, value in values.items():
        where = f"{type(hook).__name__}({name}={value!r})"
        try:
            found = number(value)
        except TypeError:
            raise TypeError(f"{where}: {name} must be a number") from None
        except ValueError as error:
            raise ValueError(f"{where}: {name} is {error}") from None
        if math.isnan(found):
            raise ValueError(f"{where}: {name} must not be NaN")
        if found < least:
            raise ValueError(f"{where}: {name} must not be below {least}")
