r"""The Adam family: Adam, and AdamW, AMSGrad, AdaBound and AMSBound as flags of it.

With gradient ``g`` at step ``t = 1, 2, ...``, each operation rounded once, in this order::

    m    += (1 - beta1) * (g - m)
    v    += (1 - beta2) * (g*g - v)
    vhat  = max(vhat, v)                    with amsgrad; else v is in its place
    step  = alpha_t / (sqrt(vhat) + eps)
    step  = clip(step, lower, upper)        with adabound
    p     = (1 - decay) * p - eta * (step * m)

The scalars are computed in float64 by ``coefficients`` and rounded once to the type of the
computation. The formula is spelled three times, with the same names: in array operations
(``kernels/reference.py``), for the CPU (``kernels/cpu/_step.pyx``) and in CUDA
(``kernels/gpu/source_adam.py``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, Never

from fastadam.algorithms.algorithm import Algorithm, Hyper, Stream

__all__ = [
    "ADAM",
    "BY_NAME",
    "DECAY_MODES",
    "EPS_MODES",
    "INITIAL_ALPHA",
    "Coefficients",
    "check_decay",
    "numbers",
]

EPS_MODES = ("hat", "paper")
DECAY_MODES = ("eta", "alpha")

_BELOW_ONE = math.nextafter(1.0, 0.0)
_NOT_NEGATIVE = "a finite number, at least 0"


class Coefficients(NamedTuple):
    """The scalars of one step, in the order of the kernels' rows of scalars, then the flags.

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


_FLAGS = ("amsgrad", "adabound")

ADAM = Algorithm(
    name="adam",
    streams=(
        Stream("m"),
        Stream("v"),
        Stream("vhat", when="amsgrad", made_of="v"),
    ),
    hypers=(
        Hyper("alpha", 0.001),
        Hyper("beta1", 0.9, "at least 0 and below 1", 0.0, _BELOW_ONE),
        # at 1 the second moment stands still, and alpha_t is 0
        Hyper("beta2", 0.999, "at least 0 and at most 1", 0.0, 1.0),
        Hyper("eps", 1e-08, _NOT_NEGATIVE, 0.0),
        Hyper("eta", 1.0),
        Hyper("weight_decay_rate", 0, _NOT_NEGATIVE, 0.0),
        Hyper("amsgrad", False, "True or False"),
        Hyper("adabound", False, "True or False"),
        Hyper("final_lr", 0.1, _NOT_NEGATIVE, 0.0),
        Hyper("gamma", 0.001, _NOT_NEGATIVE, 0.0),
        Hyper("eps_mode", EPS_MODES[0], modes=EPS_MODES),
        Hyper("decay_mode", DECAY_MODES[0], modes=DECAY_MODES),
    ),
    flags=_FLAGS,
    scalars=tuple(name for name in Coefficients._fields if name not in _FLAGS),
    finite=(
        ("alpha_t", "alpha"),
        ("eps", "eps"),
        ("eta", "eta"),
        ("one_minus_decay", "weight_decay_rate"),
        ("lower", "final_lr"),
    ),
)

# the alpha against which AdaBound measures schedules: no hyperparameter, but a number
INITIAL_ALPHA = Hyper("initial_alpha", 0.001)
BY_NAME = {hyper.name: hyper for hyper in ADAM.hypers}
_NUMBERS = tuple(hyper for hyper in ADAM.hypers if not hyper.modes and hyper.name not in _FLAGS)
_MODES = tuple(hyper for hyper in ADAM.hypers if hyper.modes)
# needed, and used, with AdaBound only
_OF_BOUNDS = ("final_lr", "gamma")
# Numbers that are what they are.
_EXACT = (float, int)


def numbers(values: Mapping[str, Any], door: str) -> dict[str, Any]:
    """Return the checked numbers, flags and modes of one set of hyperparameters.

    `final_lr` and `gamma` are 0 without AdaBound, and need not be there; what is there is checked.

    Parameters
    ----------
    values : mapping of str to object
        By name.
    door : str
        Where they are looked at, for messages.

    Raises
    ------
    TypeError, ValueError
        As `Hyper.check`; also if a number is missing, or the weight decay is more than all.
    """
    found: dict[str, Any] = {}
    for name in _FLAGS:
        value = values[name] if name in values else _refuse_missing(name, door)
        found[name] = value if value is True or value is False else _flag(name, value, door)
    for hyper in _NUMBERS:
        name = hyper.name
        of_none = name in _OF_BOUNDS and not found["adabound"]
        if of_none and name not in values:
            found[name] = 0.0
            continue
        value = values[name] if name in values else _refuse_missing(name, door)
        # without a call for what nearly all of them are
        plain = type(value) in _EXACT and hyper.low <= value <= hyper.high
        checked = float(value) if plain else hyper.check(value, door)
        found[name] = 0.0 if of_none else checked
    if found["eps"] == 0 and values["eps"] != 0:
        raise ValueError(
            f"{door}: eps = {values['eps']!s} is too small for float64, where it would act as 0"
        )
    for hyper in _MODES:
        value = values.get(hyper.name, hyper.default)
        found[hyper.name] = value if value is hyper.default else hyper.check(value, door)
    # nearly always 0, and not looked at
    if found["decay_mode"] == "eta" and found["weight_decay_rate"]:
        check_decay(found["weight_decay_rate"], found["eta"], door)
    return found


def check_decay(rate: float, eta: float, door: str) -> None:
    """Refuse a weight decay, by eta alone, that takes more of a parameter than there is.

    Raises
    ------
    ValueError
        With the way to decay by alpha.
    """
    if rate > 1 or eta * rate > 1:
        product = "" if rate > 1 else f", times eta = {eta!r},"
        raise ValueError(
            f"{door}: weight_decay_rate{product} must be at least 0 and at most 1 with "
            f"decay_mode='eta', not {rate if rate > 1 else eta * rate!r}: every step takes this "
            "part of a parameter away. PyTorch's weight_decay, which is multiplied by the "
            "learning rate, needs decay_mode='alpha' (set it first)"
        )


def _refuse_missing(name: str, door: str) -> Never:
    """Say that a hyperparameter is missing."""
    raise ValueError(f"{door}: there is no hyperparameter {name!r}; set it")


def _flag(name: str, value: Any, door: str) -> bool:
    """Return a flag that is given as a number."""
    return bool(BY_NAME[name].check(value, door))
