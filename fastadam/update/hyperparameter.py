"""Hyperparameters: a bag of attributes that falls back on a parent's, and aliases to them."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any

import numpy as np

from fastadam.serializers.prepared import PreparedLoad
from fastadam.update.overrides import stores_plainly

__all__ = ["Hyperparameter", "HyperparameterProxy", "guard"]


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

    __slots__ = ("__dict__", "__weakref__", "_gate", "_parent")

    _gate: Callable[[Hyperparameter, str, Any], None] | None
    _parent: Hyperparameter | None

    def __init__(self, parent: Hyperparameter | None = None) -> None:
        object.__setattr__(self, "_parent", parent)
        object.__setattr__(self, "_gate", None)

    def __getattr__(self, name: str) -> Any:
        # only called when the normal lookup has failed
        if name.startswith("__") or name in ("_gate", "_parent"):
            raise AttributeError(name)
        parent = self._parent
        if parent is None:
            raise AttributeError(
                f"there is no hyperparameter {name!r}; known are: {', '.join(self.get_dict())}"
            )
        return getattr(parent, name)

    @stores_plainly
    def __setattr__(self, name: str, value: Any) -> None:
        if self._gate is not None:
            self._gate(self, name, value)
        object.__setattr__(self, name, value)

    @property
    def parent(self) -> Hyperparameter | None:
        """The bag in which attributes missing here are looked up, or None."""
        return self._parent

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
        entries = ", ".join(
            f"{name}={plain(value)!r}" for name, value in sorted(self.get_dict().items())
        )
        return f"{type(self).__name__}({entries})"

    def __getstate__(self) -> tuple[Any, ...]:
        return self._parent, self.__dict__, self._gate

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        parent, entries, *gate = state
        object.__setattr__(self, "_parent", parent)
        # a pickle of an earlier version has no gate
        object.__setattr__(self, "_gate", gate[0] if gate else None)
        self.__dict__.update(entries)


def prepare_values(
    prepared: PreparedLoad, bag: Hyperparameter, values: dict[str, Any], only: Iterable[str]
) -> None:
    """Let a load set values of a bag, which holds no others of the names in `only` itself then."""
    for name, value in values.items():
        prepared.attribute(bag, name, value)
    for name in only:
        if name not in values:
            prepared.remove_attribute(bag, name)


def same_value(a: Any, b: Any) -> bool:
    """Tell whether two values are equal: numbers whatever their type, NaN equal to NaN.

    Arrays are equal if their shapes and elements are. A float32 number equals the Python float
    that it stands for, not the one that it was rounded from.

    Examples
    --------
    >>> import numpy as np
    >>> from fastadam.update.hyperparameter import same_value
    >>> same_value(np.float32(0.5), 0.5), same_value(np.float32(0.1), 0.1)
    (True, False)
    """
    if a is b:
        return True
    a, b = plain(a), plain(b)
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a.shape == b.shape and bool(np.all((a == b) | ((a != a) & (b != b))))
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return False
    return bool(a == b or (a != a and b != b))


def plain(value: Any) -> Any:
    """Return a number of any library as Python's: what is shown, compared and saved.

    NumPy's scalars, 0-dim arrays and tensors, fractions and decimals are all taken as numbers by
    an update. Everything else is returned as it is.

    Examples
    --------
    >>> from fractions import Fraction
    >>> import numpy as np
    >>> from fastadam.update.hyperparameter import plain
    >>> plain(np.float64(0.01)), plain(Fraction(1, 4)), plain('eta')
    (0.01, 0.25, 'eta')
    """
    if type(value) in (float, int, bool, str):
        return value
    if getattr(value, "ndim", None) == 0 and callable(getattr(value, "item", None)):
        return value.item()
    # bool and int stay what they are; so do numbers of which nobody knows what they are
    is_number = isinstance(value, numbers.Real | Decimal) and not isinstance(value, int)
    return float(value) if is_number else value


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


def guard(bag: Hyperparameter, gate: Callable[[Hyperparameter, str, Any], None]) -> None:
    """Let a function look at everything that is set in a bag from now on.

    It is called with the bag, a name and a value, before anything is set, and raises for what must
    not be. Copies of the bag have it, too, so that it should be picklable.
    """
    object.__setattr__(bag, "_gate", gate)
