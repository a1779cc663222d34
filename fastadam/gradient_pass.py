"""The one pass over the gradients: true ones from scaled ones, their norm, what is not finite."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fastadam.kernels.arrays import extent
from fastadam.kernels.norm import global_norm, sum_of_squares, unscale
from fastadam.parameter import Parameter, peek_grad, replace_grad

__all__ = [
    "GradientFacts",
    "alone",
    "gradient_pass",
    "is_scaled",
    "narrow_gradients",
    "unscale_gradients",
]


class GradientFacts(NamedTuple):
    """What a pass found: the paths of gradients that are not finite, and the norm of all."""

    nonfinite: tuple[str, ...]
    norm: float


def is_scaled(param: Any) -> bool:
    """Tell whether a backward pass has left the gradient multiplied by a loss scale."""
    return param.array is not None and getattr(param, "_loss_scale", None) is not None


def unscale_gradients(params: Iterable[Any]) -> dict[int, float]:
    """Divide scaled gradients by their loss scales, once and for all.

    From there on the gradients are the true ones and their parameters' loss scales None. That of
    a half-precision parameter becomes float32: dividing is what could make it too small for
    its own dtype. Others are divided in place, unless they are a caller's, read-only, or share
    memory.

    Returns
    -------
    dict of int to float
        The sum of squares of each new gradient, by the id of its parameter.
    """
    scaled = [param for param in params if is_scaled(param)]
    with_grad = [param for param in scaled if peek_grad(param) is not None]
    grads = [peek_grad(param) for param in with_grad]
    true, squares = unscale(
        grads,
        [float(param._loss_scale) for param in with_grad],
        [
            single and grad.flags.writeable and not getattr(param, "_grad_borrowed", False)
            for param, grad, single in zip(with_grad, grads, alone(grads), strict=True)
        ],
    )
    quotients = {id(param): grad for param, grad in zip(with_grad, true, strict=True)}
    for param in scaled:
        if id(param) in quotients:
            replace_grad(param, quotients[id(param)])
        param._loss_scale = None
    return {id(param): square for param, square in zip(with_grad, squares, strict=True)}


def alone(arrays: Sequence[Any]) -> list[bool]:
    """Tell of each array whether it shares memory with none of the others."""
    spans = [extent(array) for array in arrays]
    single = [True] * len(arrays)
    reach, last = 0, 0
    for i in sorted(range(len(arrays)), key=spans.__getitem__):
        low, high = spans[i]
        if low < reach:
            single[i] = single[last] = False
        if high > reach:
            reach, last = high, i
    return single


def narrow_gradients(params: Iterable[Any]) -> None:
    """Give other libraries' half-precision parameters gradients of their own dtype again.

    Their next backward pass, or what adds gradients, takes no others.
    """
    for param in params:
        grad = None if isinstance(param, Parameter) else param.grad
        if grad is not None and grad.dtype != param.array.dtype:
            with np.errstate(over="ignore", under="ignore"):
                param.grad = grad.astype(param.array.dtype)


def gradient_pass(parameters: Mapping[str, Any], squares: Mapping[int, float]) -> GradientFacts:
    """Look at the gradients of the parameters that are to be updated.

    Parameters
    ----------
    parameters : mapping of str to Parameter
        Those to be updated, by path.
    squares : mapping of int to float
        What `unscale_gradients` has summed already.
    """
    grads = {
        path: grad for path, param in parameters.items() if (grad := peek_grad(param)) is not None
    }
    missing = [path for path in grads if id(parameters[path]) not in squares]
    known = dict(zip(missing, sum_of_squares([grads[path] for path in missing]), strict=True))
    sums = [known[path] if path in known else squares[id(parameters[path])] for path in grads]
    # a float64 sum may overflow although its elements are finite
    suspects = [path for path, total in zip(grads, sums, strict=True) if not np.isfinite(total)]
    nonfinite = tuple(path for path in suspects if not np.all(np.isfinite(grads[path])))
    return GradientFacts(nonfinite, global_norm(list(grads.values()), sums))
