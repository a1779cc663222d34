"""Which rules are updated together, and what has been updated so far."""

from __future__ import annotations

import operator
from collections.abc import Callable, Hashable, Mapping
from functools import partial
from typing import Any

from fastadam.kernels.arrays import check_apart
from fastadam.kernels.backend import is_array
from fastadam.model.parameter import Parameter
from fastadam.update.gradients import copy_shared_gradients, put_back_gradients
from fastadam.update.overrides import has_own_update
from fastadam.update.rule import UpdateRule
from fastadam.update.rule_batch import RuleBatch

__all__ = ["Dispatch"]

# What is passed over in batches, which do the same: as it is here, not as it may be patched.
_UPDATE = Parameter.update


class Dispatch:
    """The work of one update: batches of rules, and rules that go alone.

    Parameters
    ----------
    parameters : mapping of str to Parameter
        The parameters by path; those without an enabled rule, or without an array, are left out
        unless they have an `update` of their own.
    before : Dispatch, optional
        That of the update before, whose batches are kept where they are the same.
    """

    def __init__(self, parameters: Mapping[str, Any], before: Dispatch | None = None) -> None:
        groups: dict[Hashable, tuple[list[str], list[Any], list[Any]]] = {}
        self._singles: list[tuple[str, Any]] = []
        self._paths: list[str] = []
        self._applied: set[str] = set()
        self._parameters = parameters
        # they have no step to make, but something else
        self._only_called: list[Any] = []
        taken: set[int] = set()
        for path, param in parameters.items():
            rule = getattr(param, "update_rule", None)
            own = has_own_update(param, _UPDATE)
            if rule is None or param.array is None or not getattr(rule, "enabled", True):
                self._only_called += [param] if own else []
                continue
            self._paths.append(path)
            key = None if own or not isinstance(rule, UpdateRule) else rule.batch_key()
            # a rule that two parameters share counts its updates one after the other
            if key is None or id(rule) in taken:
                self._singles.append((path, param))
            else:
                taken.add(id(rule))
                paths, rules, params = groups.setdefault(key, ([], [], []))
                paths.append(path)
                rules.append(rule)
                params.append(param)
        kept = {} if before is None else before._batches
        self._batches: dict[Hashable, tuple[list[str], RuleBatch]] = {}
        for key, (paths, rules, params) in groups.items():
            batch = kept[key][1] if key in kept else None
            if batch is None or not (_same(rules, batch.rules) and _same(params, batch.params)):
                batch = type(rules[0]).batch(rules, params)
            self._batches[key] = paths, batch

    @property
    def paths(self) -> tuple[str, ...]:
        """Paths of all parameters that are to be updated."""
        return tuple(self._paths)

    @property
    def applied(self) -> tuple[str, ...]:
        """Paths of the parameters that have been updated so far."""
        return tuple(path for path in self._paths if path in self._applied)

    @property
    def only_batch(self) -> RuleBatch | None:
        """The batch that is the whole work; None if there is more."""
        if self._singles or self._only_called or len(self._batches) != 1:
            return None
        return next(iter(self._batches.values()))[1]

    def check(self) -> None:
        """Let everybody refuse before anybody writes; a batch that is all checks itself."""
        if self._is_one:
            return
        if len(self._batches) + len(self._singles) > 1:
            for _, batch in self._batches.values():
                batch.check()
            for _, param in self._singles:
                if isinstance(param.update_rule, UpdateRule):
                    type(param.update_rule).check_batch([param.update_rule], [param])
        check_apart(
            [
                (path, key, array)
                for path, param in self._parameters.items()
                for key, array in _written(param)
                if is_array(array)
            ]
        )

    @property
    def _is_one(self) -> bool:
        """Whether one batch, or one rule, updates all parameters that there are."""
        pieces = len(self._batches) + len(self._singles)
        return pieces == 1 and len(self._paths) == len(self._parameters)

    def run(self, owner: dict[str, Any] | None = None, noted: dict[str, Any] | None = None) -> None:
        """Update the parameters: the batches first, then the others in the order of their paths.

        Those that have no step to make, but an `update` of their own, come last. If one batch is
        all, it makes of the attributes `owner` what is `noted`, with its step.

        Parameters
        ----------
        owner, noted : dict, optional
            The attributes of the optimizer, and what some of them become.
        """
        owner, noted = ({}, {}) if owner is None or noted is None else (owner, noted)
        batch = self.only_batch
        if batch is not None:
            self._note(self._paths, batch.rules, partial(batch.update, owner, noted))
            return
        # the rules' hooks see the new count
        owner["t"] = noted.get("t")
        # gradients are read as they were before the first step
        copied = copy_shared_gradients(self._parameters.values())
        try:
            for paths, batch in self._batches.values():
                self._note(paths, batch.rules, batch.update)
            for path, param in self._singles:
                self._note([path], [param.update_rule], param.update)
            for param in self._only_called:
                param.update()
        finally:
            put_back_gradients(copied)
        owner.update(noted)

    def _note(self, paths: list[str], rules: list[Any], update: Callable[[], None]) -> None:
        """Make an update and note whom it reached, by the rules' counts if it raises."""
        before = [getattr(rule, "t", None) for rule in rules]
        done = False
        try:
            update()
            done = True
        finally:
            after = [getattr(rule, "t", None) for rule in rules]
            reached = zip(paths, before, after, strict=True)
            self._applied.update(path for path, old, new in reached if done or old != new)


def _written(param: Any) -> list[tuple[str, Any]]:
    """Return what is known to be written for a parameter, with what it is."""
    rule = getattr(param, "update_rule", None)
    return rule._written(param) if isinstance(rule, UpdateRule) else [("array", param.array)]


def _same(a: list[Any], b: list[Any]) -> bool:
    """Tell whether two lists hold the same objects; some parameters refuse to be compared."""
    return len(a) == len(b) and all(map(operator.is_, a, b))
