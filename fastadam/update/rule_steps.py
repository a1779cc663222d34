"""Rules of one algorithm and their parameters, stepped in one call of the kernels."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Protocol

from fastadam.algorithms.adam import ADAM, Coefficients
from fastadam.algorithms.number import number
from fastadam.kernels._noted import Noted
from fastadam.kernels.multi_tensor import CHANGED, MultiTensorStep
from fastadam.kernels.table import Step
from fastadam.model.parameter import Parameter, peek_grad
from fastadam.update._rule_source import RuleSource
from fastadam.update._scalars import LASTING, NUMBERS, Scalars, bags, coefficients_of
from fastadam.update.hooks import HookTable
from fastadam.update.interrupt import DeferredInterrupt

__all__ = ["RuleSteps"]

# What of a rule an update sets itself, or reads each time.
_FREE = ("t", "_state", "_fp32_param", "_stepped_at", "path")

# What of its class says that it is stepped together with others.
_PLAIN = (
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
    "t",
)


class SteppedRule(Protocol):
    """What is asked of a rule that the kernels step."""

    hyperparam: Any
    t: int
    _hooks: HookTable
    _state: dict[str, Any] | None
    _use_fp32_update: bool

    def follow_device(self, param: Any) -> None: ...

    def _door(self) -> str: ...

    def _start_alpha(self) -> float: ...

    def _stepped(self, param: Any) -> Any: ...

    def _ready_state(
        self, param: Any, coefficients: Coefficients, trial: bool = False
    ) -> dict[str, Any]: ...

    def _step(
        self, param: Any, grad: Any, state: dict[str, Any], coefficients: Coefficients
    ) -> Step: ...


def _shared_by(rule: SteppedRule) -> tuple[Any, ...]:
    """Return what is equal for rules whose steps have the same scalars."""
    *own, root = bags(rule.hyperparam)
    entries = [
        (name, type(value), value if type(value) in LASTING else id(value))
        for bag in own
        for name, value in vars(bag).items()
    ]
    return id(root), tuple(entries), rule.t, rule._start_alpha()


def _next_step(rule: SteppedRule) -> Any:
    """Return the number of a rule's next step; what it has counted may be any number, as -1 is."""
    t = rule.t
    try:
        below = number(t) < -1
    except (TypeError, ValueError):
        raise TypeError(_no_count(rule)) from None
    if below:
        raise ValueError(_no_count(rule))
    return t + 1


def _no_count(rule: SteppedRule) -> str:
    """Say that a rule has counted something else than updates."""
    return f"{rule._door()}: its rule's t is the number of updates made, not {rule.t!r}"


