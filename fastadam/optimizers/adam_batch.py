"""Many AdamRules in one call of the kernels: gathered once, then followed from step to step."""

from __future__ import annotations

import operator
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from itertools import repeat
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np

from fastadam.algorithms.adam import Coefficients
from fastadam.algorithms.coefficients import Constants, coefficients_at, constants
from fastadam.kernels._noted import Noted
from fastadam.kernels.backend import copy_into, is_gpu_array
from fastadam.kernels.batch import Batch, check_batch
from fastadam.kernels.cpu._tensors import all_none, count
from fastadam.kernels.gpu.sums import GpuSums
from fastadam.kernels.table import Step
from fastadam.model.parameter import Parameter
from fastadam.update.interrupt import DeferredInterrupt
from fastadam.update.rule_batch import RuleBatch

__all__ = ["AdamBatch", "call_all"]

# Hyperparameters that cannot change in place.
_LASTING = {int, float, bool, str, np.float64, np.float32}

# Sets an attribute in C, past UpdateRule's own `__setattr__`, which has nothing to note here.
_set = object.__setattr__


# What of a rule an update sets itself, or looks at each time.
_FREE = ("t", "_state", "_fp32_param", "_stepped_at", "path")

# What of its class says that it is stepped in a batch.
_PLAIN = attrgetter(
    "update",
    "update_core",
    "update_core_cpu",
    "update_core_gpu",
    "alpha_t",
    "bounds",
    "init_state",
    "batch_key",
    "update_batch",
    "check_batch",
    "__setattr__",
)


def _bags(hyperparam: Any) -> list[Any]:
    """Return a bag of hyperparameters and those on which it falls back; the last is the root."""
    bags = [hyperparam]
    while bags[-1].parent is not None:
        bags.append(bags[-1].parent)
    return bags


class _Group:
    """Rules whose next step has the same scalars; `place` is where the first of them is."""

    def __init__(self, rule: Any, place: int) -> None:
        self.rule = rule
        self.place = place
        self._root = _bags(rule.hyperparam)[-1]
        self._noted: Noted | None = None
        self.constants: Constants

    def coefficients(self, t: int) -> Coefficients:
        """Return the scalars of step `t`."""
        # changes below the root end the batch
        if self._noted is None or not self._noted.same():
            noted = Noted()
            noted.instance(self._root)
            noted.entries(vars(self._root))
            values = self.rule.hyperparam.get_dict()
            self.constants = constants(values, self.rule._door())
            # an array may change its value without anybody's notice
            lasting = all(type(value) in _LASTING for value in values.values())
            self._noted = noted if lasting else None
        start = self.rule._start_alpha() if self.constants.adabound else None
        return coefficients_at(self.constants, t, start)


class _Gathered(NamedTuple):
    """What the arrays and scalars of one step have been found to be."""

    batch: Batch
    groups: list[_Group]
    ts: list[int]
    rules: Noted
    kinds: list[Any]
    methods: list[Any]

    def same(self) -> bool:
        """Tell whether rules, classes and hyperparameters of single rules are what they were."""
        return self.rules.same() and list(map(_PLAIN, self.kinds)) == self.methods


def _noted(rules: Sequence[Any], params: Sequence[Any], attribute: str) -> Noted:
    """Note all of rules but what `Batch.follow` looks at."""
    noted = Noted()
    for rule, param in zip(rules, params, strict=True):
        noted.attribute(param, attribute)
        if hasattr(param, "__dict__"):
            noted.some(vars(param), ["update"])
        noted.instance(rule)
        noted.entries(vars(rule), _FREE)
        for hooks in rule._hooks.tables():
            noted.entries(hooks)
        for bag in _bags(rule.hyperparam):
            noted.attribute(bag, "_parent")
            if bag.parent is not None:
                noted.instance(bag)
                noted.entries(vars(bag))
    return noted


def _following(kept: _Gathered) -> list[int]:
    """Return each t after the next step."""
    ts = kept.ts
    return [ts[0] + 1] * len(ts) if len(kept.groups) == 1 else [t + 1 for t in ts]


