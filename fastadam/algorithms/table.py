"""The hyperparameters of the Adam family, and the only check of what one may be.

Every door asks here: constructors, attributes, rules, files, ``adam_step``, and each update of
numbers that have changed.
"""

from __future__ import annotations

import math
import reprlib
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = [
    "ADAM",
    "BY_NAME",
    "DECAY_MODES",
    "EPS_MODES",
    "GREATEST_SCALE",
    "INITIAL_ALPHA",
    "LEAST_SCALE",
    "Hyper",
    "check_decay",
    "check_loss_scale",
    "number",
    "numbers",
    "step_number",
]

EPS_MODES = ("hat", "paper")
DECAY_MODES = ("eta", "alpha")

_LARGEST = sys.float_info.max

# What every dtype has that steps are computed in: the ends of float32, subnormal ones included.
LEAST_SCALE = float(np.finfo(np.float32).smallest_subnormal)
GREATEST_SCALE = float(np.finfo(np.float32).max)
_BELOW_ONE = math.nextafter(1.0, 0.0)


@dataclass(frozen=True)
class Hyper:
    """One hyperparameter: a number in a closed range, a flag, or a mode.

    Attributes
    ----------
    name : str
        Its name.
    default : float, bool or str
        What it is if nobody says.
    range : str
        What it must be, for messages.
    low, high : float
        The least and the greatest number that it may be; nothing else of a flag counts than
        whether it is 0.
    modes : tuple of str
        The words that it may be, if it is a mode; the first is the default.
    """

    name: str
    default: float | bool | str
    range: str = "a finite number"
    low: float = -_LARGEST
    high: float = _LARGEST
    modes: tuple[str, ...] = ()

    def check(self, value: Any, door: str) -> Any:
        """Return a value as the float or the mode that it is, if it may be one.

        Parameters
        ----------
        value : object
            What somebody has given.
        door : str
            Where, for messages.

        Raises
        ------
        TypeError
            If it is no number.
        ValueError
            If it is out of range, or no mode.
        """
        if self.modes:
            if not isinstance(value, str) or value not in self.modes:
                known = ", ".join(map(repr, self.modes))
                raise ValueError(f"{door}: {self.name} must be one of {known}, not {_short(value)}")
            return str(value)
        try:
            found = number(value)
        except TypeError:
            wanted = self.range if self.name in _FLAGS else "a number"
            raise TypeError(
                f"{door}: {self.name} must be {wanted}, not {type(value).__name__} {_short(value)}"
            ) from None
        except ValueError:
            found = math.nan
        if not self.low <= found <= self.high:
            raise ValueError(f"{door}: {self.name} must be {self.range}, not {_short(value)}")
        return found


_NOT_NEGATIVE = "a finite number, at least 0"
ADAM = (
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
)
# the alpha against which AdaBound measures schedules: no hyperparameter, but a number
INITIAL_ALPHA = Hyper("initial_alpha", 0.001)
BY_NAME = {hyper.name: hyper for hyper in ADAM}
_FLAGS = ("amsgrad", "adabound")
_NUMBERS = tuple(hyper for hyper in ADAM if not hyper.modes and hyper.name not in _FLAGS)
# needed, and used, with AdaBound only
_OF_BOUNDS = ("final_lr", "gamma")


