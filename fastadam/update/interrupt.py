"""Signals that wait until something is whole."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable
from functools import partial
from signal import SIGINT
from types import FrameType
from typing import Any

__all__ = ["DeferredInterrupt", "SignalsBetween", "hand_on_signals"]

# What the functions of `signal` call. Those convert to enums and back, which takes 20 times as
# long, and this is on the way of every update.
_signal: Any = importlib.import_module("_signal")
_SIGINT = int(SIGINT)
_NUMBERS = sorted(_signal.valid_signals())

Handler = Callable[[int, FrameType | None], Any]


class DeferredInterrupt:
    """A context that holds signals back until its end; a second Ctrl-C comes at once.

    Handlers may raise, or save what they would find half-made, so that all of Python's own wait
    (but for Ctrl-C, which somebody may have to press again). Signals are handled in the main
    thread only, so in others there is nothing to do. What no Python function handles stays as it
    is.
    """

    def __enter__(self) -> None:
        """Put handlers that take notes in the place of those there are."""
        self._handlers: dict[int, Handler] = {}
        self._holding: dict[int, Handler] = {}
        self._held: dict[int, FrameType | None] = {}
        if threading.current_thread() is not threading.main_thread():
            return
        try:
            for number in _NUMBERS:
                handler = _signal.getsignal(number)
                if callable(handler):
                    hold = self._holding[number] = partial(self._hold, handler)
                    self._handlers[number] = handler
                    _signal.signal(number, hold)
        except BaseException:
            # Ctrl-C while handlers are being replaced: nothing has begun
            self._put_back()
            raise

    def _hold(self, handler: Handler, number: int, frame: FrameType | None) -> None:
        """Remember a signal; hand on the second Ctrl-C."""
        if number in self._held and number == _SIGINT:
            handler(number, frame)
        else:
            self._held[number] = frame

    def _put_back(self) -> None:
        """Put the old handlers back, unless somebody has installed others in the meantime."""
        for number, handler in self._handlers.items():
            if _signal.getsignal(number) is self._holding[number]:
                _signal.signal(number, handler)

    def __exit__(self, *_: object) -> None:
        """Put the old handlers back, and call those of the signals that came."""
        if not self._handlers:
            return
        self._put_back()
        if self._held:
            self._hand_on()

    def _hand_on(self) -> None:
        """Call the handlers of the signals that came."""
        held, self._held = self._held, {}
        errors: list[BaseException] = []
        for number, frame in held.items():
            try:
                self._handlers[number](number, frame)
            except BaseException as error:
                errors.append(error)
        try:
            if errors:
                # the others are told as what came before it
                raise errors[-1]
        finally:
            # else each would hold this frame, and with it all that is in those above, until the
            # next collection of garbage
            errors.clear()


class SignalsBetween(DeferredInterrupt):
    """A context in which signals come between two calls of a library, where `hand_on_signals` is.

    h5py's compiled code drops what a handler raises in the callbacks of its weak references: Ctrl-C
    would be lost. Such contexts may be in one another; the outermost holds. A load or save of many
    values has one, which takes some microseconds.
    """

    def __enter__(self) -> None:
        """Hold signals, if nobody does."""
        global _holding
        self._is_outermost = _holding is None and _is_main()
        if self._is_outermost:
            super().__enter__()
            _holding = self

    def __exit__(self, *_: object) -> None:
        """Hand on what came, if this is the outermost."""
        global _holding
        if self._is_outermost:
            _holding = None
            super().__exit__()


_holding: SignalsBetween | None = None


def hand_on_signals() -> None:
    """Call the handlers of signals that came since the last call, in a `SignalsBetween`."""
    if _holding is not None and _holding._held and _is_main():
        _holding._hand_on()


def _is_main() -> bool:
    return threading.current_thread() is threading.main_thread()
