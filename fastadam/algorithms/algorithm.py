"""What an algorithm is made of, as data: the types of a row of the table."""

from __future__ import annotations

import itertools
import math
import sys
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from fastadam.algorithms.number import number, short

__all__ = ["Algorithm", "Hyper", "Stream"]

_LARGEST = sys.float_info.max


@dataclass(frozen=True)
class Stream:
    """An array that an algorithm keeps for each parameter: its shape, the dtype of the computation.

    Attributes
    ----------
    name : str
        Its key in the state, in files and in the kernels' tables.
    when : str or None
        The flag without which it is not there; None if it always is.
    made_of : str or None
        The stream whose numbers it may begin with, where its flag was off before.
    """

    name: str
    when: str | None = None
    made_of: str | None = None


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
                raise ValueError(f"{door}: {self.name} must be one of {known}, not {short(value)}")
            return str(value)
        try:
            found = number(value)
        except TypeError:
            wanted = self.range if isinstance(self.default, bool) else "a number"
            raise TypeError(
                f"{door}: {self.name} must be {wanted}, not {type(value).__name__} {short(value)}"
            ) from None
        except ValueError:
            found = math.nan
        if not self.low <= found <= self.high:
            raise ValueError(f"{door}: {self.name} must be {self.range}, not {short(value)}")
        return found


@dataclass(frozen=True)
class Algorithm:
    """A row of the table: all that is said of an algorithm but its formula.

    Attributes
    ----------
    name : str
        Its name.
    streams : tuple of Stream
        In the order in which a step makes them, which is that of the kernels' tables.
    hypers : tuple of Hyper
        In the order of the constructor's arguments.
    flags : tuple of str
        The hyperparameters that choose between loops.
    scalars : tuple of str
        The numbers of one step, in the order of the kernels' rows of scalars.
    finite : tuple of (str, str)
        The scalars that must be finite in the type they are computed with in, each with the
        hyperparameter that is too large otherwise.
    """

    name: str
    streams: tuple[Stream, ...]
    hypers: tuple[Hyper, ...]
    flags: tuple[str, ...]
    scalars: tuple[str, ...]
    finite: tuple[tuple[str, str], ...]

    @cached_property
    def state(self) -> tuple[str, ...]:
        """The names of all streams."""
        return tuple(stream.name for stream in self.streams)

    @cached_property
    def late(self) -> tuple[str, ...]:
        """The names of the streams that are there with a flag only."""
        return tuple(stream.name for stream in self.streams if stream.when is not None)

    def needed(self, flags: Any) -> tuple[str, ...]:
        """Return the names of the streams that a step reads and writes.

        Parameters
        ----------
        flags : object
            Has the flags as attributes: scalars of a step, or hyperparameters.
        """
        return self._needed[tuple([bool(getattr(flags, flag)) for flag in self._asked])]

    @cached_property
    def _asked(self) -> tuple[str, ...]:
        """The flags that streams depend on."""
        return tuple(dict.fromkeys(each.when for each in self.streams if each.when is not None))

    @cached_property
    def _needed(self) -> dict[tuple[bool, ...], tuple[str, ...]]:
        """The answers of `needed`, by the values of the flags that streams depend on."""
        answers = {}
        for values in itertools.product((False, True), repeat=len(self._asked)):
            on = {None, *itertools.compress(self._asked, values)}
            answers[values] = tuple(each.name for each in self.streams if each.when in on)
        return answers
