"""Who updates what: one batch per kind of rule, and the rules that work by themselves."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from functools import partial
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
        self._batches: dict[Hashable, tuple[list[str], list[Any], list[Any]]] = {}
        self._singles: list[tuple[str, Any]] = []
        self._paths: list[str] = []
        self._applied: set[str] = set()
        taken: set[int] = set()
        for path, param in parameters.items():
            rule = getattr(param, "update_rule", None)
            if rule is None or param.array is None or not getattr(rule, "enabled", True):
                continue
            self._paths.append(path)
            key = rule.batch_key() if isinstance(rule, UpdateRule) else None
            # a rule that two parameters share counts its updates one after the other
            if key is None or id(rule) in taken:
                self._singles.append((path, param))
            else:
                taken.add(id(rule))
                paths, rules, params = self._batches.setdefault(key, ([], [], []))
                paths.append(path)
                rules.append(rule)
                params.append(param)

    @property
    def applied(self) -> tuple[str, ...]:
        """Paths of the parameters that have been updated so far."""
        return tuple(path for path in self._paths if path in self._applied)

    def check(self) -> None:
        """Let everybody refuse before anybody writes; a single batch or rule checks itself."""
        if len(self._batches) + len(self._singles) == 1:
            return
        for _, rules, params in self._batches.values():
            type(rules[0]).check_batch(rules, params)
        for _, param in self._singles:
            if isinstance(param.update_rule, UpdateRule):
                type(param.update_rule).check_batch([param.update_rule], [param])

    def run(self) -> None:
        """Update the parameters: the batches first, then the others in the order of their paths."""
        for paths, rules, params in self._batches.values():
            self._note(paths, rules, partial(type(rules[0]).update_batch, rules, params))
        for path, param in self._singles:
            self._note([path], [param.update_rule], param.update)

    def _note(self, paths: list[str], rules: list[Any], update: Callable[[], None]) -> None:
        """Make an update and note whom it reached, by the rules' counts if it raises."""
        before = [getattr(rule, "t", None) for rule in rules]
        try:
            update()
        except BaseException:
            after = [getattr(rule, "t", None) for rule in rules]
            reached = zip(paths, before, after, strict=True)
            self._applied.update(path for path, old, new in reached if old != new)
            raise
        self._applied.update(paths)
