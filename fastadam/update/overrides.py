"""Whether a class, or a single object, has made something its own: asked here and nowhere else."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from operator import attrgetter
from typing import Any, TypeVar

from fastadam.kernels._noted import Own

__all__ = [
    "brought_by_class",
    "brought_by_fastadam",
    "can_be_folded",
    "class_attribute",
    "class_overrides",
    "folds",
    "has_own_update",
    "is_chainers",
    "is_for_optimizers",
    "is_ours",
    "is_plain",
    "libraries_of",
    "loads_in_two_phases",
    "others",
    "overrides",
    "overrides_any",
    "stores_plainly",
]

# What a hook does in an update, in whatever way it is asked.
_OF_HOOKS = ("__call__", "call_for_all", "ops", "rate")

F = TypeVar("F", bound=Callable[..., None])
K = TypeVar("K", bound=type[Any])

# What `setattr` may do to an object for which storing in its dict is the same.
_PLAIN: set[Any] = {object.__setattr__}


def stores_plainly(setter: F) -> F:
    """Declare that a ``__setattr__`` or ``__set__`` stores, and at most refuses or notes, a value.

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
    return overrides_any(obj, (name,), base)


def overrides_any(obj: Any, names: Collection[str], base: type[Any]) -> bool:
    """Tell whether an object has another method under one of several names, as `overrides` does.

    Parameters
    ----------
    obj : object
        The object.
    names : collection of str
        The methods.
    base : type
        The base that brought them.
    """
    own: dict[str, Any] = getattr(obj, "__dict__", {})
    return not own.keys().isdisjoint(names) or class_overrides(type(obj), names, base)


def class_overrides(kind: type[Any], names: Collection[str], base: type[Any]) -> bool:
    """Tell whether a class has another method under one of several names than its base.

    Parameters
    ----------
    kind : type
        The class.
    names : collection of str
        The methods; class methods may be among them.
    base : type
        The base that brought them.
    """
    return kind is not base and any(
        _function(getattr(kind, name, None)) is not _function(getattr(base, name)) for name in names
    )


def brought_by_class(obj: Any, name: str) -> Any:
    """Return what an object's own class has under a name; None if it has it from a base or not.

    So does who asks for something that holds for a class and not for its subclasses, which may be
    something else.

    Parameters
    ----------
    obj : object
        The object.
    name : str
        The attribute.
    """
    return vars(type(obj)).get(name)


def has_own_update(param: Any, ours: Any) -> bool:
    """Tell whether a parameter's `update` does something else than to call its rule.

    Parameters
    ----------
    param : Parameter
        This library's, Chainer's, or of any class that may have an `update`.
    ours : function
        That of this library, as it was when it was imported, not as it may be patched.
    """
    update = getattr(type(param), "update", None)
    if "update" in getattr(param, "__dict__", ()):
        return True
    return update is not None and update is not ours and not _is_chainers_update(update)


def folds(kind: K) -> K:
    """Declare that an update may do the work of a class of hooks on the way of its step.

    Parameters
    ----------
    kind : type
        The class; one that is derived from it may do other work.
    """
    kind._folds = tuple(map(vars(kind).get, _OF_HOOKS))
    return kind


def _works_otherwise(kind: type[Any]) -> bool:
    """Tell whether a class of hooks is none that `folds`, or does something else by now."""
    own = vars(kind)
    known = own.get("_folds")
    return known is None or known != tuple(map(own.get, _OF_HOOKS))


_cannot_fold = Own(_works_otherwise, ("_folds", *_OF_HOOKS), ("call_for_all", "ops"))


def can_be_folded(hooks: dict[str, Any]) -> bool:
    """Tell whether all hooks are such that an update does their work on the way of its step.

    Their classes `folds`, and do still what they did then.

    Parameters
    ----------
    hooks : dict of str to callable
        The 'pre' hooks.
    """
    return not any(map(_cannot_fold, hooks.values()))


def is_for_optimizers(hook: Any) -> bool:
    """Tell whether a hook's class, one of this library, is called with an optimizer.

    Parameters
    ----------
    hook : object
        The hook; of others it is not known what they are called with.
    """
    kind = type(hook)
    folded = any("_folds" in vars(base) for base in kind.__mro__)
    return folded and is_ours(kind) and not getattr(hook, "call_for_each_param", False)


def brought_by_fastadam(kind: type[Any], name: str) -> bool:
    """Tell whether what a class has under a name is a function of this library.

    Parameters
    ----------
    kind : type
        The class.
    name : str
        The method.
    """
    function = _function(getattr(kind, name, None))
    return str(getattr(function, "__module__", "")).startswith("fastadam.")


def others(kind: type[Any], *names: str) -> Own:
    """Return what tells whether an object, or its class, has other functions than a class has now.

    Parameters
    ----------
    kind : type
        The class, as it is now, not as it may be patched.
    *names : str
        The methods.
    """
    look = attrgetter(*names)
    ours = look(kind)
    return Own(lambda other: bool(look(other) != ours), names, names)


def is_ours(kind: type[Any]) -> bool:
    """Tell whether a class is of this library; a user's may have names of its own."""
    return kind.__module__.startswith("fastadam.")


def is_chainers(obj: Any) -> bool:
    """Tell whether an object's class, or a base of it, is of Chainer."""
    return "chainer" in libraries_of(type(obj))


def libraries_of(kind: type[Any]) -> set[str]:
    """Return the names of the libraries that a class and its bases come from.

    Parameters
    ----------
    kind : type
        The class.
    """
    return {base.__module__.partition(".")[0] for base in inspect.getmro(kind)}


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
    setter = getattr(type(class_attribute(kind, name)), "__set__", None)
    return kind.__setattr__ in _PLAIN and (setter is None or setter in _PLAIN)


def class_attribute(kind: type[Any], name: str) -> Any:
    """Return what a class has under a name, descriptors as they are; None if it has nothing."""
    for base in kind.__mro__:
        if name in base.__dict__:
            return base.__dict__[name]
    return None


def _function(method: Any) -> Any:
    """Return the function of a class method, and everything else as it is."""
    return getattr(method, "__func__", method)


def _is_chainers_update(update: Any) -> bool:
    """Tell whether a function is that of Chainer's own parameters, which calls their rule."""
    return (
        getattr(update, "__qualname__", None) == "Parameter.update"
        and getattr(update, "__module__", None) == "chainer.variable"
    )