class AdamBatch(RuleBatch):
    """AdamRules and their parameters, stepped in one call.

    The first update gathers the arrays and the scalars of every parameter and checks them. Later
    ones look whether the arrays are still where they were, take over the gradients and compute the
    scalars anew; if anything else has changed, they gather again.

    Attributes
    ----------
    gathered : int
        How often everything has been gathered.
    """

    def __init__(self, rules: Sequence[Any], params: Sequence[Any]) -> None:
        super().__init__(rules, params)
        self.gathered = 0
        self._kept: _Gathered | None = None
        self._coefficients: list[Coefficients] = []
        self._ours = all(type(param) is Parameter for param in self.params)
        # Chainer's `array` looks at much, and comes down to this
        raw = all(hasattr(type(param), "raw_array") for param in self.params)
        self._array = "_array" if self._ours else "raw_array" if raw else "array"
        self._rule = "_update_rule" if self._ours else "update_rule"

    def check(self) -> None:
        """Raise what `update` would refuse, and change nothing."""
        stepped = self._stepped()
        steps, _, _ = self._steps(stepped, trial=True)
        check_batch(steps, self._rounded(stepped, self.gradients()))

    def update(
        self, owner: dict[str, Any] | None = None, noted: dict[str, Any] | None = None
    ) -> None:
        """Make one update of every parameter, and note it."""
        gradients = self.gradients()
        owner, noted = owner or {}, noted or {}
        if self.ready(gradients) and self.prepare(gradients, None, 1.0, write=False):
            self.step(owner, noted)
        else:
            self._gather_and_run(gradients, owner, noted)

    def gradients(self) -> list[Any]:
        """Return the gradients as they are, in the order of the rules."""
        if self._ours:
            return [param._grad for param in self.params]
        return super().gradients()

    def cleared(self) -> bool:
        """Tell whether no parameter has a gradient."""
        return all_none(self.params, "_grad") if self._ours else super().cleared()

    def ready(self, gradients: list[Any]) -> bool:
        """Make ready for a step as the last one, if only gradients and scalars have changed."""
        kept = self._kept
        if kept is None or not kept.same():
            self._kept = None
            return False
        ts = kept.ts
        self._coefficients = [group.coefficients(ts[group.place] + 1) for group in kept.groups]
        if kept.batch.follow(
            self.params, self._array, self.rules, ts, gradients, self._coefficients
        ):
            return True
        self._kept = None
        return False

    def squares(self, scales: Sequence[float | None] | None = None) -> list[float]:
        """Return the sums of squares of the gradients that `ready` was given."""
        assert self._kept is not None
        return self._kept.batch.squares(scales)

    def doubtful(self, squares: Sequence[float]) -> bool:
        """Tell whether a square of these gradients may not be finite, by their sums of squares."""
        assert self._kept is not None
        return self._kept.batch.doubtful(squares)

    def gpu_sums(self, scales: Sequence[float | None] | None = None) -> GpuSums | None:
        """Return the sums of squares where they are, if all is on one GPU."""
        assert self._kept is not None
        return self._kept.batch.gpu_sums(scales)

    def takes(self, scales: Sequence[float | None] | None) -> bool:
        """Tell whether the kernels can divide by such scales."""
        assert self._kept is not None
        return self._kept.batch.takes(scales)

    def prepare(
        self,
        gradients: list[Any],
        scales: Sequence[float | None] | None,
        rate: Any,
        write: bool,
    ) -> bool:
        """Let the step divide the gradients by `scales` and multiply them with `rate`."""
        assert self._kept is not None
        return self._kept.batch.prepare(gradients, scales, rate, write)

    def step(
        self, owner: dict[str, Any], noted: dict[str, Any], unscaled: Sequence[Any] = ()
    ) -> None:
        """Make the step that `ready` has found, and count it."""
        kept = self._kept
        assert kept is not None
        # launches are made in Python, where Ctrl-C could come between one and its count
        step = kept.batch.step_and_count
        what = self._coefficients, self.rules, kept.ts, _following(kept), owner, noted, unscaled
        if kept.batch.on_gpu:
            with DeferredInterrupt():
                step(*what)
        else:
            step(*what)

    def capturing(self) -> bool:
        """Tell whether a step would become part of a CUDA graph."""
        assert self._kept is not None
        return self._kept.batch.capturing()

    def begin_capture(self) -> bool:
        """Make ready for the step that `ready` has found to be captured."""
        assert self._kept is not None
        return self._kept.batch.begin_capture()

    def capture(self, unscaled: Sequence[Any] = ()) -> None:
        """Launch the step that `ready` has found into the graph."""
        assert self._kept is not None
        self._kept.batch.capture()
        for param in unscaled:
            param._loss_scale = None

    def captured(self) -> Batch | None:
        """Return what has been captured, as long as it is what `ready` makes ready."""
        return None if self._kept is None else self._kept.batch

    def replay(
        self, owner: dict[str, Any], noted: dict[str, Any], unscaled: Sequence[Any] = ()
    ) -> None:
        """Write the scalars that `ready` has found to where graphs read them, and count."""
        kept = self._kept
        assert kept is not None
        with DeferredInterrupt():
            kept.batch.replay_and_count(
                self.rules, kept.ts, _following(kept), owner, noted, unscaled
            )

    def _gather_and_run(
        self, gradients: list[Any], owner: dict[str, Any], noted: dict[str, Any]
    ) -> None:
        """Gather everything, make the update, and keep what was gathered if it may be kept."""
        self._kept = None
        rules = _noted(self.rules, self.params, self._rule)
        kinds: list[Any] = list(dict.fromkeys(map(type, self.rules)))
        methods = list(map(_PLAIN, kinds))
        stepped = self._stepped()
        steps, groups, states = self._steps(stepped, gradients)
        batch = Batch(steps, self._rounded(stepped, gradients))
        self.gathered += 1
        counted = [
            rule
            for rule, param in zip(self.rules, self.params, strict=True)
            if param.array is not None
        ]
        ts = [rule.t + 1 for rule in counted]
        owners, new = [rule for rule, _ in states], [state for _, state in states]
        mastered = [
            (rule, param, master)
            for rule, param, master in zip(self.rules, self.params, stepped, strict=True)
            if master is not param
        ]
        call_all(
            [
                partial(deque, map(_set, owners, repeat("_state"), new), 0),
                *batch.runs(),
                *[_rounding(param.array, master.array) for _, param, master in mastered],
                *[partial(_set, rule, "_fp32_param", master) for rule, _, master in mastered],
                partial(count, counted, ts),
                partial(dict.update, owner, noted),
            ]
        )
        halves = self._rounded(stepped)
        steady = batch.steady and len(steps) == len(self.rules)
        # a warm-up from alpha = 0 has no first alpha yet
        if steady and all(group.rule._start_alpha() for group in groups) and batch.keep(halves):
            self._kept = _Gathered(batch, groups, ts, rules, kinds, methods)

    def _stepped(self) -> list[Any]:
        """Return what each step is made on: the parameter or its float32 master."""
        return [
            rule._stepped(param) if rule._use_fp32_update and param.array is not None else param
            for rule, param in zip(self.rules, self.params, strict=True)
        ]

    def _rounded(self, stepped: Sequence[Any], gradients: list[Any] | None = None) -> list[Any]:
        """Return the half-precision arrays that masters are rounded to, None for no master.

        In the order of `_steps`, or of all parameters.
        """
        rows = zip(self.params, stepped, gradients or self.gradients(), strict=True)
        return [
            None if master is param else param.array
            for param, master, grad in rows
            if gradients is None or (param.array is not None and grad is not None)
        ]

    def _steps(
        self, stepped: Sequence[Any], gradients: list[Any] | None = None, trial: bool = False
    ) -> tuple[list[Step], list[_Group], list[tuple[Any, dict[str, Any]]]]:
        """Gather what the next update reads and writes, and the states that it must adopt.

        For a trial, zeros stand in for states that are not there yet.
        """
        if gradients is None:
            gradients = self.gradients()
        steps: list[Step] = []
        states: list[tuple[Any, dict[str, Any]]] = []
        groups: dict[Hashable, tuple[_Group, Coefficients]] = {}
        rows = zip(self.rules, self.params, stepped, gradients, strict=True)
        for place, (rule, param, target, grad) in enumerate(rows):
            if param.array is None:
                continue
            # bags without entries of their own do not count
            bags = tuple(id(bag) for bag in _bags(rule.hyperparam) if vars(bag))
            key = (bags, rule.t, rule._start_alpha())
            if key not in groups:
                group = _Group(rule, place)
                groups[key] = group, group.coefficients(rule.t + 1)
            coefficients = groups[key][1]
            rule.follow_device(param)
            state = rule._ready_state(target, coefficients, trial)
            if state is not rule._state:
                states.append((rule, state))
            # without a gradient there is no step, but a count and what it begins with
            if grad is not None:
                steps.append(rule._step(target, grad, state, coefficients))
        return steps, [group for group, _ in groups.values()], states


def _rounding(half: Any, master: Any) -> Callable[[], Any]:
    """Return what rounds a master to its parameter: in C, on the CPU."""
    if is_gpu_array(half):
        return partial(copy_into, half, master)
    return partial(operator.setitem, half, ..., master)


def call_all(functions: list[Callable[[], Any]]) -> None:
    """Call functions one after the other, without a moment in between where Ctrl-C may arrive.

    Only where all of them are written in C: signals are looked at between lines of Python.
    """
    deque(map(operator.call, functions), 0)