def number(value: Any) -> float:
    """Return anything that is a real number as a float, whatever its library.

    Raises
    ------
    TypeError
        If it is none: text (of digits, too), complex, masked, or of more than one element.
    ValueError
        If it is one that no float is near to.

    Examples
    --------
    >>> from decimal import Decimal
    >>> from fastadam.algorithms.table import number
    >>> number(Decimal('0.5')), number(2)
    (0.5, 2.0)
    """
    kind = type(value)
    if kind is float or kind is int or kind is bool:
        try:
            return float(value)
        except OverflowError:
            raise ValueError("too large") from None
    dtype = getattr(value, "dtype", None)
    if (
        not (hasattr(kind, "__float__") or hasattr(kind, "__index__"))
        or isinstance(value, str | bytes)
        or (isinstance(dtype, np.dtype) and dtype.kind in "cmMSU")
        or (isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value))
    ):
        raise TypeError
    if isinstance(value, np.ndarray) and dtype is not None and dtype.kind == "O":
        if value.size != 1:
            raise TypeError
        return number(value.item())
    try:
        return float(value)
    except OverflowError:
        raise ValueError("too large") from None
    # what a library says of tensors with more than one element, Decimal of sNaN
    except (ValueError, RuntimeError) as error:
        raise TypeError(str(error)) from None


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
        value = _given(values, name, door)
        found[name] = value if value is True or value is False else _flag(name, value, door)
    for hyper in _NUMBERS:
        name = hyper.name
        of_none = name in _OF_BOUNDS and not found["adabound"]
        if of_none and name not in values:
            found[name] = 0.0
            continue
        value = _given(values, name, door)
        # without a call for what nearly all of them are
        plain = type(value) is float and hyper.low <= value <= hyper.high
        checked = value if plain else hyper.check(value, door)
        found[name] = 0.0 if of_none else checked
    if found["eps"] == 0 and values["eps"] != 0:
        raise ValueError(
            f"{door}: eps = {values['eps']!s} is too small for float64, where it would act as 0"
        )
    for name, modes in (("eps_mode", EPS_MODES), ("decay_mode", DECAY_MODES)):
        value = values.get(name, modes[0])
        found[name] = value if value is modes[0] else BY_NAME[name].check(value, door)
    if found["decay_mode"] == "eta":
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


def step_number(t: Any) -> int:
    """Return the number of a step, which begins at 1.

    Raises
    ------
    TypeError
        If it is no number, or a truth value.
    ValueError
        If it is not a whole number, or below 1.
    """
    try:
        found = number(t)
        if isinstance(t, bool | np.bool_):
            raise TypeError
    except TypeError:
        raise TypeError(
            f"t is the number of this step, not {type(t).__name__} {_short(t)}"
        ) from None
    except ValueError:
        found = math.inf
    if not (1 <= found < 2**63 and found == math.floor(found)):
        raise ValueError(
            f"t is the number of this step, a whole number that begins at 1, not {_short(t)}"
        )
    return int(found)


def check_loss_scale(value: Any, door: str, dtypes: Iterable[np.dtype[Any]] = ()) -> None:
    """Refuse what gradients cannot be divided by where steps are computed.

    Parameters
    ----------
    value : object
        The loss scale.
    door : str
        Where it is given, for messages.
    dtypes : iterable of numpy.dtype
        What steps are computed in: float32, float64.

    Raises
    ------
    TypeError
        If it is no number.
    ValueError
        If it is not finite and above 0, or one of the dtypes does not have it.
    """
    try:
        found = number(value)
    except TypeError:
        raise TypeError(f"{door} must be a number, not {_short(value)}") from None
    except ValueError:
        found = math.inf
    if not 0 < found < math.inf:
        raise ValueError(f"{door} must be a finite number above 0, not {_short(value)}")
    if LEAST_SCALE <= found <= GREATEST_SCALE:
        return
    for dtype in dtypes:
        limits = np.finfo(dtype)
        least, greatest = float(limits.smallest_subnormal), float(limits.max)
        if not least <= found <= greatest:
            raise ValueError(
                f"{door} must be between {least} and {greatest}, as steps are computed in {dtype}, "
                f"not {_short(value)}"
            )


def _given(values: Mapping[str, Any], name: str, door: str) -> Any:
    """Return a hyperparameter, or say that it is missing."""
    try:
        return values[name]
    except KeyError:
        raise ValueError(f"{door}: there is no hyperparameter {name!r}; set it") from None


def _flag(name: str, value: Any, door: str) -> bool:
    """Return a flag that is given as a number."""
    return bool(BY_NAME[name].check(value, door))


def _short(value: Any) -> str:
    """Spell a value, of which there may be much."""
    return reprlib.repr(value)