class RuleSteps:
    """The steps of rules and their parameters, checked when they are described.

    Nothing is changed until `step`.

    Parameters
    ----------
    rules : sequence of AdamRule
        Enabled rules of one algorithm.
    params : sequence of Parameter
        Their parameters, in the same order, with arrays.
    gradients : list, optional
        Their gradients, None for one that is not there; by default those that they have.
    trial : bool
        Whether no step follows: zeros stand in for states that are not there yet.

    Raises
    ------
    TypeError, ValueError
        If an array or a number is none that the kernels can step.
    """

    def __init__(
        self,
        rules: Sequence[SteppedRule],
        params: Sequence[Any],
        gradients: list[Any] | None = None,
        trial: bool = False,
    ) -> None:
        self.rules, self.params = list(rules), list(params)
        ours = all(type(param) is Parameter for param in params)
        # Chainer's `array` looks at much, and comes down to this
        raw = all(hasattr(type(param), "raw_array") for param in params)
        self._array = "_array" if ours else "raw_array" if raw else "array"
        if gradients is None:
            gradients = [peek_grad(param) for param in self.params]
        fixed_starts = set(filter(self._has_fixed_start, range(len(self.rules))))
        self._noted = self._note("_update_rule" if ours else "update_rule")
        self._describe(gradients, trial, fixed_starts)

    def _note(self, rule_attribute: str) -> Noted:
        """Note all of rules but what their source reads."""
        noted = Noted()
        for kind in dict.fromkeys(map(type, self.rules)):
            noted.class_attributes(kind, _PLAIN)
        for rule, param in zip(self.rules, self.params, strict=True):
            noted.attribute(param, rule_attribute)
            if hasattr(param, "__dict__"):
                noted.some(vars(param), ["update", "frozen"])
            noted.instance(rule)
            noted.entries(vars(rule), _FREE)
            for hooks in rule._hooks.tables():
                noted.entries(hooks)
            for bag in bags(rule.hyperparam):
                noted.attribute(bag, "_parent")
                if bag.parent is not None:
                    noted.instance(bag)
                    noted.entries(vars(bag))
        return noted

    def _has_fixed_start(self, place: int) -> bool:
        """Tell whether a rule's first alpha is a number that is about to be noted with the rule."""
        rule = self.rules[place]
        start = vars(rule).get("initial_alpha")
        return (
            bool(type(start) in NUMBERS and start)
            and rule.hyperparam.adabound is True
            and not hasattr(type(rule), "initial_alpha")
        )

    def _describe(self, gradients: list[Any], trial: bool, fixed_starts: set[int]) -> None:
        """Find out what the next step reads and writes, and check it."""
        steps: list[Step] = []
        low_precision: list[Any] = []
        states: list[dict[str, Any]] = []
        begun: list[bool] = []
        masters: list[Any] = []
        streams: list[tuple[str | None, ...]] = []
        groups: dict[Hashable, tuple[Scalars, Coefficients]] = {}
        rows = zip(self.rules, self.params, gradients, strict=True)
        for place, (rule, param, grad) in enumerate(rows):
            key = _shared_by(rule)
            if key not in groups:
                fixed = key[-1] if place in fixed_starts else None
                first = rule._start_alpha
                group = Scalars(rule.hyperparam, place, rule._door(), first, fixed)
                groups[key] = group, group.at(_next_step(rule))
            coefficients = groups[key][1]
            rule.follow_device(param)
            stepped = rule._stepped(param) if rule._use_fp32_update else param
            state = rule._ready_state(stepped, coefficients, trial)
            needed = ADAM.needed(coefficients)
            begun.append(state is not rule._state)
            states.append(state if type(state) is dict else dict(state))
            masters.append(None if stepped is param else stepped)
            low_precision.append(None if stepped is param else param.array)
            streams.append(tuple([key if key in needed else None for key in ADAM.state]))
            steps.append(rule._step(stepped, grad, state, coefficients))
        self._groups = [group for group, _ in groups.values()]
        self._source = RuleSource(
            self.params, self.rules, self._array, streams, states, begun, masters
        )
        self.kernel_step = MultiTensorStep(
            self._source, steps, [] if all(h is None for h in low_precision) else low_precision
        )

    @property
    def lasting(self) -> bool:
        """Whether the next update may go on from here."""
        # a warm-up from alpha = 0 has no first alpha yet
        return self.kernel_step.steady and all(group.first_alpha() for group in self._groups)

    def same(self) -> bool:
        """Tell whether rules, classes and hyperparameters of single rules are what they were."""
        return self._noted.same()

    def refresh(self, gradients: list[Any], scalars: bool = True) -> bool:
        """Read everything anew; False if it is not what was described.

        Parameters
        ----------
        gradients : list
            In the order of the rules, None for one that is not there.
        scalars : bool
            Whether the scalars become those of the next step, too.
        """
        self._source.gradients = gradients
        step = self.kernel_step
        if scalars:
            return step.refresh(coefficients_of(self._groups, self._source.ts))
        return step.refresh(step.coefficients)

    def read(self, gradients: list[Any]) -> None:
        """Read everything that has just been described; RuntimeError if anything has changed.

        Parameters
        ----------
        gradients : list
            As for `refresh`.
        """
        if not self.refresh(gradients):
            raise RuntimeError(CHANGED)

    def is_good(self, gradients: list[Any]) -> bool:
        """Tell whether steps that somebody else makes would be refused by nobody.

        Parameters
        ----------
        gradients : list
            As for `refresh`.
        """
        for group in self._groups:
            if not group.is_same():
                return False
        if not self._noted.same():
            return False
        self._source.of_others = True
        return self.refresh(gradients, scalars=False)

    def let_go(self) -> None:
        """Let gradients go that have been read for a step that is not made."""
        self._source.gradients = [None] * len(self.params)
        self.kernel_step.let_go()

    def step(
        self, owner: dict[str, Any], noted: dict[str, Any], unscaled: Sequence[Any] = ()
    ) -> None:
        """Make the step that `refresh` has read, and count it; no signal comes in between.

        Parameters
        ----------
        owner, noted : dict
            The attributes of the rules' optimizer, and what some of them become.
        unscaled : sequence of Parameter
            Those whose gradients are true ones from then on.
        """
        if self.kernel_step.in_c:
            self.kernel_step.step(owner, noted, unscaled)
        else:
            # launches, and what is rounded to half-precision parameters, are made in Python
            with DeferredInterrupt():
                self.kernel_step.step(owner, noted, unscaled)

    def replay(
        self, owner: dict[str, Any], noted: dict[str, Any], unscaled: Sequence[Any] = ()
    ) -> None:
        """Write the scalars that `refresh` has found to where graphs read them, and count.

        Parameters
        ----------
        owner, noted, unscaled
            As for `step`.
        """
        with DeferredInterrupt():
            self.kernel_step.replay(owner, noted, unscaled)
