"""One warning, once a process: weight decay that is probably meant as PyTorch's."""

from __future__ import annotations

import sys
import warnings

from fastadam.algorithms.adam import DECAY_MODES

__all__ = ["UNCHOSEN", "warn_of_decay"]


class _Unchosen(str):
    """The default of an argument, told from the same word given by somebody."""

    __slots__ = ()


UNCHOSEN = _Unchosen(DECAY_MODES[0])

# What calls an update is above these.
_LIBRARIES = ("fastadam.", "torch.")

_warned = False


def warn_of_decay(kind: str, alpha: float, rate: float) -> None:
    """Warn of a weight decay that is not below alpha, unless that has been done."""
    global _warned
    # a warm-up may begin at an alpha of 0, which says nothing
    if _warned or not 0 < alpha <= rate:
        return
    _warned = True
    warnings.warn(
        f"{kind} with alpha={alpha!r} and weight_decay_rate={rate!r}: every step takes the part "
        f"{rate!r} of each parameter away, whatever alpha is. PyTorch's and Keras's weight_decay "
        "is multiplied by the learning rate: if that is meant, add decay_mode='alpha'. If it is "
        "not, decay_mode='eta' says so, and ends this warning",
        UserWarning,
        stacklevel=_level(),
    )


def _level() -> int:
    """Return how many calls up the first is that is not this library's.

    PyTorch stands between where it has compiled the caller, or could have.
    """
    level, frame = 0, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(_LIBRARIES):
        level, frame = level + 1, frame.f_back
    return level
