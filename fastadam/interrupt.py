"""Ctrl-C that waits until something is whole."""

from __future__ import annotations

import importlib
import threading
from signal import SIGINT
from types import FrameType
from typing import Any

__all__ = ["DeferredInterrupt"]

# What the functions of `signal` call. Those convert to enums and back, which takes 20 times as
# long, and this is on the way of every update.
_signal: Any = importlib.import_module("_signal")
_SIGINT = int(SIGINT)


class DeferredInterrupt:
    """A context that holds a first Ctrl-C back until its end; a second one comes at once.

    Signals are handled in the main thread only, so in others there is nothing to do. Where no
    Python function handles SIGINT, it stays as it is.
    """

    def __enter__(self) -> None:
        """Put a handler that takes notes in the place of the one there is."""
        self._handler: Any = None
        self._held: tuple[int, FrameType | None] | None = None
        if threading.current_thread() is threading.main_thread():
            handler = _signal.getsignal(_SIGINT)
            if callable(handler):
                self._handler = handler
                _signal.signal(_SIGINT, self._hold)

    def _hold(self, number: int, frame: FrameType | None) -> None:
        """Remember the first signal, hand on the others."""
        if self._held is None:
            self._held = number, frame
        else:
            self._handler(number, frame)

    def __exit__(self, *_: object) -> None:
        """Put the old handler back, and call it if there was a signal."""
        if self._handler is None:
            return
        # whoever has installed another in the meantime is to keep it
        if _signal.getsignal(_SIGINT) == self._hold:
            _signal.signal(_SIGINT, self._handler)
        if self._held is not None:
            self._handler(*self._held)
