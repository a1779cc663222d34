"""Loss scaling, static and dynamic, and what happens when a gradient is not finite."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from fastadam.algorithms.number import check_loss_scale, number
from fastadam.kernels.dtypes import computing_dtype
from fastadam.model.parameter import peek_grad
from fastadam.update.flags import FlagWithDefault
from fastadam.update.frozen import is_updated
from fastadam.update.gradients import (
    GradientStats,
    PendingStats,
    gradient_pass,
    is_scaled,
    unscale_gradients,
)
from fastadam.update.optimizer import Optimizer

__all__ = ["MISSING_GRADIENTS", "ON_NONFINITE", "LossScaling", "note_norm"]

MISSING_GRADIENTS = ("zeros", "skip")
ON_NONFINITE = ("propagate", "skip", "raise")

# Half-precision gradients are often too small for their type. A loss multiplied by a scale gives
# gradients multiplied by it; the update divides them again, in float32.


def one_of(known: tuple[str, ...], name: str, mode: str) -> str:
    """Return a mode, or raise ValueError if it is an unknown one."""
    if mode not in known:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, known))}, not {mode!r}")
    return mode


class LossScaling(Optimizer):
    """The part of :class:`fastadam.GradientMethod` that scales losses and looks at gradients.

    Attributes
    ----------
    monitor : bool
        Whether every update looks at the gradients, so that ``last_update`` has their norm and
        names those that are not finite.
    """

    monitor = FlagWithDefault()

    # Chainer's names, which its users' subclasses and trainers read.
    _loss_scale: float | None = None
    _loss_scale_max: float = 65504  # the largest float16
    _loss_scaling_is_dynamic: bool = False
    _loss_scaling_multiplier: float = 1.0
    _loss_scaling_isnan: bool = False
    _loss_scaling_isnan_ever: bool = False

    _missing_gradients: str = "zeros"
    _on_nonfinite: str = "propagate"
    # What the pass of the update that is running found.
    _facts: GradientStats | PendingStats | None = None
    # The parameters whose gradients it has divided; None between updates.
    _unscaled: Sequence[Any] | None = None

    def loss_scaling(self, interval: int = 1000, scale: float | None = None) -> None:
        """Multiply losses before the backward pass, and divide the gradients again.

        Without a `scale`, the scale is dynamic: it begins at 1 and doubles at every update until
        a gradient is not finite for the first time. An update whose gradients are not finite is
        skipped, and the scale halved. After the first of these the scale grows by the factor
        ``2**(1 / interval)`` at every update. It stays between 1 and 65504, the largest
        float16.

        Parameters
        ----------
        interval : int
            Updates in which a dynamic scale doubles; at least 1.
        scale : float, optional
            A static scale, above 0. A dynamic one that was there ends.

        Raises
        ------
        ValueError
            If `interval` is below 1, or `scale` is not a finite number above 0.
        TypeError
            If they are no numbers.

        Notes
        -----
        ``update(lossfun)`` with a link calls ``loss.backward(loss_scale=...)``. Where you compute
        gradients yourself, multiply the loss by `loss_scale` and hand the gradients on with
        ``apply_gradients(gradients, loss_scale=...)``. Gradients that come without a scale, and
        those of a pair ``(loss, gradients)``, count as true ones: they are not divided.

        References
        ----------
        Micikevicius et al., "Mixed Precision Training", arXiv:1710.03740.

        Examples
        --------
        >>> import numpy as np
        >>> import fastadam
        >>> opt = fastadam.Adam().setup({'w': np.zeros(2, np.float16)})
        >>> opt.loss_scaling(interval=10)
        >>> for _ in range(3):
        ...     scaled = {'w': np.full(2, 1e-3 * opt.loss_scale, np.float16)}
        ...     opt.apply_gradients(scaled, loss_scale=opt.loss_scale)
        >>> opt.loss_scale
        8.0
        """
        if scale is None:
            try:
                updates = number(interval)
            except TypeError:
                raise TypeError(
                    f"interval must be a number, not {interval!r}: loss_scaling() alone is a "
                    "dynamic scale, loss_scaling(scale=...) a static one"
                ) from None
            except ValueError:
                updates = math.nan
            if not updates >= 1:
                raise ValueError(
                    f"interval is the number of updates in which the loss scale doubles; it must "
                    f"be at least 1, not {interval!r}"
                )
            self._loss_scale = 1.0
            self._loss_scaling_is_dynamic = True
            self._loss_scaling_multiplier = math.pow(2.0, 1.0 / updates)
        else:
            try:
                self._check_loss_scale(scale)
            except (ValueError, TypeError) as error:
                raise type(error)(
                    f"{error}; for dynamic scaling call loss_scaling() without a scale, to switch "
                    "scaling off set loss_scale = None"
                ) from None
            self._loss_scale = scale
            self._loss_scaling_is_dynamic = False
        self._loss_scaling_isnan = False
        self._loss_scaling_isnan_ever = False

    def set_loss_scale(self, loss_scale: float) -> None:
        """Multiply losses by a fixed scale: ``loss_scaling(scale=loss_scale)``.

        Parameters
        ----------
        loss_scale : float
            The scale, above 0.

        Raises
        ------
        ValueError
            If it is not a finite number above 0.
        """
        self.loss_scaling(scale=loss_scale)

    @property
    def loss_scale(self) -> float | None:
        """The factor of the next loss; None without scaling. To set it is to make it static."""
        return self._loss_scale

    @loss_scale.setter
    def loss_scale(self, scale: float | None) -> None:
        if scale is not None:
            self.loss_scaling(scale=scale)
            return
        self._loss_scale = None
        self._loss_scaling_is_dynamic = False
        self._loss_scaling_isnan = self._loss_scaling_isnan_ever = False

    @property
    def missing_gradients(self) -> str:
        """What an update does with a parameter that has no gradient.

        'zeros', the default and Chainer's way: the gradient counts as zeros, so that moments decay
        and the parameter moves, by them and by weight decay. 'skip', as in PyTorch: the parameter,
        its state and its count are left alone, and hooks are not called for it.
        """
        return self._missing_gradients

    @missing_gradients.setter
    def missing_gradients(self, mode: str) -> None:
        self._missing_gradients = one_of(MISSING_GRADIENTS, "missing_gradients", mode)

    @property
    def on_nonfinite(self) -> str:
        """What an update does when a gradient is not finite.

        'propagate', the default and Chainer's way: nothing, so the parameter becomes NaN. 'skip':
        no parameter is touched; the update is counted, the hooks run. 'raise': FloatingPointError
        that names the parameters; nothing has changed but gradients. Dynamic loss scaling skips
        in any case.

        What is judged is the true gradient, rounded to the dtype that the step is computed in,
        before any hook. It and its square must be finite there: 2e19 is not in float32, since
        the second moment would be infinite.
        """
        return self._on_nonfinite

    @on_nonfinite.setter
    def on_nonfinite(self, mode: str) -> None:
        self._on_nonfinite = one_of(ON_NONFINITE, "on_nonfinite", mode)

    def check_nan_in_grads(self) -> None:
        """Look for gradients that are not finite, if the loss scale is dynamic.

        Every update calls it. It warns once for each such gradient, and `is_safe_to_update` and
        `update_loss_scale` then know. Only parameters that are to be updated count.
        """
        self._loss_scaling_isnan = False
        if not self._loss_scaling_is_dynamic:
            return
        facts = self._facts if self._facts is not None else self._look()
        for path in facts.nonfinite:
            self._loss_scaling_isnan = self._loss_scaling_isnan_ever = True
            warnings.warn(
                f"the gradient of {path!r} is not finite at t = {self.t} with loss scale "
                f"{self._loss_scale}: this update is skipped, the loss scale halved",
                UserWarning,
                stacklevel=2,
            )

    def is_safe_to_update(self) -> bool:
        """Tell whether the gradients that were looked at last may be used for an update.

        False after `check_nan_in_grads` has found one that is not finite, and during an update
        that ``on_nonfinite='skip'`` skips.
        """
        if self._on_nonfinite == "skip" and self._facts is not None and self._facts.nonfinite:
            return False
        return not self._loss_scaling_isnan

    def update_loss_scale(self) -> None:
        """Adapt a dynamic loss scale to what the last update found; every update calls it.

        The scale is halved if a gradient was not finite. Otherwise it is multiplied by
        ``2**(1 / interval)`` if one ever was, and doubled if not. It is kept within 1 and
        65504.
        """
        self._loss_scale = self._next_loss_scale()

    def _next_loss_scale(self) -> float | None:
        """Return what the loss scale is after this update."""
        if not self._loss_scaling_is_dynamic or self._loss_scale is None:
            return self._loss_scale
        if self._loss_scaling_isnan:
            factor = 0.5
        elif self._loss_scaling_isnan_ever:
            factor = self._loss_scaling_multiplier
        else:
            factor = 2.0
        return max(1.0, min(float(self._loss_scale_max), self._loss_scale * factor))

    def _check_loss_scale(self, scale: Any) -> None:
        """Refuse a scale that the parameters' gradients cannot be divided by."""
        params = () if self._targets is None else self._targets.parameters.values()
        check_loss_scale(scale, "a loss scale", _computing(params))

    def _check_left_scales(self) -> None:
        """Refuse scales that backward passes have left, before any gradient is divided."""
        for path, param in self._set_up().parameters.items():
            if is_scaled(param):
                door = f"the loss scale of parameter {path!r}"
                check_loss_scale(param._loss_scale, door, _computing([param]))

    def _unscale_and_look(self) -> None:
        """Make the gradient pass: unscale what is scaled, and measure all gradients if asked."""
        decides = self._loss_scaling_is_dynamic or self._on_nonfinite != "propagate"
        params = self._set_up().parameters.values()
        self._unscaled = [p for p in params if is_scaled(p) and peek_grad(p) is not None]
        with np.errstate(all="ignore"):
            squares = unscale_gradients(params)
            if decides or self.monitor:
                self._facts = gradient_pass(self._to_update(), squares, decides)

    def _note_norm(self, hook: Any, norm: float | None, sums: Any) -> None:
        """Take over what clipping has found, if it is the first hook of the update that runs.

        The norm, or where that is on a GPU the sums that it is made of.
        """
        first = next(iter(self._set_up_hooks().at("pre")), None)
        if self._unscaled is None or self._facts is not None or hook is not first:
            return
        if norm is not None:
            self._facts = GradientStats((), norm) if math.isfinite(norm) else self._look()
            return
        grads = {
            path: g for path, p in self._to_update().items() if (g := peek_grad(p)) is not None
        }
        self._facts = PendingStats(tuple(grads), grads if sums.may_overflow else {}, sums.values)

    def _look(self) -> GradientStats | PendingStats:
        """Look at the gradients as they are, between updates; they stay as they are."""
        return gradient_pass(self._to_update(), {}, True)

    def _to_update(self) -> dict[str, Any]:
        """Return the parameters that an update would touch, by path."""
        return {
            path: param
            for path, param in self._present().items()
            if param.array is not None and is_updated(param)
        }

    def _present(self) -> dict[str, Any]:
        """Return the parameters without those that are skipped for lack of a gradient."""
        parameters = self._set_up().parameters
        if self._missing_gradients != "skip":
            return parameters
        return {
            path: param
            for path, param in parameters.items()
            if param.array is not None and peek_grad(param) is not None
        }

    def _refuse_nonfinite(self) -> None:
        """Raise if ``on_nonfinite`` says so."""
        facts = self._facts
        if facts is None or self._on_nonfinite != "raise" or self._loss_scaling_is_dynamic:
            return
        if facts.nonfinite:
            names = ", ".join(map(repr, facts.nonfinite))
            raise FloatingPointError(
                f"the gradients of {names} are not finite at t = {self.t}; nothing has been "
                "updated. on_nonfinite = 'skip' would pass over such updates"
            )


def _computing(params: Iterable[Any]) -> Iterator[np.dtype[Any]]:
    """Yield the dtypes that the steps of parameters are computed in."""
    for param in params:
        dtype = getattr(param.array, "dtype", None)
        computing = None if dtype is None else computing_dtype(dtype)
        if computing is not None:
            yield computing


def note_norm(optimizer: Any, hook: Any, norm: float | None, sums: Any) -> None:
    """Tell an optimizer what a hook that clips has found: the norm, or the sums on a GPU."""
    if isinstance(optimizer, LossScaling):
        optimizer._note_norm(hook, norm, sums)
