"""Which parameters an update touches."""

from __future__ import annotations

from typing import Any

__all__ = ["is_updated"]


def is_updated(param: Any) -> bool:
    """Tell whether a parameter has a rule that is enabled, and is not frozen by who has its array.

    Parameters
    ----------
    param : Parameter
        One of this library's, or of another's, such as Chainer's.
    """
    rule = getattr(param, "update_rule", None)
    if rule is None or not getattr(rule, "enabled", True):
        return False
    return not getattr(param, "frozen", False)
