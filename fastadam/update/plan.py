"""The plan of an update: who is updated how, found once and kept as long as that is so.

Nobody announces a change, and nothing counts changes: before every update, and after every call of
users' code, what the plan was made of is compared with what there is.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from fastadam.kernels._noted import Noted
from fastadam.kernels.arrays import check_apart
from fastadam.kernels.backend import is_array, is_gpu_array
from fastadam.model._gradients import gradients_of
from fastadam.model.parameter import Parameter
from fastadam.update.frozen import is_updated
from fastadam.update.gradients import arrays_of, copy_shared_gradients, put_back_gradients
from fastadam.update.hooks import hooks_of
from fastadam.update.overrides import brought_by_fastadam, has_own_update
from fastadam.update.rule import UpdateRule
from fastadam.update.rule_steps import RuleSteps

__all__ = ["UpdatePlan"]

# What is passed over by steps together, which do the same: as it is here, not as it may be patched.
_UPDATE = Parameter.update

# What of a class says how its rules are updated.
_METHODS = ("batch_key", "update", "__setattr__", "t")
# And what of a rule that is not stepped together with others.
_FIELDS = ["enabled", "batch_key", "update_batch", "check_batch", "update", "update_core"]


# Stands for what the kernels step, among the keys of groups.
_ROWS: Any = object()


class _Single:
    """A rule that updates its parameter by itself."""

    def __init__(self, path: str, param: Any) -> None:
        self.path, self.param = path, param
        self.rule = param.update_rule
        self._checked: RuleSteps | None = None

    def check(self) -> None:
        """Raise what the update of this parameter would refuse, and change nothing."""
        if not isinstance(self.rule, UpdateRule):
            return
        # arrays are compared with everything else that the plan was made of
        checked = self._checked
        if checked is None or not checked.is_good(gradients_of([self.param])):
            self._checked = self.rule._check_single(self.param)


class _Group:
    """Rules of one `batch_key`, which their class updates together in its own way."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.rules: list[Any] = []
        self.params: list[Any] = []

    def check(self) -> None:
        """Raise what the update would refuse, and change nothing."""
        type(self.rules[0]).check_batch(self.rules, self.params)

    def update(self) -> None:
        """Update all parameters."""
        type(self.rules[0]).update_batch(self.rules, self.params)


