"""Steps whose arrays are given one after the other, as tests have them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastadam.algorithms.adam import ADAM
from fastadam.kernels._source import ArraySource
from fastadam.kernels.multi_tensor import MultiTensorStep
from fastadam.kernels.table import Step

# AMSBound, and no scalar at its default: every term of the formula counts.
HYPERPARAM = {
    "alpha": 0.02,
    "beta1": 0.83,
    "beta2": 0.971,
    "eps": 3e-6,
    "eta": 0.77,
    "weight_decay_rate": 0.013,
    "amsgrad": True,
    "adabound": True,
    "final_lr": 0.04,
    "gamma": 0.03,
}


def step_of(name: str, p: Any, g: Any, *rest: Any) -> Step:
    """Make a step of p, g, the streams in their order, and the scalars."""
    *state, coefficients = rest
    return Step(name, p, g, tuple(state), coefficients)


def described(steps: list[Step], halves: Sequence[Any] = ()) -> MultiTensorStep:
    """Describe the step of many parameters, which checks it and changes nothing."""
    return MultiTensorStep(ArraySource(list(steps), list(halves)), steps, halves)


def arrays_of(step: Step) -> list[Any]:
    """Return p, g and the streams, None for those that are not there."""
    return [step.p, step.g, *step.state]


def changed(step: Step, **fields: Any) -> Step:
    """Return a step with other arrays or scalars, by name."""
    state = {**dict(zip(ADAM.state, step.state, strict=True)), **fields}
    others = {key: value for key, value in fields.items() if key not in ADAM.state}
    return step._replace(state=tuple(state[key] for key in ADAM.state), **others)
