"""One at a time: what is half-way in one place must not be begun, or seen, in another.

Updates, looks (saving, comparing, copying) and loads exclude each other, at once and with an error:
nobody waits. Within one thread they nest as far as what they would find is whole.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

__all__ = [
    "LOAD",
    "LOOK",
    "MIDDLE",
    "OPEN",
    "POST",
    "PRE",
    "UPDATE",
    "add_aside",
    "enter",
    "exclusive",
    "undisturbed",
    "walkable",
    "while_whole",
]

S = TypeVar("S")
P = ParamSpec("P")
R = TypeVar("R")

# Where a call is: in a loss function, in 'pre' hooks, between the first write and the last, in
# 'post' hooks; in a look, in a load.
OPEN, PRE, MIDDLE, POST, LOOKING, LOADING = range(6)

# What may be begun: how it is called in messages, where it is at once, and what it may interrupt.
UPDATE = ("updated", OPEN, (OPEN,))
LOOK = ("saved, compared or copied", LOOKING, (OPEN, PRE, POST, LOOKING, LOADING))
LOAD = ("loaded or set up", LOADING, (OPEN, POST, LOADING))

Kind = tuple[str, int, tuple[int, ...]]

# Thread, place and object of the outermost call for each object. By id, as an optimizer may be
# copied or pickled by its own hooks, and its hash is its class's. The object is held, so that no
# later one has its id, should a debugger or tracer raise where an entry was to be removed.
_RUNNING: dict[int, list[Any]] = {}

# What tells that a compiler may follow the calls, and what makes one apart from it.
_ASIDE: list[tuple[Callable[[], bool], Callable[..., Any]]] = []

if hasattr(os, "register_at_fork"):
    # the threads that were in there do not live on in a child
    os.register_at_fork(after_in_child=_RUNNING.clear)


def undisturbed(obj: Any, kind: Kind, call: Callable[[], R]) -> R:
    """Call a function while nothing else is done with an object, known by its identity.

    The kind is UPDATE, LOOK or LOAD. It is a RuntimeError if something else is half-way: in another
    thread, or in this one where a hook, a rule or a signal handler has interrupted it.
    """
    key, mine = id(obj), [threading.get_ident(), kind[1], obj]
    outer: list[Any] | None = None
    place = 0
    try:
        # setdefault is one operation, so that one of two threads comes first
        found = _RUNNING.setdefault(key, mine)
        elsewhere = found[0] != mine[0]
        if elsewhere and found[1] == LOOKING and kind is LOOK:
            # two threads may look at once
            return call()
        if found is not mine:
            if elsewhere or found[1] not in kind[2]:
                raise RuntimeError(_refusal(obj, kind, found, elsewhere))
            place = found[1]
            outer = found
            # in 'pre' hooks nothing begins but looks, which walk no target there
            found[1] = PRE if place == PRE else kind[1]
        return call()
    finally:
        # Only the outermost call's entry is its own. No function is called here, after
        # which Ctrl-C could come in between.
        if outer is not None:
            outer[1] = place
        elif key in _RUNNING and _RUNNING[key] is mine:
            del _RUNNING[key]


def add_aside(may_follow: Callable[[], bool], apart: Callable[..., Any]) -> None:
    """Tell how updates are made where a compiler may follow the calls: its graph cannot hold them.

    Parameters
    ----------
    may_follow : callable
        Tells, fast, whether it may.
    apart : callable
        Called with a function and its arguments, which it calls without being followed.
    """
    _ASIDE.append((may_follow, apart))


def _aside() -> Callable[..., Any] | None:
    """Return what makes a call apart from a compiler that may follow it; None if there is none."""
    for may_follow, apart in _ASIDE:
        if may_follow():
            return apart
    return None


def exclusive(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """Let an update run alone for each object; in a loss function the same thread may nest one.

    All methods that are decorated exclude each other, and looks and loads: it is a RuntimeError at
    once where one would have to wait.
    """

    def made(may_be_followed: bool) -> Callable[Concatenate[S, P], R]:
        """Return the method that runs alone; of two, since one is called by the other, apart."""

        def alone(self: S, /, *args: P.args, **kwds: P.kwargs) -> R:
            if may_be_followed and _ASIDE and (apart := _aside()) is not None:
                result: R = apart(unfollowed, self, *args, **kwds)
                return result
            key, mine = id(self), [threading.get_ident(), OPEN, self]
            outer: list[Any] | None = None
            try:
                found = _RUNNING.setdefault(key, mine)
                if found is not mine:
                    if found[0] != mine[0] or found[1] != OPEN:
                        raise RuntimeError(_refusal(self, UPDATE, found, found[0] != mine[0]))
                    outer = found
                return method(self, *args, **kwds)
            finally:
                # as in `undisturbed`, written out: this is on the way of every update
                if outer is not None:
                    outer[1] = OPEN
                elif key in _RUNNING and _RUNNING[key] is mine:
                    del _RUNNING[key]

        return alone

    unfollowed = made(False)
    return functools.wraps(method)(made(True))


def while_whole(kind: Kind, name: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator for a function whose second argument may be an optimizer."""

    def decorated(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def whole(*args: P.args, **kwds: P.kwargs) -> R:
            obj = args[1] if len(args) > 1 else kwds.get(name)
            if not callable(getattr(obj, "setup", None)):
                return function(*args, **kwds)
            return undisturbed(obj, kind, lambda: function(*args, **kwds))

        return whole

    return decorated


def enter(obj: Any, place: int) -> None:
    """Say where the update of an object is that is running: in PRE, MIDDLE or POST."""
    found = _RUNNING.get(id(obj))
    if found is not None and found[0] == threading.get_ident():
        found[1] = place


def walkable(obj: Any) -> bool:
    """Tell whether a look may walk the target again, on whose last walk no update counts now."""
    found = _RUNNING.get(id(obj))
    return found is None or (found[0] == threading.get_ident() and found[1] not in (PRE, MIDDLE))


def _refusal(obj: Any, kind: Kind, found: list[Any], elsewhere: bool) -> str:
    """Say what is wrong, and what to do."""
    name, doing = type(obj).__name__, kind[0]
    where = {LOOKING: "is saving, comparing or copying", LOADING: "is loading or setting up"}
    if elsewhere:
        what = where.get(found[1], "is in an update of")
        return (
            f"another thread {what} this {name}; hold a threading.Lock around its updates, or give "
            "each thread an optimizer and parameters of its own"
        )
    if found[1] in where:
        return (
            f"this {name} cannot be {doing} now: this thread {where[found[1]]} it, and a callback "
            "or signal handler has come in between; do it afterwards"
        )
    return (
        f"this {name} cannot be {doing} now: it is in the middle of an update, which a hook, a "
        "rule or a signal handler has interrupted; do it when update() has returned (saving works "
        "in 'pre' and 'post' hooks of the optimizer, too)"
    )
