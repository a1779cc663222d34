"""What is done to gradients, folded into the step: where nobody else's code looks at them before.

The gradients are divided by loss scales, summed and clipped on their way; they are neither read
nor written once more.
"""

from __future__ import annotations

import math
from operator import attrgetter
from typing import Any

from fastadam.kernels.sums import global_norm
from fastadam.model._gradients import any_lent
from fastadam.update.gradients import PendingStats, is_scaled
from fastadam.update.graph import Replay
from fastadam.update.interrupt import DeferredInterrupt
from fastadam.update.overrides import brought_by_class
from fastadam.update.plan import UpdatePlan

__all__ = ["Folded", "calls_own_parts", "parts_of", "step"]

# Parts of an update that a subclass or an object may have made its own: then they are called.
_PARTS = (
    "reallocate_cleared_grads",
    "call_hooks",
    "call_hook",
    "check_nan_in_grads",
    "is_safe_to_update",
)

# The parts of an update as a class has them.
parts_of = attrgetter(*_PARTS)


class Folded:
    """An update without anybody else's code between gradients and step.

    Parameters
    ----------
    optimizer : GradientMethod
        The optimizer.
    plan : UpdatePlan
        Found to hold, with these gradients.
    gradients : list
        Of all parameters, in their order.
    scales : list or None
        What each gradient is divided by; None is nothing.
    lent : bool
        Whether the gradients are a caller's, which are never written.
    """

    def __init__(
        self,
        optimizer: Any,
        plan: UpdatePlan,
        gradients: list[Any],
        scales: list[float | None] | None,
        lent: bool,
    ) -> None:
        assert plan.steps is not None
        self._optimizer = optimizer
        self._plan = plan
        self._batch = plan.steps.batch
        self._gradients = gradients
        self._scales = scales
        self._lent = lent
        self._clipping: Any = None
        self._found: Any = None

    def run(self, hooks: list[Any]) -> bool:
        """Make the update; False, with nothing changed, if there is more to do.

        Parameters
        ----------
        hooks : list
            The 'pre' hooks.
        """
        optimizer, plan, scales = self._optimizer, self._plan, self._scales
        decides = optimizer._loss_scaling_is_dynamic or optimizer._on_nonfinite != "propagate"
        asked = scales or decides or optimizer.monitor
        recording = self._batch.capturing()
        if hooks:
            self._clipping = hooks[0]
            if len(hooks) > 1 or not brought_by_class(hooks[0], "folds"):
                return False
        if (asked or hooks or recording) and not (
            plan.is_whole and self._batch.whole and self._batch.takes(scales)
        ):
            return False
        adapts = optimizer._adapts()
        if recording and (decides or adapts or not self._batch.begin_capture()):
            return False
        looked: tuple[Any, Any] | None = None, 1.0
        if asked or hooks:
            looked = self._look(bool(decides), bool(asked))
        if looked is None:
            return False
        self._found, rate = looked
        # a rate on a GPU is known there alone
        plain = scales is None and type(rate) is float and rate == 1
        # a gradient that was lent to a parameter must not be written
        if not plain and not self._lent and any_lent(plan.params):
            return False
        if not self._batch.prepare(self._gradients, scales, rate, not self._lent):
            return False
        unscaled = [] if self._lent or scales is None else list(filter(is_scaled, plan.params))
        if recording:
            self._capture(unscaled)
        else:
            step(optimizer, plan, self._found, unscaled, adapts)
        return True

    def _look(self, decides: bool, asked: bool) -> tuple[Any, Any] | None:
        """Return what there is to know of the gradients, and what clipping multiplies them with.

        On a GPU, both stay there as long as the host has nothing to decide by them. None if
        gradients are not finite, which takes a closer look.
        """
        clipping, paths = self._clipping, self._plan.paths
        sums = None if decides else self._batch.gpu_sums(self._scales)
        if sums is not None:
            # the steps are all that there is to update, in the order of the paths
            pairs = zip(paths, self._gradients, strict=True) if sums.may_overflow else ()
            facts = PendingStats(paths, dict(pairs), sums.values)
            return facts, 1.0 if clipping is None else sums.clip_rate(clipping.threshold)
        squares = self._batch.squares(self._scales)
        norm = global_norm((), squares)
        if not math.isfinite(norm) or (asked and self._batch.doubtful(squares)):
            return None
        rate = None if clipping is None else clipping.rate(norm)
        return norm, 1.0 if rate is None else rate

    def _capture(self, unscaled: list[Any]) -> None:
        """Launch the step into the graph that is being captured; nothing is counted."""
        optimizer, plan = self._optimizer, self._plan
        self._batch.capture()
        for param in unscaled:
            param._loss_scale = None
        held = None if self._lent else (self._scales, unscaled)
        targets = optimizer._set_up()
        replay = Replay(optimizer, targets, plan, self._gradients, self._found, held)
        replay.join(optimizer._replay)
        optimizer._replay = replay
        optimizer._graphs = (*optimizer._graphs, replay)


def step(optimizer: Any, plan: UpdatePlan, found: Any, unscaled: list[Any], adapts: bool) -> None:
    """Make the step of a plan, and note it with its report and loss scale.

    Parameters
    ----------
    optimizer : GradientMethod
        The optimizer.
    plan : UpdatePlan
        All that there is to do.
    found : object
        What has been found of the gradients: their norm, more, or nothing.
    unscaled : list of Parameter
        Those whose gradients are true ones from then on.
    adapts : bool
        Whether the loss scale is adapted in a way of the optimizer's own.
    """
    own, t = optimizer.__dict__, optimizer.t + 1
    noted: dict[str, Any] = {
        "t": t,
        "_last": (t, False, found, optimizer._loss_scale, plan.paths),
    }
    if optimizer._loss_scaling_is_dynamic:
        noted["_loss_scaling_isnan"] = own["_loss_scaling_isnan"] = False
        if not adapts:
            noted["_loss_scale"] = optimizer._next_loss_scale()
    if not adapts:
        plan.run(own, noted, unscaled)
        return
    # the step and what a subclass makes of the scale are one for Ctrl-C
    with DeferredInterrupt():
        plan.run(own, noted, unscaled)
        optimizer.update_loss_scale()


def calls_own_parts(optimizer: Any, ours: tuple[Any, ...]) -> bool:
    """Tell whether a class, or an object, has a part of the update of its own.

    Parameters
    ----------
    optimizer : GradientMethod
        The optimizer.
    ours : tuple
        What `parts_of` says of the class of this library.
    """
    return parts_of(type(optimizer)) != ours or not optimizer.__dict__.keys().isdisjoint(_PARTS)
