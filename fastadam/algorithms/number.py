"""What is a number: the only check, asked at every door.

Constructors, attributes, rules, files, ``adam_step``, and each update of numbers that have changed.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterable
from typing import Any

import numpy as np

__all__ = [
    "GREATEST_SCALE",
    "LEAST_SCALE",
    "check_loss_scale",
    "check_truth",
    "number",
    "short",
    "step_number",
]

# What every dtype has that steps are computed in: the ends of float32, subnormal ones included.
LEAST_SCALE = float(np.finfo(np.float32).smallest_subnormal)
GREATEST_SCALE = float(np.finfo(np.float32).max)


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
    >>> from fastadam.algorithms.number import number
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
    if getattr(value, "requires_grad", False):
        # PyTorch warns of such a tensor that becomes a number
        value = value.detach()
    try:
        return float(value)
    except OverflowError:
        raise ValueError("too large") from None
    # what a library says of tensors with more than one element, Decimal of sNaN
    except (ValueError, RuntimeError) as error:
        raise TypeError(str(error)) from None


def check_truth(value: Any, door: str) -> None:
    """Refuse what is no truth value, as text is none; 0, 1 and None are taken.

    Parameters
    ----------
    value : object
        What somebody has given.
    door : str
        Where, for messages.

    Raises
    ------
    TypeError
        If it is something else.
    """
    if value is None or value is True or value is False:
        return
    try:
        found = number(value)
    except (TypeError, ValueError):
        found = math.nan
    if found not in (0, 1):
        raise TypeError(f"{door} must be True or False, not {type(value).__name__} {short(value)}")


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
            f"t is the number of this step, not {type(t).__name__} {short(t)}"
        ) from None
    except ValueError:
        found = math.inf
    if not (1 <= found < 2**63 and found == math.floor(found)):
        raise ValueError(
            f"t is the number of this step, a whole number that begins at 1, not {short(t)}"
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
        raise TypeError(f"{door} must be a number, not {short(value)}") from None
    except ValueError:
        found = math.inf
    if not 0 < found < math.inf:
        raise ValueError(f"{door} must be a finite number above 0, not {short(value)}")
    if LEAST_SCALE <= found <= GREATEST_SCALE:
        return
    for dtype in dtypes:
        limits = np.finfo(dtype)
        least, greatest = float(limits.smallest_subnormal), float(limits.max)
        if not least <= found <= greatest:
            raise ValueError(
                f"{door} must be between {least} and {greatest}, as steps are computed in {dtype}, "
                f"not {short(value)}"
            )


def short(value: Any) -> str:
    """Spell a value, of which there may be much."""
    return reprlib.repr(value)
