"""One count of whatever may change what an update does.

Parameters, rules, hooks, hyperparameters of single rules and links raise it when they are changed.
While it stands still, an optimizer may repeat what it has found out about its target. What the
count cannot see (arrays, gradients, the optimizer's own numbers) is looked at in every update.
"""

from __future__ import annotations

__all__ = ["changes", "note_change"]

_count = 0


def note_change() -> None:
    """Raise the count: something has changed."""
    global _count
    _count += 1


def changes() -> int:
    """Return the count; equal counts mean that nothing has changed in between."""
    return _count
