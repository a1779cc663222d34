"""Rules that are updated together, with their parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastadam.model.parameter import peek_grad

__all__ = ["RuleBatch"]


class RuleBatch:
    """Rules of one `batch_key` and their parameters, which an optimizer keeps between updates.

    Parameters
    ----------
    rules : sequence of UpdateRule
        Enabled rules.
    params : sequence of Parameter
        Their parameters, in the same order.
    """

    def __init__(self, rules: Sequence[Any], params: Sequence[Any]) -> None:
        self.rules = list(rules)
        self.params = list(params)

    def check(self) -> None:
        """Raise what `update` would refuse, and change nothing."""
        type(self.rules[0]).check_batch(self.rules, self.params)

    def gradients(self) -> list[Any]:
        """Return the gradients as they are, in the order of the rules."""
        return [peek_grad(param) for param in self.params]

    def cleared(self) -> bool:
        """Tell whether no parameter has a gradient."""
        return all(peek_grad(param) is None for param in self.params)

    def ready(self, gradients: list[Any]) -> bool:
        """Make ready for a step as the last one, if only gradients and scalars have changed.

        Parameters
        ----------
        gradients : list
            In the order of the rules.

        Returns
        -------
        bool
            Whether `step` may be called; until then, nothing has been changed.
        """
        return False

    def squares(self, scales: Sequence[float | None] | None = None) -> list[float]:
        """Return the sums of squares of the gradients that `ready` was given.

        Parameters
        ----------
        scales : sequence of float, optional
            What each is divided by first; None is nothing.
        """
        raise NotImplementedError

    def doubtful(self, squares: Sequence[float]) -> bool:
        """Tell whether a square of these gradients may not be finite, by their sums of squares.

        Parameters
        ----------
        squares : sequence of float
            What `squares` returned.
        """
        raise NotImplementedError

    def gpu_sums(self, scales: Sequence[float | None] | None = None) -> Any:
        """Return the sums of squares where they are, if all is on one GPU; None otherwise.

        Parameters
        ----------
        scales : sequence of float, optional
            As for `squares`.
        """
        return None

    def takes(self, scales: Sequence[float | None] | None) -> bool:
        """Tell whether `squares` and `prepare` can divide by such scales.

        Parameters
        ----------
        scales : sequence of float or None
            As for `squares`.
        """
        return True

    def prepare(
        self,
        gradients: list[Any],
        scales: Sequence[float | None] | None,
        rate: Any,
        write: bool,
    ) -> bool:
        """Let the step divide the gradients by `scales` and multiply them with `rate`.

        Parameters
        ----------
        gradients : list
            Those that `ready` was given.
        scales : sequence of float, optional
            What each is divided by; None is nothing.
        rate : float or cupy.ndarray
            What all are multiplied with.
        write : bool
            Whether the result is written in the place of the gradients.

        Returns
        -------
        bool
            False if the step cannot do that on its way.
        """
        raise NotImplementedError

    def step(
        self, owner: dict[str, Any], noted: dict[str, Any], unscaled: Sequence[Any] = ()
    ) -> None:
        """Make the step that `ready` has found, and count it; no Ctrl-C can come in between.

        Parameters
        ----------
        owner, noted : dict
            The attributes of the rules' optimizer, and what some of them become.
        unscaled : sequence of Parameter
            Those whose gradients are true ones from then on.
        """
        raise NotImplementedError

    def capturing(self) -> bool:
        """Tell whether a step would become part of a CUDA graph."""
        return False

    def begin_capture(self) -> bool:
        """Make ready for the step that `ready` has found to be captured; False if it cannot be."""
        return False

    def capture(self, unscaled: Sequence[Any] = ()) -> None:
        """Launch the step that `ready` has found into the graph; nothing is counted.

        Parameters
        ----------
        unscaled : sequence of Parameter
            Those whose gradients are true ones after each replay.
        """
        raise NotImplementedError

    def captured(self) -> Any:
        """Return what has been captured, as long as it is what `ready` makes ready."""
        return None

    def replay(
        self, owner: dict[str, Any], noted: dict[str, Any], unscaled: Sequence[Any] = ()
    ) -> None:
        """Write the scalars that `ready` has found to where graphs read them, and count the step.

        Parameters
        ----------
        owner, noted, unscaled
            As for `step`.
        """
        raise NotImplementedError

    def update(
        self, owner: dict[str, Any] | None = None, noted: dict[str, Any] | None = None
    ) -> None:
        """Make one update of every parameter.

        Parameters
        ----------
        owner, noted : dict, optional
            The attributes of the rules' optimizer, and what some of them become by it.
        """
        type(self.rules[0]).update_batch(self.rules, self.params)
        if owner is not None and noted is not None:
            owner.update(noted)
