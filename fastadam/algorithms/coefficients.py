"""From hyperparameters and the step count to the scalars of one step.

The only place where bias correction, the bounds of AdaBound, and the two modes ``eps_mode`` and
``decay_mode`` are computed; always in float64. The kernels round each result once to their type.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from fastadam.algorithms.adam import Coefficients, numbers

__all__ = [
    "Coefficients",
    "Constants",
    "alpha_t",
    "bounds",
    "coefficients_at",
    "constants",
    "step_coefficients",
    "with_alpha",
]


def alpha_t(alpha: float, beta1: float, beta2: float, t: int) -> float:
    """Return the bias-corrected learning rate of step ``t``.

    ``alpha_t = alpha * sqrt(1 - beta2**t) / (1 - beta1**t)``

    Raises
    ------
    RuntimeError
        If ``t`` is 0: no step has been made yet.
    ZeroDivisionError
        If ``beta1`` is 1: the first moment would never move away from 0.
    ValueError
        If ``beta2`` is so far above 1 that the root is of a negative number.
    """
    if t == 0:
        raise RuntimeError(
            "alpha_t is defined from the first update on (t >= 1), and no update has been made yet"
        )
    correction1 = 1.0 - math.pow(beta1, t)
    correction2 = 1.0 - math.pow(beta2, t)
    if correction1 == 0:
        raise ZeroDivisionError(
            f"beta1 = {beta1} leaves 1 - beta1**t = 0 at t = {t}; beta1 must be below 1"
        )
    if correction2 < 0:
        raise ValueError(
            f"beta2 = {beta2} makes 1 - beta2**t negative at t = {t}; beta2 must be below 1"
        )
    return alpha * math.sqrt(correction2) / correction1


def bounds(
    alpha: float, final_lr: float, gamma: float, initial_alpha: float, t: int
) -> tuple[float, float]:
    """Return AdaBound's lower and upper bound of the step size at step ``t``.

    ``final = final_lr * alpha / initial_alpha``, so that a schedule of ``alpha`` moves the bounds
    too; ``lower = final * (1 - 1/(gamma*t + 1))`` and ``upper = final * (1 + 1/(gamma*t))``.
    ``gamma = 0`` is the limit: no bounds at all. An ``alpha`` that is still at an initial 0
    gives ``(0, 0)``: no step.

    Raises
    ------
    RuntimeError
        If ``t`` is 0: no step has been made yet.
    """
    if t == 0:
        raise RuntimeError(
            "the bounds are defined from the first update on (t >= 1), "
            "and no update has been made yet"
        )
    if initial_alpha == 0:
        return 0.0, 0.0
    final = final_lr * alpha / initial_alpha
    lower = final * (1.0 - 1.0 / (gamma * t + 1))
    upper = final * (1.0 + 1.0 / (gamma * t)) if gamma * t != 0 else math.inf
    return lower, upper


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


def with_alpha(c: Constants, alpha: float) -> Constants:
    """Return the same numbers with another alpha, which the decay must not depend on.

    Parameters
    ----------
    c : Constants
        Checked, with ``decay_mode='eta'`` or without decay.
    alpha : float
        A finite number.
    """
    # not by `_replace`, which takes ten times as long: schedules do this in every update
    changed: Constants = tuple.__new__(Constants, (alpha, *c[1:]))
    return changed


def coefficients_at(c: Constants, t: int, initial_alpha: float | None = None) -> Coefficients:
    """Return the scalars of step ``t``.

    ``eps_mode='paper'`` turns eps into ``eps * sqrt(1 - beta2**t)``, which is the paper's (and
    PyTorch's) eps outside the bias-corrected root. ``initial_alpha`` is the alpha against which
    AdaBound measures schedules; None stands for the current one.

    Raises
    ------
    ValueError
        If ``beta2`` is above 1, or ``alpha`` so large that the step would be infinite.
    ZeroDivisionError
        If ``beta1`` is 1, or ``beta2`` is with ``eps_mode='paper'``, which divides by its
        correction.
    """
    alpha, beta1, beta2, eps, eta, decay, amsgrad, adabound, final_lr, gamma, paper = c
    step_alpha = alpha_t(alpha, beta1, beta2, t)
    if step_alpha in (math.inf, -math.inf):
        raise ValueError(
            f"alpha = {alpha} with beta1 = {beta1} makes alpha_t infinite at t = {t}; alpha is too "
            "large"
        )
    if paper:
        correction2 = 1.0 - math.pow(beta2, t)
        if correction2 == 0:
            raise ZeroDivisionError(
                f"beta2 = {beta2} leaves 1 - beta2**t = 0 at t = {t}, by which "
                "eps_mode='paper' divides; beta2 must be below 1"
            )
        eps *= math.sqrt(correction2)
    lower, upper = 0.0, math.inf
    if adabound:
        start = alpha if initial_alpha is None else initial_alpha
        lower, upper = bounds(alpha, final_lr, gamma, start, t)
        if not -math.inf < lower < math.inf:
            raise ValueError(
                f"final_lr * alpha / initial_alpha = {final_lr} * {alpha} / {start} gives no "
                "finite bounds of the step"
            )
    # not by the named tuple's own constructor, which takes twice as long in every update
    return tuple.__new__(
        Coefficients,
        (
            step_alpha,
            1.0 - beta1,
            1.0 - beta2,
            eps,
            eta,
            1.0 - decay,
            lower,
            upper,
            amsgrad,
            adabound,
        ),
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
