"""An update made again, as long as only gradients and scalars have changed since the last one."""

from __future__ import annotations

import math
from operator import attrgetter
from typing import Any

from fastadam.kernels._noted import Noted
from fastadam.kernels.sums import global_norm
from fastadam.model.parameter import Parameter
from fastadam.update.gradients import PendingStats, is_scaled
from fastadam.update.interrupt import DeferredInterrupt
from fastadam.update.overrides import brought_by_class, class_overrides
from fastadam.update.replay import Replay
from fastadam.update.rule_batch import RuleBatch
from fastadam.update.target import Target

__all__ = ["Repetition", "repeatable"]

# Parts of an update that a subclass or an object may have made its own; then none is repeated.
_PARTS = (
    "reallocate_cleared_grads",
    "call_hooks",
    "call_hook",
    "check_nan_in_grads",
    "is_safe_to_update",
)
# And what an object may have of its own, while a subclass's is called.
_OWN_PARTS = (*_PARTS, "update_loss_scale")
_METHODS = attrgetter(*_OWN_PARTS)


class Repetition:
    """What an update has found, from which the next one may go on.

    Parameters
    ----------
    optimizer : GradientMethod
        The optimizer.
    targets : Target
        The optimizer's.
    batch : RuleBatch
        All that there was to update.
    applied : tuple of str
        The paths of its parameters.
    clipping : object, optional
        The only hook, with ``rate(norm)``.
    adapts : bool
        Whether the optimizer adapts its loss scale in a way of its own.
    """

    def __init__(
        self,
        optimizer: Any,
        targets: Target,
        batch: RuleBatch,
        applied: tuple[str, ...],
        clipping: Any = None,
        adapts: bool = False,
    ) -> None:
        # a walk that finds others makes another dict
        self._parameters = targets.parameters
        self._kind = type(optimizer)
        self._methods = _METHODS(self._kind)
        # not the optimizer itself, which is to be freed as soon as nobody else has it
        self._table = optimizer._set_up_hooks()
        self._hooks = Noted()
        for hooks in self._table.tables():
            self._hooks.entries(hooks)
        self._targets = targets
        self._batch = batch
        self._applied = applied
        self._clipping = clipping
        self._adapts = adapts
        kinds = dict.fromkeys(map(type, batch.params))
        self._updates = [(kind, getattr(kind, "update", None)) for kind in kinds]
        self._ours = all(isinstance(param, Parameter) for param in batch.params)
        # the last update, if there was one, left the gradients as they are
        self._plain = False
        self._unscaled: list[float | None] = [None] * len(batch.params)

    def run(self, optimizer: Any, grads: Any = None, loss_scale: float | None = None) -> bool:
        """Make the update of before again, if that is all there is to do.

        Parameters
        ----------
        optimizer : GradientMethod
            The optimizer.
        grads : array, dict or list, optional
            A caller's gradients; without them the parameters have theirs.
        loss_scale : float, optional
            What a caller's gradients are divided by.

        Returns
        -------
        bool
            False if there is more to do; then nothing has been changed.
        """
        own = optimizer.__dict__
        if (
            self._targets.parameters is not self._parameters
            or optimizer._targets is not self._targets
            or type(optimizer) is not self._kind
            or _METHODS(self._kind) != self._methods
            or optimizer._hooks is not self._table
            or not self._hooks.same()
            or not own.keys().isdisjoint(_OWN_PARTS)
            or not self._targets.unchanged()
            or not self._same_updates()
        ):
            return False
        batch = self._batch
        gradients: list[Any] | None
        lent = grads is not None
        scales: list[float | None] | None = None
        if lent:
            gradients = self._targets.ordered(grads)
            # the longer way ends with the parameters' own gradients cleared
            if gradients is None or not batch.cleared():
                return False
            if loss_scale is not None:
                scales = [loss_scale] * len(gradients)
        else:
            gradients = batch.gradients()
            left = [getattr(param, "_loss_scale", None) for param in batch.params]
            try:
                scales = left if left != self._unscaled else None
            except ValueError:
                # an array of several elements, which is refused on the longer way
                return False
        if not batch.ready(gradients):
            return False
        recording = batch.capturing()
        dynamic = optimizer._loss_scaling_is_dynamic
        decides = dynamic or optimizer._on_nonfinite != "propagate"
        asked = scales or decides or optimizer.monitor
        if recording and (decides or self._adapts or not batch.begin_capture()):
            return False
        found: Any = None
        rate: Any = 1.0
        if asked or self._clipping is not None:
            if not batch.takes(scales):
                return False
            looked = self._look(scales, gradients, bool(decides), bool(asked))
            if looked is None:
                return False
            found, rate = looked
        # a rate on a GPU is known there alone
        plain = scales is None and type(rate) is float and rate == 1
        # a gradient that was lent to a parameter must not be written
        if not plain and not lent and self._ours and any(p._grad_borrowed for p in batch.params):
            return False
        # nobody sees a caller's gradients again; those of parameters are seen afterwards
        if not (plain and self._plain) and not batch.prepare(gradients, scales, rate, not lent):
            return False
        self._plain = plain
        unscaled = [] if lent or scales is None else list(filter(is_scaled, batch.params))
        if recording:
            batch.capture(unscaled)
            held = None if lent else (scales, unscaled)
            replay = Replay(optimizer, self._targets, batch, self._applied, gradients, found, held)
            replay.join(optimizer._replay)
            optimizer._replay = replay
            optimizer._graphs = (*optimizer._graphs, replay)
            return True
        t = optimizer.t + 1
        report = (t, False, found, optimizer._loss_scale, self._applied)
        noted: dict[str, Any] = {"t": t, "_last": report}
        if dynamic:
            noted["_loss_scaling_isnan"] = own["_loss_scaling_isnan"] = False
        if not self._adapts:
            if dynamic:
                noted["_loss_scale"] = optimizer._next_loss_scale()
            batch.step(own, noted, unscaled)
            return True
        # the step and what a subclass makes of the scale are one for Ctrl-C
        with DeferredInterrupt():
            batch.step(own, noted, unscaled)
            optimizer.update_loss_scale()
        return True

    def _look(
        self, scales: list[float | None] | None, gradients: list[Any], decides: bool, asked: bool
    ) -> tuple[Any, Any] | None:
        """Return what there is to know of the gradients, and what clipping multiplies them with.

        On a GPU, both stay there as long as the host has nothing to decide by them. None if
        gradients are not finite, of which the longer way takes care.
        """
        sums = None if decides else self._batch.gpu_sums(scales)
        if sums is not None:
            facts = None
            if asked or self._clipping is not None:
                # the batch is all that there is to update, in the order of the paths
                pairs = zip(self._applied, gradients, strict=True) if sums.may_overflow else ()
                facts = PendingStats(self._applied, dict(pairs), sums.values)
            clipping = self._clipping
            return facts, 1.0 if clipping is None else sums.clip_rate(clipping.threshold)
        squares = self._batch.squares(scales)
        norm = global_norm((), squares)
        if not math.isfinite(norm) or (asked and self._batch.doubtful(squares)):
            return None
        rate = None if self._clipping is None else self._clipping.rate(norm)
        return norm, 1.0 if rate is None else rate

    def _same_updates(self) -> bool:
        """Tell whether classes of parameters have the `update` that they had."""
        for kind, update in self._updates:  # noqa: SIM110  (a generator calls for each)
            if getattr(kind, "update", None) is not update:
                return False
        return True


def repeatable(
    optimizer: Any, base: type[Any], batch: RuleBatch | None, applied: tuple[str, ...]
) -> Repetition | None:
    """Return what the next update may repeat; None where it has more to do than this one batch.

    Parameters
    ----------
    optimizer : GradientMethod
        The optimizer, after an update.
    base : type
        The class whose order of an update is repeated: GradientMethod.
    batch : RuleBatch or None
        What has been updated, if it was one batch.
    applied : tuple of str
        The paths of its parameters.
    """
    targets = optimizer._set_up()
    if (
        batch is None
        or len(batch.params) != len(targets.parameters)
        or not targets.unchanged()
        or class_overrides(type(optimizer), _PARTS, base)
    ):
        return None
    hooks = list(optimizer._set_up_hooks())
    clipping = None
    if hooks:
        (timing, _, clipping), *others = hooks
        if others or timing != "pre" or not brought_by_class(clipping, "folds"):
            return None
    adapts = class_overrides(type(optimizer), ("update_loss_scale",), base)
    return Repetition(optimizer, targets, batch, applied, clipping, adapts)
