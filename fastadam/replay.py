"""Updates captured in CUDA graphs: what has to be done on the host before each replay."""

from __future__ import annotations

from typing import Any

from fastadam.gradient_pass import PendingFacts
from fastadam.rule_batch import RuleBatch
from fastadam.targets import Target

__all__ = ["Replay", "refuse_capture"]


class Replay:
    """The captured updates of one optimizer, which all read their scalars from one place.

    Parameters
    ----------
    optimizer : GradientMethod
        The optimizer, as it was at the capture.
    targets : Target
        The optimizer's.
    batch : RuleBatch
        All that there was to update.
    applied : tuple of str
        The paths of its parameters.
    gradients : list of array
        The gradients that were captured; kept alive, as the graph reads them.
    found : PendingFacts, optional
        What there is to be found of the gradients, if anybody asks.
    """

    def __init__(
        self,
        optimizer: Any,
        targets: Target,
        batch: RuleBatch,
        applied: tuple[str, ...],
        gradients: list[Any],
        found: PendingFacts | None,
    ) -> None:
        self._parameters = targets.parameters
        self._settings = _settings(optimizer)
        self._targets = targets
        self._batch = batch
        self._captured = batch.captured()
        self._applied = applied
        self._gradients = [gradients]
        self._found = found

    def join(self, earlier: Replay | None) -> Replay:
        """Go on keeping what an earlier graph reads, if it replays with this one's scalars."""
        if earlier is not None and earlier._captured is self._captured:
            self._gradients += earlier._gradients
        return self

    def prepare(self, optimizer: Any) -> None:
        """Write the scalars of the next step to where graphs read them, and count it.

        Raises
        ------
        RuntimeError
            If what was captured is no longer the update to make.
        """
        gradients = self._gradients[0]
        if (
            self._targets.parameters is not self._parameters
            or self._settings != _settings(optimizer)
            or not self._targets.unchanged()
            or not self._batch.ready(gradients)
            or self._batch.captured() is not self._captured
        ):
            raise RuntimeError(
                "the parameters, their states, or the optimizer's hooks or settings have changed "
                "since the update was captured: make an update and capture another"
            )
        t = optimizer.t + 1
        found = None if self._found is None else self._found.again()
        report = (t, False, found, optimizer._loss_scale, self._applied)
        self._batch.replay(optimizer.__dict__, {"t": t, "_last": report})


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
