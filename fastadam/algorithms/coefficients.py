"""From hyperparameters and the step count to the scalars of one step.

What a step's hyperparameters are is read and checked here, with ``decay_mode``;
``_coefficients.pyx`` computes the scalars from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from fastadam.algorithms._coefficients import alpha_t, bounds, coefficients_at
from fastadam.algorithms.adam import Coefficients, numbers

__all__ = [
    "Coefficients",
    "Constants",
    "alpha_t",
    "bounds",
    "coefficients_at",
    "constants",
    "step_coefficients",
]


class Constants(NamedTuple):
    """Hyperparameters as numbers: what a step's scalars are computed from, but for its count."""

    alpha: float
    beta1: float
    beta2: float
    eps: float
    eta: float
    decay: float
    amsgrad: bool
    adabound: bool
    final_lr: float
    gamma: float
    paper: bool


def constants(hyperparam: Mapping[str, Any], door: str = "hyperparameters") -> Constants:
    """Read and check one set of hyperparameters.

    ``decay_mode='alpha'`` multiplies the decay, ``eta * weight_decay_rate``, by alpha too.

    Parameters
    ----------
    hyperparam : mapping of str to object
        The hyperparameters by name.
    door : str
        Where they are looked at, for messages.

    Raises
    ------
    TypeError
        If a hyperparameter is no number.
    ValueError
        If one is missing or out of range, if a mode is unknown, or ``eps`` is 0 in float64 only.
    """
    found = numbers(hyperparam, door)
    decay = found["eta"] * found["weight_decay_rate"]
    if found["decay_mode"] == "alpha":
        decay *= found["alpha"]
    return Constants(
        alpha=found["alpha"],
        beta1=found["beta1"],
        beta2=found["beta2"],
        eps=found["eps"],
        eta=found["eta"],
        decay=decay,
        amsgrad=found["amsgrad"],
        adabound=found["adabound"],
        final_lr=found["final_lr"],
        gamma=found["gamma"],
        paper=found["eps_mode"] == "paper",
    )


def step_coefficients(
    hyperparam: Mapping[str, Any],
    t: int,
    initial_alpha: float | None = None,
    door: str = "hyperparameters",
) -> Coefficients:
    """Return the scalars of step ``t`` for one set of hyperparameters.

    As `constants` and `coefficients_at` say.
    """
    return coefficients_at(constants(hyperparam, door), t, initial_alpha)
