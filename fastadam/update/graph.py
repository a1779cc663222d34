"""Updates captured in CUDA graphs: what has to be done on the host before each replay."""

from __future__ import annotations

from typing import Any

from fastadam.update.gradients import PendingStats
from fastadam.update.plan import UpdatePlan
from fastadam.update.target import Target

__all__ = ["Replay", "refuse_capture"]


class Replay:
    """A captured update of an optimizer; those of one batch read their scalars from one place.

    As long as it is kept, so is all that its graph reads and writes.

    Parameters
    ----------
    optimizer : GradientMethod
        The optimizer, as it was at the capture.
    targets : Target
        The optimizer's.
    plan : UpdatePlan
        All that there was to update.
    gradients : list of array
        The gradients that were captured; kept alive, as the graph reads them.
    found : PendingStats, optional
        What there is to be found of the gradients, if anybody asks.
    held : tuple, optional
        If the gradients are the parameters' own: what they were divided by, and which of the
        parameters are unscaled by that.
    """

    def __init__(
        self,
        optimizer: Any,
        targets: Target,
        plan: UpdatePlan,
        gradients: list[Any],
        found: PendingStats | None,
        held: tuple[list[float | None] | None, list[Any]] | None,
    ) -> None:
        self._parameters = targets.parameters
        self._settings = _settings(optimizer)
        self._targets = targets
        self._plan = plan
        self._gradients = gradients
        self._found = found
        self._held = held

    def join(self, earlier: Replay | None) -> None:
        """Take in that an earlier graph may be launched in the place of this one."""
        if (
            earlier is not None
            and earlier._plan is self._plan
            and (earlier._found is None) != (self._found is None)
        ):
            # one of the two looks at no gradient, and nobody says which it will be
            self._found = None

    def prepare(self, optimizer: Any) -> None:
        """Write the scalars of the next step to where graphs read them, and count it.

        Raises
        ------
        RuntimeError
            If what was captured is no longer the update to make.
        """
        gradients = self._gradients
        if (
            self._targets.parameters is not self._parameters
            or self._settings != _settings(optimizer)
            or not self._targets.unchanged()
            or optimizer._plan is not self._plan
            or not self._plan.holds(self._parameters, gradients, self._plan.skip)
            or not self._divides_by_what_is_left()
        ):
            raise RuntimeError(
                "the parameters, their states or loss scales, or the optimizer's hooks or settings "
                "have changed since the update was captured: make an update and capture another"
            )
        t = optimizer.t + 1
        found = None if self._found is None else self._found.again()
        report = (t, False, found, optimizer._loss_scale, self._plan.paths)
        unscaled = () if self._held is None else self._held[1]
        assert self._plan.steps is not None
        self._plan.steps.replay(optimizer.__dict__, {"t": t, "_last": report}, unscaled)

    def forget(self) -> None:
        """Let go of what graphs of this plan read."""
        assert self._plan.steps is not None
        self._plan.steps.kernel_step.gpu.forget()

    def _divides_by_what_is_left(self) -> bool:
        """Tell whether a backward pass has left no other loss scale than the captured one."""
        if self._held is None:
            return True
        left = [getattr(param, "_loss_scale", None) for param in self._plan.params]
        return not any(left) or left == self._held[0]


def _settings(optimizer: Any) -> tuple[Any, ...]:
    """Return what is part of a graph."""
    return (
        optimizer._loss_scale,
        optimizer._loss_scaling_is_dynamic,
        optimizer._on_nonfinite,
        optimizer.monitor,
        tuple(
            (timing, id(hook), getattr(hook, "threshold", None))
            for timing, _, hook in optimizer._set_up_hooks()
        ),
    )


def refuse_capture(optimizer: Any) -> None:
    """Raise for an update that cannot be captured, and say why.

    Raises
    ------
    RuntimeError
        Always.
    """
    if optimizer._loss_scaling_is_dynamic:
        why = (
            "with dynamic loss scaling the host decides by each step's gradients: set a fixed "
            "scale, loss_scaling(scale=...)"
        )
    elif optimizer._on_nonfinite != "propagate":
        why = (
            f"with on_nonfinite = {optimizer._on_nonfinite!r} the host decides by each step's "
            "gradients: set 'propagate'"
        )
    else:
        why = (
            "what is captured is an update made again, of parameters on one GPU that all have "
            "gradients, with GradientClipping as the only hook: make one such update before the "
            "capture begins"
        )
    raise RuntimeError(f"this update cannot be captured in a CUDA graph: {why}")
