"""Hyperparameters: a bag of attributes that falls back on a parent's, and aliases to them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["Hyperparameter", "HyperparameterProxy"]

# Versions are unique in the process: a number seen once never stands for other contents.
_next_version: Callable[[], int] = itertools.count(1).__next__


class Hyperparameter:
    """A bag of hyperparameters; what it lacks is looked up on its parent.

    The optimizer owns one bag, and the update rule of every parameter owns a child of it: an
    attribute set on the child overrides the optimizer's for that parameter, and deleting it
    restores the optimizer's.

    Parameters
    ----------
    parent : Hyperparameter, optional
        Where to look for attributes that this bag does not have.

    Examples
    --------
    >>> from fastadam import Hyperparameter
    >>> common = Hyperparameter()
    >>> common.alpha, common.eta = 0.001, 1.0
    >>> bias = Hyperparameter(common)
    >>> bias.alpha = 0.01
    >>> bias
    Hyperparameter(alpha=0.01, eta=1.0)
    >>> bias == common
    False
    >>> del bias.alpha
    >>> bias.alpha
    0.001
    >>> bias == common
    True
    """

    __slots__ = ("__dict__", "__weakref__", "_parent", "_version")

    _parent: Hyperparameter | None
    _version: int

    def __init__(self, parent: Hyperparameter | None = None) -> None:
        object.__setattr__(self, "_parent", parent)
        object.__setattr__(self, "_version", 0)

    def __getattr__(self, name: str) -> Any:
        # only called when the normal lookup has failed
        if name.startswith("__") or name in ("_parent", "_version"):
            raise AttributeError(name)
        parent = self._parent
        if parent is None:
            raise AttributeError(
                f"there is no hyperparameter {name!r}; known are: {', '.join(self.get_dict())}"
            )
        return getattr(parent, name)

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)
        self._changed()

    def __delattr__(self, name: str) -> None:
        object.__delattr__(self, name)
        self._changed()

    def _changed(self) -> None:
        """Take a new version."""
        object.__setattr__(self, "_version", _next_version())

    @property
    def parent(self) -> Hyperparameter | None:
        """The bag in which attributes missing here are looked up, or None."""
        return self._parent

    @property
    def version(self) -> tuple[int, ...]:
        """Equal for two bags only if they hold the same values; it changes with every change.

        Bags without own entries under one parent share a version, which lets rules share the
        scalars of a step.
        """
        parent = self._parent
        return (self._version,) if parent is None else (self._version, *parent.version)

    def get_dict(self) -> dict[str, Any]:
        """Return all hyperparameters in effect: the parent's, overlaid by the own entries."""
        entries = {} if self._parent is None else self._parent.get_dict()
        entries.update(self.__dict__)
        return entries

    def __eq__(self, other: object) -> bool:
        """Tell whether two bags have the same values in effect, wherever they come from.

        Parameters
        ----------
        other : Hyperparameter
            Another bag. Numbers count by value, whatever their type, and NaN equals NaN.
        """
        if self is other:
            return True
        if type(self) is not type(other) or not isinstance(other, Hyperparameter):
            return NotImplemented
        mine, theirs = self.get_dict(), other.get_dict()
        return mine.keys() == theirs.keys() and all(
            same_value(value, theirs[name]) for name, value in mine.items()
        )

    def __hash__(self) -> int:
        """Return the hash of the class, which does not change with the values."""
        return hash(type(self))

    def __repr__(self) -> str:
        entries = ", ".join(f"{name}={value!r}" for name, value in sorted(self.get_dict().items()))
        return f"{type(self).__name__}({entries})"

    def __getstate__(self) -> tuple[Hyperparameter | None, dict[str, Any]]:
        return self._parent, self.__dict__

    def __setstate__(self, state: tuple[Hyperparameter | None, dict[str, Any]]) -> None:
        parent, entries = state
        object.__setattr__(self, "_parent", parent)
        self.__dict__.update(entries)
        # versions of another process mean nothing here
        object.__setattr__(self, "_version", _next_version() if entries else 0)


def same_value(a: Any, b: Any) -> bool:
    """Tell whether two values are equal: numbers whatever their type, NaN equal to NaN.

    Arrays are equal if their shapes and elements are. A float32 number equals the Python float
    that it stands for, not the one that it was rounded from.

    Examples
    --------
    >>> import numpy as np
    >>> from fastadam.hyperparameter import same_value
    >>> same_value(np.float32(0.5), 0.5), same_value(np.float32(0.1), 0.1)
    (True, False)
    """
    if a is b:
        return True
    a, b = _plain(a), _plain(b)
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a.shape == b.shape and bool(np.all((a == b) | ((a != a) & (b != b))))
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return False
    return bool(a == b or (a != a and b != b))


def _plain(value: Any) -> Any:
    """Return the number that a NumPy scalar, or any library's 0-dim array, holds."""
    single = getattr(value, "ndim", None) == 0 and callable(getattr(value, "item", None))
    return value.item() if single else value


class HyperparameterProxy:
    """A property that reads and writes one attribute of ``self.hyperparam``.

    Parameters
    ----------
    attr_name : str
        Name of the hyperparameter.

    Examples
    --------
    >>> from fastadam import GradientMethod, HyperparameterProxy
    >>> class MyMethod(GradientMethod):
    ...     lr = HyperparameterProxy('lr')
    >>> method = MyMethod()
    >>> method.lr = 0.1
    >>> method.hyperparam.lr
    0.1
    """

    def __init__(self, attr_name: str) -> None:
        self._attr_name = attr_name
        self.__doc__ = f"Alias to ``self.hyperparam.{attr_name}``"

    def __get__(self, obj: Any, owner: type | None = None) -> Any:
        return self if obj is None else getattr(obj.hyperparam, self._attr_name)

    def __set__(self, obj: Any, value: Any) -> None:
        setattr(obj.hyperparam, self._attr_name, value)
