"""Whether a class, or a single object, has made something its own: asked here and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["is_plain", "loads_in_two_phases", "overrides", "stores_plainly"]

F = TypeVar("F", bound=Callable[..., None])

# What `setattr` may do to an object for which storing in its dict is the same.
_PLAIN: set[Any] = {object.__setattr__}


def stores_plainly(setter: F) -> F:
    """Declare that a ``__setattr__`` stores what it is given, and at most refuses or notes it.

    Parameters
    ----------
    setter : function
        The method.
    """
    _PLAIN.add(setter)
    return setter


def overrides(obj: Any, name: str, base: type[Any]) -> bool:
    """Tell whether an object has another method of this name than a base of its class.

    Parameters
    ----------
    obj : object
        The object; its class may have made the method its own, or it itself may have.
    name : str
        The method.
    base : type
        The base that brought it.
    """
    return name in getattr(obj, "__dict__", ()) or (
        getattr(type(obj), name, None) is not getattr(base, name)
    )


def loads_in_two_phases(obj: Any) -> bool:
    """Tell whether an object's `prepare_load` does all that its `serialize` does.

    It does, unless a class further down, or the object itself, has a `serialize` of its own and no
    `prepare_load` with it.

    Parameters
    ----------
    obj : object
        A link, rule, optimizer or hook.
    """
    own = getattr(obj, "__dict__", {})
    if "serialize" in own or "prepare_load" in own:
        return "prepare_load" in own
    for kind in type(obj).__mro__:
        if "prepare_load" in kind.__dict__:
            return True
        if "serialize" in kind.__dict__:
            return False
    return False


def is_plain(obj: Any, name: str) -> bool:
    """Tell whether to set an attribute is to store a value, and runs nobody's code.

    Parameters
    ----------
    obj : object
        The object.
    name : str
        The attribute.
    """
    kind: Any = type(obj)
    return kind.__setattr__ in _PLAIN and not hasattr(type(class_attribute(kind, name)), "__set__")


def class_attribute(kind: type[Any], name: str) -> Any:
    """Return what a class has under a name, descriptors as they are; None if it has nothing."""
    for base in kind.__mro__:
        if name in base.__dict__:
            return base.__dict__[name]
    return None
