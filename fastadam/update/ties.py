"""Arrays that are views of one memory: found, and put together again where a copy parted them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy.typing as npt

from fastadam.kernels.backend import address, is_array

__all__ = ["memory_of", "replaced", "ties"]

Array = npt.NDArray[Any]


def memory_of(array: Array) -> tuple[Any, ...]:
    """Equal for two arrays that are the same elements in the same order."""
    if array.size == 0:
        return (id(array),)
    return (address(array), array.shape, array.strides, array.dtype.str)


def ties(arrays: Iterable[tuple[str, Array]]) -> dict[str, str]:
    """Return the paths of arrays that are views of others' memory, with the first of these."""
    first: dict[tuple[Any, ...], tuple[str, Array]] = {}
    ties = {}
    for path, array in arrays:
        found, other = first.setdefault(memory_of(array), (path, array))
        if other is not array:
            ties[path] = found
    return ties


def replaced(tree: Any, views: Mapping[str, Array], path: str) -> Any:
    """Put arrays into a tree, in place where that can be, and return it."""
    if is_array(tree):
        return views.get(path, tree)
    pairs = list(tree.items() if isinstance(tree, dict) else enumerate(tree))
    new = [replaced(child, views, f"{path}/{key}" if path else str(key)) for key, child in pairs]
    changed = [
        (key, child) for (key, old), child in zip(pairs, new, strict=True) if child is not old
    ]
    if changed and isinstance(tree, tuple):
        return type(tree)(*new) if hasattr(tree, "_fields") else type(tree)(new)
    for key, child in changed:
        tree[key] = child
    return tree