class UpdatePlan:
    """Who is updated how.

    Parameters
    ----------
    parameters : dict of str to Parameter
        All parameters of the target, by path. Those that are frozen, or without an enabled rule or
        an array, are left out unless they have an `update` of their own.
    gradients : list
        Their gradients, in this order.
    skip : bool
        Whether parameters without a gradient are left out, too.

    Raises
    ------
    TypeError, ValueError
        What any of the rules would refuse.

    Attributes
    ----------
    paths : tuple of str
        Paths of all parameters that are to be updated.
    steps : RuleSteps or None
        What the kernels step in one call.
    only_steps : bool
        Whether the kernels step all that there is to do: nobody else's code runs.
    is_whole : bool
        Whether the kernels step all parameters that there are.
    """

    def __init__(self, parameters: dict[str, Any], gradients: list[Any], skip: bool) -> None:
        self.parameters = parameters
        self.params = list(parameters.values())
        self.skip = skip
        self.absent = [grad is None for grad in gradients] if skip else []
        self._singles: list[_Single] = []
        self._groups: dict[Hashable, _Group] = {}
        # who is updated together, in the order of their first parameters
        self._order: list[Any] = []
        # they have no step to make, but something else
        self._only_called: list[Any] = []
        self._applied: set[str] = set()
        # of all that are to be updated
        self._rules: list[Any] = []
        self._rows: list[int] = []
        self._noted = Noted()
        # whether comparing is enough to know that all is as it was
        self._comparable = True
        self.paths = tuple(self._sort())
        self.steps = self._described(gradients)
        self._lasting = self._comparable and (self.steps is None or self.steps.lasting)
        apart = self._singles or self._groups or self._only_called
        self.only_steps = self.steps is not None and not apart
        self.is_whole = self.only_steps and len(self._rows) == len(self.params)
        # whether anything may be on a GPU, or nothing is known of what others do
        self.on_gpu = self.steps is None or bool(self._groups or self.steps.kernel_step.on_gpu)
        self.on_gpu |= any(is_gpu_array(single.param.array) for single in self._singles)
        self._pieces = len(self._groups) + len(self._singles) + (self.steps is not None)
        # whether one call, or one rule, updates all parameters that there are
        self._is_one = self._pieces == 1 and len(self.paths) == len(self.params)
        self.check()
        if not self._is_one:
            self._check_apart()
        # what else belongs to the target: written by single rules, or frozen
        stepped = set(self._rows)
        others = [param for i, param in enumerate(self.params) if i not in stepped]
        self._others = [array for param in others for array in arrays_of(param)]
        self._knows_others = all(map(_keeps_known_state, others))

    def _sort(self) -> list[str]:
        """Find out how every parameter is updated; return the paths of those that are."""
        paths: list[str] = []
        taken: set[int] = set()
        kinds: dict[Any, None] = {}
        for i, (path, param) in enumerate(self.parameters.items()):
            rule = getattr(param, "update_rule", None)
            own = has_own_update(param, _UPDATE)
            kinds[type(param)] = None
            if self.skip and (param.array is None or self.absent[i]):
                self._note(param, rule)
                continue
            if rule is None or param.array is None or not is_updated(param):
                self._only_called += [param] if own else []
                self._note(param, rule)
                continue
            paths.append(path)
            self._rules.append(rule)
            ours = isinstance(rule, UpdateRule) and not own and id(rule) not in taken
            if ours and rule._steps_with_others():
                taken.add(id(rule))
                if not self._rows:
                    self._order.append(_ROWS)
                self._rows.append(i)
                continue
            kinds[type(rule)] = None
            self._note(param, rule)
            # a rule that two parameters share counts its updates one after the other
            key = rule.batch_key() if ours else None
            if key is None:
                self._singles.append(_Single(path, param))
                continue
            taken.add(id(rule))
            self._comparable &= brought_by_fastadam(type(rule), "batch_key")
            if key not in self._groups:
                self._groups[key] = _Group()
                self._order.append(key)
            group = self._groups[key]
            group.paths.append(path)
            group.rules.append(rule)
            group.params.append(param)
        # those of rules that are stepped together are compared with them
        for kind in kinds:
            names = _METHODS if issubclass(kind, UpdateRule) else ("update",)
            self._noted.class_attributes(kind, names)
        return paths

    def _note(self, param: Any, rule: Any) -> None:
        """Note what says that a parameter is not stepped together with others."""
        ours = isinstance(param, Parameter)
        self._noted.attribute(param, "_update_rule" if ours else "update_rule")
        self._noted.attribute(param, "_array" if ours else "array")
        if hasattr(param, "__dict__"):
            self._noted.instance(param)
            self._noted.some(vars(param), ["update", "frozen"])
        if not isinstance(rule, UpdateRule):
            if rule is not None:
                self._noted.attribute(rule, "enabled")
            return
        self._noted.instance(rule)
        self._noted.some(vars(rule), _FIELDS)
        for hooks in hooks_of(rule).tables():
            self._noted.entries(hooks)
        self._noted.some(vars(rule), ["_fp32_param"])
        if rule._is_known_to_write_state():
            self._noted.some(vars(rule), ["_state"])
            if type(rule.state) is dict:
                self._noted.entries(rule.state)

    def _described(self, gradients: list[Any]) -> RuleSteps | None:
        """Describe what the kernels step in one call, if there is anything."""
        if not self._rows:
            return None
        params = [self.params[i] for i in self._rows]
        rules = [param.update_rule for param in params]
        own = [gradients[i] for i in self._rows]
        steps = RuleSteps(rules, params, own)
        steps.read(own)
        return steps

    def begin(self) -> list[Any]:
        """Forget who was updated; return the counts of all that are to be, as they are."""
        self._applied.clear()
        return self._counts()

    def applied(self, before: list[Any]) -> tuple[str, ...]:
        """Return the paths of the parameters that have been updated so far.

        Parameters
        ----------
        before : list
            What `begin` has returned.
        """
        rows = zip(self.paths, before, self._counts(), strict=True)
        # what was interrupted, or has raised, is known by its count
        return tuple(path for path, old, new in rows if path in self._applied or old != new)

    def _counts(self) -> list[Any]:
        """Return the counts of all that are to be updated, None where a rule has none."""
        return [getattr(rule, "t", None) for rule in self._rules]

    @property
    def is_one_call(self) -> bool:
        """Whether the update is one call into C."""
        return self.only_steps and self.steps is not None and self.steps.kernel_step.in_c

    def check(self) -> None:
        """Let everybody refuse before anybody writes; who is alone refuses by itself."""
        if self._pieces > 1:
            for group in self._groups.values():
                group.check()
            for single in self._singles:
                single.check()

    def _check_apart(self) -> None:
        """Refuse arrays that are written and share memory with others, or with parameters."""
        check_apart(
            [
                (path, key, array)
                for path, param in self.parameters.items()
                for key, array in _written(param)
                if is_array(array)
            ]
        )

    def holds(
        self,
        parameters: dict[str, Any],
        gradients: list[Any],
        skip: bool,
        scalars: bool = True,
    ) -> bool:
        """Tell whether the next update is made as this one, and make ready for it.

        Parameters
        ----------
        parameters, gradients, skip
            What there is now.
        scalars : bool
            Whether the step may follow; if not, only the arrays are read.
        """
        if (
            parameters is not self.parameters
            or skip is not self.skip
            or not self._lasting
            or not self._noted.same()
            or (skip and [grad is None for grad in gradients] != self.absent)
        ):
            return False
        # somebody else's checks may change what is read after them
        if self._pieces > 1:
            # no floating-point setting of a caller's reaches into an update
            with np.errstate(all="ignore"):
                self.check()
        steps = self.steps
        if steps is None:
            return True
        own = gradients
        if not self.is_whole:
            own = list(map(gradients.__getitem__, self._rows))
        # what lies elsewhere may share memory with what others write
        return (
            steps.same()
            and steps.refresh(own, scalars)
            and (self._is_one or not steps.kernel_step.moved)
        )

    def reaches(self, gradients: list[Any]) -> bool:
        """Tell whether a gradient may be part of a parameter or state, by what was read last."""
        if self._groups or self._only_called or self.steps is None or not self._knows_others:
            return True
        return self.steps.kernel_step.reaches(gradients, self._others)

    def run(
        self,
        owner: dict[str, Any],
        noted: dict[str, Any],
        unscaled: Sequence[Any] = (),
    ) -> None:
        """Update the parameters.

        What the kernels step, and the rules that their class updates together, go in the order of
        their first parameters; then rules that do it by themselves, in the order of their paths;
        last, parameters that have no step to make, but an `update` of their own. With the last of
        it, the attributes `owner` become what is `noted`; if the kernels step all, it is with their
        step.

        Parameters
        ----------
        owner, noted : dict
            The attributes of the optimizer, and what some of them become.
        unscaled : sequence of Parameter
            Those whose gradients are true ones from then on.
        """
        if self.only_steps:
            assert self.steps is not None
            self.steps.step(owner, noted, unscaled)
            return
        # the rules' hooks see the new count
        owner["t"] = noted.get("t")
        # gradients are read as they were before the first step
        shared = self.reaches(gradients_of(self.params))
        copied = copy_shared_gradients(self.params) if shared else []
        try:
            for key in self._order:
                if key is not _ROWS:
                    group = self._groups[key]
                    group.update()
                    self._applied.update(group.paths)
                    continue
                steps = self.steps
                if steps is None or (self._order[0] is not _ROWS and not self._reads_again()):
                    # users' code has run since they were read
                    steps = self.steps = self._described(gradients_of(self.params))
                    assert steps is not None
                steps.step({}, {}, unscaled)
                paths = list(self.parameters)
                self._applied.update(map(paths.__getitem__, self._rows))
            for single in self._singles:
                single.param.update()
                self._applied.add(single.path)
            for param in self._only_called:
                param.update()
        finally:
            if copied:
                put_back_gradients(copied)
        owner.update(noted)

    def _reads_again(self) -> bool:
        """Read what the kernels step anew; False if it is not what was described."""
        gradients = list(map(gradients_of(self.params).__getitem__, self._rows))
        steps = self.steps
        return steps is not None and steps.same() and steps.refresh(gradients)


def _written(param: Any) -> list[tuple[str, Any]]:
    """Return what is known to be written for a parameter, with what it is."""
    rule = getattr(param, "update_rule", None)
    return rule._written(param) if isinstance(rule, UpdateRule) else [("array", param.array)]


def _keeps_known_state(param: Any) -> bool:
    """Tell whether the plan compares the state of a parameter that the kernels do not step."""
    rule = getattr(param, "update_rule", None)
    return rule is None or (isinstance(rule, UpdateRule) and rule._is_known_to_write_state())
