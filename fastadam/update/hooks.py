"""Hooks: functions called, in the order they were added, before or after an update."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

__all__ = ["Hook", "HookTable", "are_hooked", "hooks_of"]

Hook = Callable[..., Any]

_TIMINGS = ("pre", "post")


class HookTable:
    """The hooks of one optimizer or update rule, by name and timing.

    A name is unique over both timings. It is the argument `name`, or the hook's attribute
    ``name``, or its ``__name__``; the timing is the argument, or with ``'auto'`` the hook's
    attribute ``timing``, or ``'pre'``.
    """

    def __init__(self) -> None:
        self._hooks: dict[str, dict[str, Hook]] = {timing: {} for timing in _TIMINGS}

    def __len__(self) -> int:
        return sum(map(len, self._hooks.values()))

    def __iter__(self) -> Iterator[tuple[str, str, Hook]]:
        """Yield (timing, name, hook), all 'pre' hooks first."""
        for timing, hooks in self._hooks.items():
            # another thread may add one meanwhile
            for name, hook in hooks.copy().items():
                yield timing, name, hook

    def tables(self) -> list[dict[str, Hook]]:
        """Return the dicts in which the hooks are, for those who compare them."""
        return list(self._hooks.values())

    def add(self, hook: Hook, name: str | None, timing: str) -> None:
        """Add a hook at the end of its timing's order.

        Raises
        ------
        TypeError
            If the hook cannot be called.
        ValueError
            If the timing is unknown, or the hook has no name and none is given.
        KeyError
            If the name is taken.
        """
        if not callable(hook):
            raise TypeError(f"a hook must be callable, and {hook!r} is not")
        if isinstance(hook, type):
            raise TypeError(f"{hook.__name__} is a class; make a hook of it: {hook.__name__}(...)")
        if timing not in (*_TIMINGS, "auto"):
            raise ValueError(f"the timing of a hook is 'pre', 'post' or 'auto', not {timing!r}")
        if timing == "auto":
            if name in _TIMINGS:
                # Chainer's programs may have such names
                warnings.warn(
                    f"this hook is named {name!r}, and its timing is its own; if the timing is "
                    f"meant, add it with timing={name!r}",
                    UserWarning,
                    stacklevel=3,
                )
            timing = getattr(hook, "timing", "pre")
            if timing not in _TIMINGS:
                warnings.warn(
                    f"hook {hook!r} has the unknown timing {timing!r}; it will be called before "
                    "the update ('pre')",
                    UserWarning,
                    stacklevel=3,
                )
                timing = "pre"
        if name is None:
            name = getattr(hook, "name", None) or getattr(hook, "__name__", None)
            if name is None:
                raise ValueError(
                    f"hook {hook!r} has neither a 'name' nor a '__name__'; pass name=..."
                )
        if any(name in hooks for hooks in self._hooks.values()):
            raise KeyError(f"a hook named {name!r} is there already; pass another name=...")
        self._hooks[timing][name] = hook

    def remove(self, name: str) -> None:
        """Remove the hook of that name; KeyError if there is none."""
        for hooks in self._hooks.values():
            if name in hooks:
                del hooks[name]
                return
        known = ", ".join(repr(name) for _, name, _ in self) or "none"
        raise KeyError(f"there is no hook named {name!r}; there are: {known}")

    def at(self, timing: str) -> list[Hook]:
        """Return the hooks of one timing in order; ValueError for an unknown timing."""
        if timing not in _TIMINGS:
            raise ValueError(f"the timing of hooks to call is 'pre' or 'post', not {timing!r}")
        return list(self._hooks[timing].copy().values())


def hooks_of(owner: Any) -> HookTable:
    """Return the hooks of a rule, or of an optimizer that is set up."""
    table: HookTable = owner._hooks
    return table


def are_hooked(optimizer: Any, params: Iterable[Any]) -> bool:
    """Tell whether there are hooks, of an optimizer or of a rule, that may write gradients."""
    rules = [getattr(param, "update_rule", None) for param in params]
    return any(getattr(owner, "_hooks", None) for owner in (optimizer, *rules))
