"""Rules that are updated together, with their parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastadam.parameter import peek_grad

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

    def repeat(
        self,
        gradients: list[Any],
        owner: dict[str, Any] | None = None,
        noted: dict[str, Any] | None = None,
    ) -> bool:
        """Make an update if nothing but gradients and scalars has changed since the last one.

        Parameters
        ----------
        gradients : list
            In the order of the rules.
        owner, noted : dict, optional
            The attributes of the rules' optimizer, and what some of them become together with
            the counts: no Ctrl-C can come in between.

        Returns
        -------
        bool
            Whether the update has been made; if not, nothing has been changed.
        """
        return False

    def update(self) -> None:
        """Make one update of every parameter."""
        type(self.rules[0]).update_batch(self.rules, self.params)
