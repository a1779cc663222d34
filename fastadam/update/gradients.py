"""The one pass over the gradients: true ones from scaled ones, their norm, what is not finite.

What is judged is what the step uses: the true gradient, rounded to the dtype that the step is
computed in, before any hook. It counts as finite if its square is, too: the second moment would be
infinite otherwise, and NaN the next step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np

from fastadam.kernels.arrays import is_writeable
from fastadam.kernels.backend import beside, is_array, is_gpu_array
from fastadam.kernels.dtypes import computing_dtype
from fastadam.kernels.memory import extent, sharing
from fastadam.kernels.sums import (
    finite_squares,
    global_norm,
    largest_square,
    sum_of_squares,
    unscale,
)
from fastadam.model.parameter import Parameter, is_lent, peek_grad, put_grad, replace_grad

__all__ = [
    "GradientStats",
    "PendingStats",
    "alone",
    "arrays_of",
    "copy_shared_gradients",
    "gradient_pass",
    "is_scaled",
    "narrow_gradients",
    "put_back_gradients",
    "unscale_gradients",
]


class GradientStats(NamedTuple):
    """What a pass found: the paths of gradients that are not finite, and the norm of all."""

    nonfinite: tuple[str, ...]
    norm: float


class PendingStats:
    """The same of gradients on a GPU, whose sums are waited for when something is looked at.

    Parameters
    ----------
    paths : tuple of str
        Where the gradients are.
    doubtful : mapping of str to array
        Those that may be looked at again, by path, where their sum of squares leaves it open
        whether each square is finite. Of the others the sum decides.
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
    def _known(self) -> GradientStats:
        squares = self._squares()
        nonfinite = tuple(
            path
            for path, total in zip(self._paths, squares, strict=True)
            if not self._is_finite(path, total)
        )
        return GradientStats(nonfinite, global_norm(list(self._doubtful.values()), squares))

    def _is_finite(self, path: str, total: float) -> bool:
        """Tell whether a gradient and its squares are finite, by their sum or another look."""
        array = self._doubtful.get(path)
        if array is None:
            return math.isfinite(total)
        computing = computing_dtype(array.dtype) or np.dtype(np.float64)
        return total <= largest_square(computing) or finite_squares(array)

    @property
    def nonfinite(self) -> tuple[str, ...]:
        """The paths of gradients that are not finite."""
        return self._known.nonfinite

    @property
    def norm(self) -> float:
        """The norm of all gradients together."""
        return self._known.norm

    def again(self) -> PendingStats:
        """Return what other gradients in the same places will be found to be."""
        return PendingStats(self._paths, self._doubtful, self._squares)

    def __reduce__(self) -> tuple[Any, ...]:
        # a copy has what was found, not what it was found in
        return GradientStats, tuple(self._known)


def _may_overflow(array: Any) -> bool:
    """Tell whether an array's sum of squares may be infinite though its elements are finite."""
    return computing_dtype(array.dtype) != np.float32


def _as_computed(param: Any, grad: Any) -> Any:
    """Return a gradient in the dtype that its parameter's step is computed in."""
    computing = computing_dtype(param.array.dtype)
    own = computing_dtype(grad.dtype)
    # NumPy takes None for float64
    if computing is None or (own is not None and own == computing):
        return grad
    with np.errstate(all="ignore"), beside(grad):
        return grad.astype(computing)


def _widened(param: Any, grad: Any) -> Any:
    """Return a gradient in float64 if the parameter's step is computed in that."""
    wide = computing_dtype(param.array.dtype) == np.float64
    return _as_computed(param, grad) if wide else grad


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
    grads = [_widened(param, peek_grad(param)) for param in with_grad]
    true, squares = unscale(
        grads,
        [float(param._loss_scale) for param in with_grad],
        [
            single and is_writeable(grad) and not is_lent(param)
            for param, grad, single in zip(with_grad, grads, alone(grads), strict=True)
        ],
    )
    quotients = {id(param): grad for param, grad in zip(with_grad, true, strict=True)}
    for param in scaled:
        if id(param) in quotients:
            replace_grad(param, quotients[id(param)])
        param._loss_scale = None
    # what is rounded once more, to the dtype of the step, is summed again
    return {
        id(param): partial(squares.__getitem__, i)
        for i, param in enumerate(with_grad)
        if computing_dtype(true[i].dtype) == computing_dtype(peek_grad(param).dtype)
    }


def copy_shared_gradients(params: Iterable[Any]) -> list[tuple[Any, Any, Any]]:
    """Put a copy in the place of every gradient that has an element in what updates write.

    That is: a parameter, its float32 master, and the state of its rule.

    Returns
    -------
    list of (Parameter, array, array)
        Whose gradient it was, the gradient, and the copy.
    """
    params = [param for param in params if param.array is not None]
    written = [array for param in params for array in arrays_of(param)]
    with_grad = [param for param in params if peek_grad(param) is not None]
    grads = [peek_grad(param) for param in with_grad]
    copied = []
    for i in sharing(grads, written):
        param, grad = with_grad[i], grads[i]
        with beside(grad):
            # sums are in the order of memory
            copy = grad.copy(order="K")
        put_grad(param, copy)
        copied.append((param, grad, copy))
    return copied


def put_back_gradients(copied: Iterable[tuple[Any, Any, Any]]) -> None:
    """Undo `copy_shared_gradients` where the copy is there still."""
    for param, grad, copy in copied:
        if peek_grad(param) is copy:
            put_grad(param, grad)


def arrays_of(param: Any) -> list[Any]:
    """Return the arrays that the update of a parameter may write, whether it is frozen or not."""
    rule = getattr(param, "update_rule", None)
    known = getattr(rule, "_written", None)
    arrays = [param.array] if known is None else [array for _, array in known(param)]
    state = getattr(rule, "state", None)
    arrays += state.values() if isinstance(state, dict) else []
    return [array for array in arrays if is_array(array)]


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
    parameters: Mapping[str, Any],
    squares: Mapping[int, Callable[[], float]],
    decides: bool = True,
) -> GradientStats | PendingStats:
    """Look at the gradients of the parameters that are to be updated.

    Parameters
    ----------
    parameters : mapping of str to Parameter
        Those to be updated, by path.
    squares : mapping of int to callable
        What `unscale_gradients` has summed already.
    decides : bool
        Whether something is decided by it at once, so that gradients on a GPU may be looked at
        again.
    """
    grads = {
        path: _as_computed(param, grad)
        for path, param in parameters.items()
        if (grad := peek_grad(param)) is not None
    }
    missing = [path for path in grads if id(parameters[path]) not in squares]
    sums = sum_of_squares([grads[path] for path in missing])
    known = {path: partial(sums.__getitem__, i) for i, path in enumerate(missing)}
    looks = [known.get(path) or squares[id(parameters[path])] for path in grads]
    doubtful = {
        path: grad
        for path, grad in grads.items()
        if decides or not is_gpu_array(grad) or _may_overflow(grad)
    }
    pending = PendingStats(tuple(grads), doubtful, lambda: [look() for look in looks])
    if any(map(is_gpu_array, grads.values())):
        return pending
    return GradientStats(pending.nonfinite, pending.norm)
