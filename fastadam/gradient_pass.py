"""The one pass over the gradients: true ones from scaled ones, their norm, what is not finite."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np

from fastadam.kernels.arrays import extent, is_writeable
from fastadam.kernels.backend import is_gpu_array
from fastadam.kernels.dtypes import computing_dtype
from fastadam.kernels.norm import all_finite, global_norm, sum_of_squares, unscale
from fastadam.parameter import Parameter, peek_grad, replace_grad

__all__ = [
    "GradientFacts",
    "PendingFacts",
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


class PendingFacts:
    """The same of gradients on a GPU, whose sums are waited for when something is looked at.

    Parameters
    ----------
    paths : tuple of str
        Where the gradients are.
    doubtful : mapping of str to array
        Those whose sum of squares may be infinite although all elements are finite, by path. They
        alone are looked at again.
    squares : callable
        Returns the sums of squares of all.
    """

    def __init__(
        self,
        paths: tuple[str, ...],
        doubtful: Mapping[str, Any],
        squares: Callable[[], Sequence[float]],
    ) -> None:
        self._paths = paths
        self._doubtful = doubtful
        self._squares = squares

    @cached_property
    def _known(self) -> GradientFacts:
        squares = self._squares()
        nonfinite = tuple(
            path
            for path, total in zip(self._paths, squares, strict=True)
            if not math.isfinite(total)
            and not (path in self._doubtful and all_finite(self._doubtful[path]))
        )
        # beside sums that overflow, those of the other gradients are nothing
        return GradientFacts(nonfinite, global_norm(list(self._doubtful.values()), squares))

    @property
    def nonfinite(self) -> tuple[str, ...]:
        """The paths of gradients that are not finite."""
        return self._known.nonfinite

    @property
    def norm(self) -> float:
        """The norm of all gradients together."""
        return self._known.norm

    def again(self) -> PendingFacts:
        """Return what other gradients in the same places will be found to be."""
        return PendingFacts(self._paths, self._doubtful, self._squares)

    def __reduce__(self) -> tuple[Any, ...]:
        # a copy has what was found, not what it was found in
        return GradientFacts, tuple(self._known)


def _may_overflow(array: Any) -> bool:
    """Tell whether an array's sum of squares may be infinite though its elements are finite."""
    return computing_dtype(array.dtype) != np.float32


def is_scaled(param: Any) -> bool:
    """Tell whether a backward pass has left the gradient multiplied by a loss scale."""
    return param.array is not None and getattr(param, "_loss_scale", None) is not None


def unscale_gradients(params: Iterable[Any]) -> dict[int, Callable[[], float]]:
    """Divide scaled gradients by their loss scales, once and for all.

    From there on the gradients are the true ones and their parameters' loss scales None. That of
    a half-precision parameter becomes float32: dividing is what could make it too small for
    its own dtype. Others are divided in place, unless they are a caller's, read-only, or share
    memory.

    Returns
    -------
    dict of int to callable
        What returns the sum of squares of each new gradient, by the id of its parameter.
    """
    scaled = [param for param in params if is_scaled(param)]
    with_grad = [param for param in scaled if peek_grad(param) is not None]
    grads = [peek_grad(param) for param in with_grad]
    true, squares = unscale(
        grads,
        [float(param._loss_scale) for param in with_grad],
        [
            single and is_writeable(grad) and not getattr(param, "_grad_borrowed", False)
            for param, grad, single in zip(with_grad, grads, alone(grads), strict=True)
        ],
    )
    quotients = {id(param): grad for param, grad in zip(with_grad, true, strict=True)}
    for param in scaled:
        if id(param) in quotients:
            replace_grad(param, quotients[id(param)])
        param._loss_scale = None
    return {id(param): partial(squares.__getitem__, i) for i, param in enumerate(with_grad)}


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


def gradient_pass(
    parameters: Mapping[str, Any], squares: Mapping[int, Callable[[], float]]
) -> GradientFacts | PendingFacts:
    """Look at the gradients of the parameters that are to be updated.

    Parameters
    ----------
    parameters : mapping of str to Parameter
        Those to be updated, by path.
    squares : mapping of int to callable
        What `unscale_gradients` has summed already.
    """
    grads = {
        path: grad for path, param in parameters.items() if (grad := peek_grad(param)) is not None
    }
    missing = [path for path in grads if id(parameters[path]) not in squares]
    sums = sum_of_squares([grads[path] for path in missing])
    known = {path: partial(sums.__getitem__, i) for i, path in enumerate(missing)}
    looks = [known.get(path) or squares[id(parameters[path])] for path in grads]
    doubtful = {path: grad for path, grad in grads.items() if _may_overflow(grad)}
    pending = PendingFacts(tuple(grads), doubtful, lambda: [look() for look in looks])
    if any(map(is_gpu_array, grads.values())):
        return pending
    return GradientFacts(pending.nonfinite, pending.norm)
