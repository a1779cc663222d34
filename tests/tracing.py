"""Stop at a line of the package: to count its lines, to interrupt it, to let memory run out."""

from __future__ import annotations

import contextlib
import linecache
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

import fastadam

PACKAGE = os.path.dirname(fastadam.__file__)
# Signals are handled where functions are called and loops turn. Its last lines do neither.
WITHOUT_SIGNALS = str(Path(PACKAGE, "update", "exclusive.py"))
HOLDING = str(Path(PACKAGE, "update", "interrupt.py"))


class Lines:
    """Counts the lines of the package that are reached, and does something at one of them.

    Parameters
    ----------
    at : int, optional
        At which line, counted from 0; at none, if it is None.
    what : callable, optional
        What is done just before that line; where it raises, nothing is traced any more.
    """

    def __init__(self, at: int | None = None, what: Callable[[], object] = lambda: None) -> None:
        self.reached = 0
        self._at, self._what = at, what

    def __call__(self, frame: FrameType, event: str, argument: Any) -> Any:
        name = frame.f_code.co_filename
        if name == WITHOUT_SIGNALS or not name.startswith(PACKAGE):
            return None
        if event == "line":
            self.reached += 1
            if self.reached - 1 == self._at:
                self._what()
        return self

    def __enter__(self) -> Self:
        self._before = sys.gettrace()
        sys.settrace(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        sys.settrace(self._before)


def holds(frame: FrameType) -> bool:
    """Tell whether a line begins or ends that signals are held: none comes in between."""
    code = frame.f_code
    line = linecache.getline(code.co_filename, frame.f_lineno).strip()
    return code.co_filename == HOLDING or line.startswith("with SignalsBetween()")


def raising(error: type[BaseException]) -> Callable[[], object]:
    """Return a function that raises an error."""

    def fail() -> None:
        raise error

    return fail


def interrupted(
    n: int,
    call: Callable[[], object],
    error: type[BaseException] = KeyboardInterrupt,
    also: tuple[type[BaseException], ...] = (),
) -> bool:
    """Raise an error at the n-th line that a call reaches; tell whether it came that far.

    What is raised in a finalizer reaches nobody: that the call has come to its end does not tell.

    Parameters
    ----------
    n : int
        The line, counted from 0.
    call : callable
        What is called.
    error : type
        What is raised.
    also : tuple of type
        What it may be turned into on its way out.
    """

    def fail() -> None:
        if not holds(sys._getframe(2)):
            raise error

    with Lines(n, fail) as lines, contextlib.suppress(error, *also):
        call()
    return lines.reached > n


def counted(call: Callable[[], object]) -> int:
    """Call something, and return how many lines of the package that takes."""
    with Lines() as lines:
        call()
    return lines.reached
