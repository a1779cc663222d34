"""What is done to gradients, folded into the step: where nobody else's code looks at them before.

The gradients are divided by loss scales, summed and clipped on their way; they are neither read
nor written once more.
"""

from __future__ import annotations

import math
from typing import Any

from fastadam.kernels.ops import DIVIDE, MULTIPLY, ROUND, Op
from fastadam.kernels.sums import global_norm
from fastadam.model._gradients import any_lent
from fastadam.update._scalars import NUMBERS
from fastadam.update.gradients import PendingStats, is_scaled
from fastadam.update.graph import Replay
from fastadam.update.interrupt import DeferredInterrupt
from fastadam.update.loss_scale import LossScaling
from fastadam.update.overrides import others
from fastadam.update.plan import UpdatePlan

__all__ = ["Folded", "adapts_by_itself", "step"]

# Whether an optimizer adapts its loss scale in a way of its own.
adapts_by_itself = others(LossScaling, "update_loss_scale")


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
        self._batch = plan.steps.kernel_step
        self._gradients = gradients
        self._scales = scales
        self._lent = lent
        self._found: Any = None
        # what each hook does to a gradient
        self._ops: list[list[Op]] = []
        # which of the programs, by scale and rounding, is whose
        self._which: int | list[int] = 0
        self._kinds: list[tuple[float | None, bool]] = []

    def run(self, hooks: list[Any]) -> bool:
        """Make the update; False, with nothing changed, if there is more to do.

        Parameters
        ----------
        hooks : list
            The 'pre' hooks, such as `can_be_folded`.
        """
        optimizer, plan, batch = self._optimizer, self._plan, self._batch
        decides = bool(optimizer._loss_scaling_is_dynamic or optimizer._on_nonfinite != "propagate")
        asked = bool(decides or optimizer.monitor)
        if self._scales or asked or hooks:
            if not (plan.is_whole and batch.whole and batch.can_divide_by(self._scales)):
                return False
            # what is divided or summed is the gradient as it was given
            looked = asked or not all(hasattr(hook, "ops") for hook in hooks)
            if batch.converted and (self._scales or looked):
                return False
            # a gradient that was lent to a parameter must not be written
            if not self._lent and any_lent(plan.params):
                return False
        adapts = adapts_by_itself(optimizer)
        if batch.on_gpu:
            return self._run_on_gpu(hooks, decides, asked, adapts)
        if not self._measure(hooks, asked):
            return False
        if self._scales or self._ops:
            self._sort_by_kind()
            if not batch.program(self._programs(), self._which, not self._lent):
                return False
        elif batch.prepared:
            batch.leave_gradients()
        unscaled = [] if self._lent or self._scales is None else self._unscaled()
        step(optimizer, plan, self._found, unscaled, adapts)
        return True

    def _measure(self, hooks: list[Any], asked: bool) -> bool:
        """Find the norm, if anybody asks, and what each hook does.

        False if gradients are not finite, which takes a closer look.
        """
        norm: float | None = None
        if asked:
            norm = self._norm(self._batch.sums_of_squares(self._scales), True)
            if norm is None:
                return False
            self._found = norm
        for hook in hooks:
            if hasattr(hook, "ops"):
                ops = hook.ops()
                # other numbers run code of their own, after everything has been read
                for op in ops:
                    if type(op.a) not in NUMBERS or type(op.b) not in NUMBERS:
                        return False
                self._ops.append(ops)
                norm = None
                continue
            if type(hook.threshold) not in NUMBERS:
                return False
            first = not self._ops
            if norm is None:
                norm = self._norm(self._squares(), False)
                if norm is None:
                    return False
                if first and not asked:
                    # the first hook's norm is that of the true gradients
                    self._found = norm
            rate = hook.rate(norm)
            if rate is not None or not first:
                # the place of a factor is kept: programs of the same operations are not made anew
                self._ops.append([Op(MULTIPLY, b=1.0 if rate is None else rate)])
                norm = None
        return True

    def _squares(self) -> list[float]:
        """Return the sums of squares of gradients after what the hooks so far do to them."""
        batch = self._batch
        if not self._ops:
            return batch.sums_of_squares(self._scales)
        self._sort_by_kind()
        counts = list(map(len, self._programs()))
        self._ops.append([Op(MULTIPLY)])
        batch.program(self._programs(), self._which, False)
        self._ops.pop()
        which = self._which
        if isinstance(which, int):
            return batch.sums_of_squares_after(counts[which])
        return batch.sums_of_squares_after([counts[k] for k in which])

    def _norm(self, squares: list[float], asked: bool) -> float | None:
        """Return the norm of all gradients; None if one, or its square, may not be finite."""
        norm = global_norm((), squares)
        if not math.isfinite(norm) or (asked and self._batch.doubtful(squares)):
            return None
        return norm

    def _sort_by_kind(self) -> None:
        """Find out which programs there are: by scale, and by rounding to a half type.

        What is not divided is rounded after each operation, as hooks one after the other leave it.
        """
        if self._kinds:
            return
        scales = self._scales
        if not self._batch.low_precision and (
            scales is None or scales.count(scales[0]) == len(scales)
        ):
            self._kinds = [(None if scales is None else scales[0], False)]
            return
        rounds = self._batch.rounds()
        own = scales or [None] * len(rounds)
        each = [(s, r and s is None) for s, r in zip(own, rounds, strict=True)]
        numbers = {kind: i for i, kind in enumerate(dict.fromkeys(each))}
        self._kinds = list(numbers)
        if len(numbers) > 1:
            self._which = [numbers[kind] for kind in each]

    def _programs(self) -> list[list[Op]]:
        """Return the program of each kind."""
        programs = []
        for scale, rounds in self._kinds:
            program = [] if scale is None else [Op(DIVIDE, scale)]
            for ops in self._ops:
                program += ops
                if rounds:
                    program.append(Op(ROUND))
            programs.append(program)
        return programs

    def _unscaled(self) -> list[Any]:
        """Return the parameters whose gradients are true ones from then on."""
        return list(filter(is_scaled, self._plan.params))

    def _run_on_gpu(self, hooks: list[Any], decides: bool, asked: bool, adapts: bool) -> bool:
        """Make the update where anything is on a GPU; of hooks, clipping alone is folded."""
        batch = self._batch
        recording = batch.gpu.capturing()
        clipping = hooks[0] if hooks else None
        if len(hooks) > 1 or hasattr(clipping, "ops"):
            return False
        if recording and (
            decides or adapts or not self._plan.is_whole or not batch.gpu.begin_capture()
        ):
            return False
        looked: tuple[Any, Any] | None = None, 1.0
        if asked or hooks:
            looked = self._look(clipping, decides, asked)
        if looked is None:
            return False
        self._found, rate = looked
        if not batch.prepare(self._scales, rate, not self._lent):
            return False
        unscaled = [] if self._lent or self._scales is None else self._unscaled()
        if recording:
            self._capture(unscaled)
        else:
            step(self._optimizer, self._plan, self._found, unscaled, adapts)
        return True

    def _look(self, clipping: Any, decides: bool, asked: bool) -> tuple[Any, Any] | None:
        """Return what there is to know of the gradients, and what clipping multiplies them with.

        On a GPU, both stay there as long as the host has nothing to decide by them. None if
        gradients are not finite, which takes a closer look.
        """
        paths = self._plan.paths
        sums = None if decides else self._batch.gpu_sums(self._scales)
        if sums is not None:
            # the steps are all that there is to update, in the order of the paths
            pairs = zip(paths, self._gradients, strict=True) if sums.may_overflow else ()
            facts = PendingStats(paths, dict(pairs), sums.values)
            return facts, 1.0 if clipping is None else sums.clip_rate(clipping.threshold)
        norm = self._norm(self._batch.sums_of_squares(self._scales), asked)
        if norm is None:
            return None
        rate = None if clipping is None else clipping.rate(norm)
        return norm, 1.0 if rate is None else rate

    def _capture(self, unscaled: list[Any]) -> None:
        """Launch the step into the graph that is being captured; nothing is counted."""
        optimizer, plan = self._optimizer, self._plan
        self._batch.gpu.capture()
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
