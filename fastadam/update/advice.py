"""Warnings that are given once a process, of what is probably meant otherwise."""

from __future__ import annotations

import sys
import warnings

__all__ = ["advise_once"]

# What has been said.
_given: set[str] = set()


def advise_once(topic: str, message: str) -> None:
    """Warn of something whoever calls this library, unless that has been done.

    Parameters
    ----------
    topic : str
        What it is about: there is one warning for each.
    message : str
        What is said.
    """
    if topic in _given:
        return
    _given.add(topic)
    warnings.warn(message, UserWarning, stacklevel=_level())


def _level() -> int:
    """Return how many calls up the first is that is not this library's."""
    level, frame = 0, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("fastadam."):
        level, frame = level + 1, frame.f_back
    return level
