"""One thread at a time: what is half-way in one must not be begun in another."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

__all__ = ["exclusive"]

S = TypeVar("S")
P = ParamSpec("P")
R = TypeVar("R")

# By id, as an optimizer may be copied or pickled by its own hooks, and its hash is its class's.
_RUNNING: dict[int, tuple[int]] = {}

if hasattr(os, "register_at_fork"):
    # the threads that were in there do not live on in a child
    os.register_at_fork(after_in_child=_RUNNING.clear)


def exclusive(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """Let a method run in one thread at a time for each object; the same thread may nest calls.

    Parameters
    ----------
    method : function
        A method; all that are decorated exclude each other.

    Returns
    -------
    function
        The method, which raises RuntimeError at once where it would have to wait.
    """

    @functools.wraps(method)
    def alone(self: S, /, *args: P.args, **kwds: P.kwargs) -> R:
        key, thread = id(self), (threading.get_ident(),)
        try:
            # setdefault is one operation, so that one of two threads comes first
            if _RUNNING.setdefault(key, thread) != thread:
                raise RuntimeError(_refusal(self))
            return method(self, *args, **kwds)
        finally:
            # Only the outermost call's entry is its own. No function is called here, after
            # which Ctrl-C could come in between.
            if key in _RUNNING and _RUNNING[key] is thread:
                del _RUNNING[key]

    return alone


def _refusal(obj: Any) -> str:
    """Say what is wrong, and what to do."""
    return (
        f"another thread is in an update of this {type(obj).__name__}; hold a threading.Lock "
        "around its updates, or give each thread an optimizer and parameters of its own"
    )
