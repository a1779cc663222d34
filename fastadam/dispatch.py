"""Who updates what: one batch per kind of rule, and the rules that work by themselves."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from fastadam.update_rule import UpdateRule

__all__ = ["Dispatch"]


class Dispatch:
    """One update's work: the enabled rules of a target in batches, the others one by one.

    Parameters
    ----------
    parameters : mapping of str to Parameter
        The target's parameters by path.
    """

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        self._batches: dict[Hashable, tuple[list[Any], list[Any]]] = {}
        self._singles: list[Any] = []
        # for `applied`: path, rule, and the rule's count before
        self._before: list[tuple[str, Any, int | None]] = []
        self._finished = False
        taken: set[int] = set()
        for path, param in parameters.items():
            rule = getattr(param, "update_rule", None)
            if rule is None:
                continue
            ours = isinstance(rule, UpdateRule)
            if ours and (not rule.enabled or param.array is None):
                continue
            self._before.append((path, rule, getattr(rule, "t", None)))
            key = rule.batch_key() if ours else None
            # a rule that two parameters share counts its updates one after the other
            if key is None or id(rule) in taken:
                self._singles.append(param)
            else:
                taken.add(id(rule))
                rules, params = self._batches.setdefault(key, ([], []))
                rules.append(rule)
                params.append(param)

    @property
    def applied(self) -> tuple[str, ...]:
        """Paths of the parameters that have been updated so far."""
        if self._finished:
            return tuple(path for path, _, _ in self._before)
        return tuple(path for path, rule, t in self._before if getattr(rule, "t", None) != t)

    def check(self) -> None:
        """Let everybody refuse before anybody writes; a single batch or rule checks itself."""
        if len(self._batches) + len(self._singles) == 1:
            return
        for rules, params in self._batches.values():
            type(rules[0]).check_batch(rules, params)
        for param in self._singles:
            if isinstance(param.update_rule, UpdateRule):
                type(param.update_rule).check_batch([param.update_rule], [param])

    def run(self) -> None:
        """Update the parameters: the batches first, then the others in the order of their paths."""
        for rules, params in self._batches.values():
            type(rules[0]).update_batch(rules, params)
        for param in self._singles:
            param.update()
        self._finished = True
