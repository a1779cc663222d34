"""From hyperparameters and the step count to the scalars of one step.

The only place where bias correction, the bounds of AdaBound, and the two modes ``eps_mode`` and
``decay_mode`` are computed; always in float64. The kernels round each result once to their type.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

__all__ = [
    "DECAY_MODES",
    "EPS_MODES",
    "Coefficients",
    "Constants",
    "alpha_t",
    "bounds",
    "coefficients_at",
    "constants",
    "number",
    "step_coefficients",
]

EPS_MODES = ("hat", "paper")
DECAY_MODES = ("eta", "alpha")


class Coefficients(NamedTuple):
    """The scalars of one step, in the order of the kernels' table of coefficients, then flags.

    ``lower`` and ``upper`` are 0 and infinity without AdaBound.
    """

    alpha_t: float
    one_minus_beta1: float
    one_minus_beta2: float
    eps: float
    eta: float
    one_minus_decay: float
    lower: float
    upper: float
    amsgrad: bool
    adabound: bool


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


def constants(hyperparam: Mapping[str, Any]) -> Constants:
    """Read one set of hyperparameters.

    ``decay_mode='alpha'`` multiplies the decay, ``eta * weight_decay_rate``, by alpha too.

    Raises
    ------
    TypeError
        If a hyperparameter is no number.
    ValueError
        If a mode is unknown, or ``eps`` is 0 in float64 only.
    """
    alpha = _number(hyperparam, "alpha")
    eps = _number(hyperparam, "eps")
    if eps == 0 and hyperparam["eps"] != 0:
        raise ValueError(
            f"eps = {hyperparam['eps']!s} is too small for float64, where it would act as 0"
        )
    eta = _number(hyperparam, "eta")
    decay = eta * _number(hyperparam, "weight_decay_rate")
    if _mode(hyperparam, "decay_mode", DECAY_MODES) == "alpha":
        decay *= alpha
    adabound = bool(hyperparam["adabound"])
    return Constants(
        alpha=alpha,
        beta1=_number(hyperparam, "beta1"),
        beta2=_number(hyperparam, "beta2"),
        eps=eps,
        eta=eta,
        decay=decay,
        amsgrad=bool(hyperparam["amsgrad"]),
        adabound=adabound,
        final_lr=_number(hyperparam, "final_lr") if adabound else 0.0,
        gamma=_number(hyperparam, "gamma") if adabound else 0.0,
        paper=_mode(hyperparam, "eps_mode", EPS_MODES) == "paper",
    )


def coefficients_at(c: Constants, t: int, initial_alpha: float | None = None) -> Coefficients:
    """Return the scalars of step ``t``.

    ``eps_mode='paper'`` turns eps into ``eps * sqrt(1 - beta2**t)``, which is the paper's (and
    PyTorch's) eps outside the bias-corrected root. ``initial_alpha`` is the alpha against which
    AdaBound measures schedules; None stands for the current one.

    Raises
    ------
    ValueError
        If ``beta2`` is above 1.
    ZeroDivisionError
        If ``beta1`` is 1, or ``beta2`` is with ``eps_mode='paper'``, which divides by its
        correction.
    """
    alpha, beta1, beta2, eps, eta, decay, amsgrad, adabound, final_lr, gamma, paper = c
    step_alpha = alpha_t(alpha, beta1, beta2, t)
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
        start = alpha if initial_alpha is None else float(initial_alpha)
        lower, upper = bounds(alpha, final_lr, gamma, start, t)
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
    hyperparam: Mapping[str, Any], t: int, initial_alpha: float | None = None
) -> Coefficients:
    """Return the scalars of step ``t`` for one set of hyperparameters.

    As `constants` and `coefficients_at` say.
    """
    return coefficients_at(constants(hyperparam), t, initial_alpha)


def number(value: Any) -> float:
    """Return a hyperparameter's value as a float.

    Raises
    ------
    TypeError, ValueError
        If it is no number; a string of digits is none.
    """
    if isinstance(value, str | bytes):
        raise TypeError
    return float(value)


def _number(hyperparam: Mapping[str, Any], name: str) -> float:
    """Read a hyperparameter as a float; refuse what is no number."""
    value = hyperparam[name]
    try:
        return number(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number, not {type(value).__name__} {value!r}") from None


def _mode(hyperparam: Mapping[str, Any], name: str, known: tuple[str, ...]) -> str:
    """Read a mode, whose first known value is the default; refuse unknown ones."""
    mode = hyperparam.get(name, known[0])
    if mode not in known:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, known))}, not {mode!r}")
    return str(mode)
