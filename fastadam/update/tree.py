"""The shape of a nesting of dicts and lists, to be looked at again fast."""

from __future__ import annotations

import operator
from typing import Any

from fastadam.kernels.backend import is_array

__all__ = ["TreeSpec"]


class TreeSpec:
    """What a dict, list or tuple of arrays holds, by identity.

    Parameters
    ----------
    tree : dict, list, tuple or array
        A nesting without anything else in it.
    """

    __slots__ = ("children", "flat", "keys", "tree", "values")

    def __init__(self, tree: Any) -> None:
        self.tree = tree
        self.keys: tuple[Any, ...] | None = tuple(tree) if isinstance(tree, dict) else None
        self.values: list[Any] = []
        if not is_array(tree):
            self.values = list(tree.values() if isinstance(tree, dict) else tree)
        self.children = [None if is_array(value) else TreeSpec(value) for value in self.values]
        self.flat = not any(self.children)

    def holds(self) -> bool:
        """Tell whether the same objects are in the same places still."""
        tree = self.tree
        if self.keys is not None:
            if tuple(tree) != self.keys or not all(map(operator.is_, tree.values(), self.values)):
                return False
        elif isinstance(tree, list) and (
            len(tree) != len(self.values) or not all(map(operator.is_, tree, self.values))
        ):
            return False
        return self.flat or all(child is None or child.holds() for child in self.children)

    def match(self, grads: Any, found: list[Any]) -> bool:
        """Append gradients of this shape in order; False if they are of another."""
        if is_array(self.tree):
            found.append(grads)
            return True
        if self.keys is not None:
            if type(grads) is not dict:
                return False
            if tuple(grads) == self.keys:
                values = list(grads.values())
            elif grads.keys() == self.tree.keys():
                values = [grads[key] for key in self.keys]
            else:
                return False
        elif isinstance(grads, (list, tuple)) and len(grads) == len(self.values):
            values = list(grads)
        else:
            return False
        if self.flat:
            found += values
            return True
        for child, value in zip(self.children, values, strict=True):
            if child is None:
                found.append(value)
            elif not child.match(value, found):
                return False
        return True
