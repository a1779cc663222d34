"""Whether a parameter's `update` is somebody's own: then an update calls it, whatever it does."""

from __future__ import annotations

from typing import Any

from fastadam.model.parameter import Parameter

__all__ = ["has_own_update"]

# What is passed over in batches, which do the same: as it is here, not as it may be patched.
_OURS = Parameter.update


def has_own_update(param: Any) -> bool:
    """Tell whether a parameter's `update` does something else than to call its rule.

    Parameters
    ----------
    param : Parameter
        This library's, Chainer's, or of any class that may have an `update`.
    """
    update = getattr(type(param), "update", None)
    if update is not _OURS and not _is_chainers(update):
        return update is not None or _has_one_itself(param)
    return _has_one_itself(param)


def _is_chainers(update: Any) -> bool:
    """Tell whether a function is that of Chainer's own class."""
    return (
        getattr(update, "__qualname__", None) == "Parameter.update"
        and getattr(update, "__module__", None) == "chainer.variable"
    )


def _has_one_itself(param: Any) -> bool:
    """Tell whether an object has an `update` that is not its class's."""
    return "update" in getattr(param, "__dict__", ())
