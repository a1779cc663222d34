"""How an update is made: in which order, and what of it is called.

There is one order. Where nobody else's code looks at the gradients before the step, what is done to
them is folded into it; otherwise it is done to the gradients of the parameters, which hooks see.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastadam.kernels.backend import CPU, capturing, device_of, loaded_cupy, zeros_like
from fastadam.model._gradients import (
    absent,
    clear_all,
    fits,
    gradients_of,
    lend_all,
    lent_arrays,
    missing,
    scales_of,
)
from fastadam.model.parameter import lendable
from fastadam.update.exclusive import MIDDLE, POST, PRE, enter
from fastadam.update.folded import Folded, adapts_by_itself, step
from fastadam.update.gradients import copy_shared_gradients, narrow_gradients
from fastadam.update.graph import refuse_capture
from fastadam.update.hooks import are_hooked
from fastadam.update.interrupt import DeferredInterrupt
from fastadam.update.lending import lend_gradients, lend_one
from fastadam.update.overrides import can_be_folded
from fastadam.update.plan import UpdatePlan
from fastadam.update.rule_steps import RuleSteps
from fastadam.update.target import ArrayTarget, Target

__all__ = ["make_update"]


def make_update(
    optimizer: Any,
    has_own_parts: Callable[[Any], bool],
    grads: Any = None,
    loss_scale: float | None = None,
    lent: bool = False,
) -> None:
    """Make one update of a set-up optimizer.

    Parameters
    ----------
    optimizer : GradientMethod
        The optimizer.
    has_own_parts : callable
        Tells whether the optimizer has others of the parts of an update than GradientMethod: then
        all of them are called.
    grads : array, dict or list, optional
        A caller's gradients, if they are `lent`; else the parameters have theirs.
    loss_scale : float, optional
        What a caller's gradients are divided by.
    lent : bool
        Whether a caller gives the gradients.
    """
    targets: Target = optimizer._targets or optimizer._set_up()
    if not targets.is_settled() or targets.parameters is not optimizer._walked:
        optimizer._refresh()
    enter(optimizer, PRE)
    called = has_own_parts(optimizer)
    lender = targets.lender
    try:
        if lender is not None and not lent:
            lender.take_gradients(called or are_hooked(optimizer, targets.parameters.values()))
        making = _Making(optimizer, targets, called, (grads, loss_scale) if lent else None)
        # then somebody else's code runs before the step
        openly = called or not can_be_folded(making.pre)
        plan = making.held_plan(not openly)
        if plan is None or openly or optimizer.t == 0 or not making.step_at_once(plan):
            making.do_openly(plan)
            return
        making.end()
    finally:
        if lender is not None:
            lender.release()


class _Making:
    """One update that is being made.

    Parameters
    ----------
    optimizer : GradientMethod
        The optimizer.
    targets : Target
        Its walked target.
    called : bool
        Whether all parts of the update are called, since some of them are somebody's own.
    given : tuple, optional
        A caller's gradients, and what they are divided by.
    """

    def __init__(
        self,
        optimizer: Any,
        targets: Target,
        called: bool,
        given: tuple[Any, float | None] | None,
    ) -> None:
        self.optimizer = optimizer
        self.targets = targets
        self.called = called
        self.given = given
        # what has been, or may have been, written
        self.written: tuple[str, ...] = ()
        self.params = list(targets.parameters.values())
        self.pre, self.post = optimizer._hooks.tables()
        # in the order of the parameters; None if a caller's do not fit
        self.gradients: list[Any] | None
        self.gradients = gradients_of(self.params) if given is None else self._ordered(given[0])

    def _ordered(self, grads: Any) -> list[Any] | None:
        """Return a caller's gradients in the order of the parameters, zeros for missing ones.

        None if they do not fit; whoever lends them says why.
        """
        found = None if grads is None else self.targets.ordered(grads)
        if found is None:
            return None
        found = lent_arrays(self.params, found, lendable)
        if not fits(self.params, found):
            return None
        # somebody else may say what becomes of missing ones
        if self.optimizer._missing_gradients != "skip" and not self.called:
            for i in absent(self.params, found):
                found[i] = zeros_like(self.params[i].array)
        return found

    def held_plan(self, scalars: bool) -> UpdatePlan | None:
        """Return the optimizer's plan, if it holds with these gradients; else forget it.

        `scalars` is whether its step may follow: then they are those of the next step.
        """
        optimizer, gradients = self.optimizer, self.gradients
        plan: UpdatePlan | None = optimizer._plan
        if plan is None or gradients is None:
            return None
        skip = optimizer._missing_gradients == "skip"
        try:
            holds = plan.holds(self.targets.parameters, gradients, skip, scalars)
        except BaseException:
            if plan.steps is not None:
                plan.steps.let_go()
            raise
        if not holds:
            plan = optimizer.__dict__["_plan"] = None
        return plan

    def step_at_once(self, plan: UpdatePlan) -> bool:
        """Make the step of a plan of steps alone, before which nobody's code runs.

        What is to be done to gradients is folded into it. False, with nothing changed, if there is
        more to do.
        """
        steps, t = plan.steps, self.optimizer.t
        if not plan.only_steps or steps is None:
            return False
        try:
            return self._stepped_at_once(plan, steps)
        except BaseException:
            steps.let_go()
            raise
        finally:
            if self.targets.lender is not None and self.optimizer.t != t:
                self.targets.lender.written(plan.paths)

    def _stepped_at_once(self, plan: UpdatePlan, steps: RuleSteps) -> bool:
        """Make the step; False, with nothing changed, if there is more to do."""
        optimizer, params, gradients = self.optimizer, self.params, self.gradients
        given, kernel_step = self.given, steps.kernel_step
        if gradients is None:
            return False
        if given is None:
            if not plan.skip and absent(params, gradients):
                return False
            scales = scales_of(params)
        else:
            scales = None if given[1] is None else [given[1]] * len(params)
        asked = (
            optimizer.monitor
            or optimizer._loss_scaling_is_dynamic
            or optimizer._on_nonfinite != "propagate"
        )
        if self.pre or scales or asked or kernel_step.on_gpu:
            # 'post' hooks see what has become of the gradients
            if self.post:
                return False
            folded = Folded(optimizer, plan, gradients, scales, given is not None)
            return folded.run(list(self.pre.values()))
        if self.post and plan.reaches(gradients):
            # they see gradients that were part of what is written, as they were
            return False
        if kernel_step.prepared:
            kernel_step.leave_gradients()
        adapts = adapts_by_itself(optimizer)
        step(optimizer, plan, None, [], adapts)
        return True

    def end(self) -> None:
        """Call 'post' hooks, which see the gradients, and forget a caller's gradients."""
        if self.post:
            enter(self.optimizer, POST)
            try:
                self._lend()
                for hook in list(self.post.values()):
                    self.optimizer.call_hook(hook)
            finally:
                self.targets.finish()
                if self.given is not None:
                    clear_all(self.params)
        elif self.given is not None:
            clear_all(self.params)

    def _lend(self, loss_scale: float | None = None, grads: Any = None) -> None:
        """Lend a caller's gradients: in the order of the parameters, if they fit, or as given."""
        if self.given is None:
            return
        gradients = self.gradients
        if gradients is not None and fits(self.params, gradients) == 2:
            lend_all(self.params, gradients, loss_scale)
        elif gradients is None or grads is not None:
            lend_gradients(self.targets, grads, loss_scale)
        else:
            for param, grad in zip(self.params, gradients, strict=True):
                lend_one(param, grad, loss_scale)

    def do_openly(self, plan: UpdatePlan | None) -> None:
        """Make the update with gradients that hooks and rules see.

        Parameters
        ----------
        plan : UpdatePlan or None
            What has been found to hold.
        """
        optimizer, params = self.optimizer, self.params
        own, t = optimizer.__dict__, optimizer.t
        if plan is None or plan.on_gpu or self.given is None:
            self._refuse()
        if self.given is not None:
            self._lend(self.given[1], self.given[0])
        isnan, ever = own.get("_loss_scaling_isnan"), own.get("_loss_scaling_isnan_ever")
        own["_unscaled"] = ()
        try:
            plan = self._prepare(plan)
            try:
                self._update_parameters(plan)
            finally:
                if self.targets.lender is not None:
                    self.targets.lender.written(self.written)
            if self.called or missing(params):
                optimizer.reallocate_cleared_grads()
            if self.called or self.post:
                self._call_hooks("post", self.post)
        finally:
            if optimizer.t == t:
                # nothing has been updated, and nothing found
                own["_loss_scaling_isnan"] = bool(isnan)
                own["_loss_scaling_isnan_ever"] = bool(ever)
                if optimizer._plan is not None and optimizer._plan.steps is not None:
                    optimizer._plan.steps.let_go()
            unscaled = own.pop("_unscaled", None)
            own.pop("_facts", None)
            self.targets.finish()
            if unscaled:
                narrow_gradients(unscaled)
            if self.given is not None:
                clear_all(params)

    def _refuse(self) -> None:
        """Refuse a capture that there is no way to make, and an update without gradients."""
        if loaded_cupy() is not None and any(
            map(capturing, {device_of(p.array) for p in self.params} - {CPU})
        ):
            refuse_capture(self.optimizer)
        if (
            self.given is None
            and isinstance(self.targets, ArrayTarget)
            and len(absent(self.params, gradients_of(self.params))) == len(self.params)
        ):
            raise ValueError(
                "there are no gradients: call update(lossfun, ...) with a function that "
                "returns (loss, gradients), or apply_gradients(gradients)"
            )

    def _prepare(self, plan: UpdatePlan | None) -> UpdatePlan | None:
        """Do to the gradients what is done before the step, and call 'pre' hooks.

        Returns the plan, if it is known to hold still.
        """
        # a hook may remove itself
        optimizer, params, pre = self.optimizer, self.params, self.pre.copy()
        own = optimizer.__dict__
        if optimizer.t == 0:
            optimizer._before_first_update()
        scaled = scales_of(params) is not None
        if scaled:
            optimizer._check_left_scales()
        if self.called or missing(params):
            optimizer.reallocate_cleared_grads()
            plan = None
        if (scaled or pre or self.post) and (plan is None or plan.reaches(gradients_of(params))):
            # gradients are written, and nothing else is meant to be
            copy_shared_gradients(params)
            plan = None
        decides = optimizer._loss_scaling_is_dynamic or optimizer._on_nonfinite != "propagate"
        if scaled or decides or optimizer.monitor:
            optimizer._unscale_and_look()
            plan = None
        own["_loss_scaling_isnan"] = False
        if self.called or optimizer._loss_scaling_is_dynamic:
            optimizer.check_nan_in_grads()
        if self.called or pre:
            self._call_hooks("pre", pre)
        if decides:
            optimizer._refuse_nonfinite()
        if not (self.called or pre):
            return plan
        if not self.targets.unchanged():
            # a hook has put other arrays into it
            optimizer._refresh()
            optimizer.reallocate_cleared_grads()
        return None

    def _call_hooks(self, timing: str, hooks: dict[str, Any]) -> None:
        """Call the hooks of one timing."""
        if self.called:
            self.optimizer.call_hooks(timing)
            return
        for hook in list(hooks.values()):
            self.optimizer.call_hook(hook)

    def _update_parameters(self, plan: UpdatePlan | None) -> None:
        """Count the step, run the rules unless it is to be skipped, and report.

        `plan` is what holds, if nobody's code has run since that was found.
        """
        optimizer = self.optimizer
        own, t = optimizer.__dict__, optimizer.t
        safe = not (self.called or optimizer._facts) or optimizer.is_safe_to_update()
        if not safe:
            plan = None
        elif plan is None:
            plan = self._plan_now()
        if plan is not None and plan.steps is not None and plan.steps.kernel_step.prepared:
            plan.steps.kernel_step.leave_gradients()
        adapts = adapts_by_itself(optimizer)
        paths = () if plan is None else plan.paths
        noted: dict[str, Any] = {
            "t": t + 1,
            "_last": (t + 1, not safe, optimizer._facts, optimizer._loss_scale, paths),
        }
        if optimizer._loss_scaling_is_dynamic and not adapts:
            noted["_loss_scale"] = optimizer._next_loss_scale()
        self.written = paths
        if plan is not None and plan.only_steps and not adapts and plan.is_one_call:
            plan.run(own, noted)
            enter(optimizer, POST)
            return
        # Ctrl-C between two parameters, or between a count and its step, would break a state
        with DeferredInterrupt():
            counts = [] if plan is None else plan.begin()
            enter(optimizer, MIDDLE)
            try:
                with np.errstate(all="ignore"):
                    if plan is None:
                        own.update(noted)
                    else:
                        plan.run(own, noted)
                if adapts:
                    optimizer.update_loss_scale()
            except BaseException:
                if own.get("_last") is not noted["_last"]:
                    # a step that no parameter has taken is not counted
                    applied = () if plan is None else plan.applied(counts)
                    noted["_last"] = (*noted["_last"][:-1], applied)
                    own.update(noted if applied else {"t": t})
                raise
            finally:
                enter(optimizer, POST)

    def _plan_now(self) -> UpdatePlan:
        """Return the plan of this update: the last one, if it holds, or a new one."""
        optimizer, parameters = self.optimizer, self.targets.parameters
        gradients = gradients_of(list(parameters.values()))
        skip = optimizer._missing_gradients == "skip"
        plan: UpdatePlan | None = optimizer._plan
        if plan is None or not plan.holds(parameters, gradients, skip):
            own = optimizer.__dict__
            own["_plan"] = None
            with np.errstate(all="ignore"):
                plan = own["_plan"] = UpdatePlan(parameters, gradients, skip)
        return plan
