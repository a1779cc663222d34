"""What random programs train: dicts, nestings, links and objects with ``params()``, and changes.

Beside it stands what the model has of the same: an entry and an array for every parameter.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
from model_of_updates import Entry

from fastadam import Chain, Link, Parameter

SHAPES = [(3, 2), (5,), (), (2, 3, 2), (300,), (0,), (1,), (6,)]
DTYPES = ["f4", "f8", "f2"]


class Holder:
    """Something with ``params()`` that is no link."""

    def __init__(self, params: list[Any]) -> None:
        self.held = params

    def params(self) -> Iterator[Any]:
        yield from self.held


class Trained:
    """A target of random kind and size, and what the model has of it."""

    def __init__(self, seed: int) -> None:
        chosen = random.Random(seed)
        self.kind = chosen.choice(["dict", "nested", "link", "params"])
        self.dtypes = chosen.choice([["f4"], ["f8"], ["f2"], DTYPES, ["f4"]])
        self.n = chosen.choice([2, 3, 5, 20])
        self.rng = np.random.default_rng(seed)
        self.entries: dict[Any, Entry] = {}
        self.aliases: dict[str, str] = {}
        # kept, so that no other object gets their ids
        self.alive: list[Any] = []
        # what each array holds by the model: by the id of an array that is kept alive
        self.values: dict[int, tuple[Any, Any]] = {}
        self.target = self.first_target()

    def array(self) -> Any:
        shape = SHAPES[self.rng.integers(len(SHAPES))]
        dtype = self.dtypes[self.rng.integers(len(self.dtypes))]
        array = np.asarray(self.rng.standard_normal(shape)).astype(dtype)
        if array.ndim > 1 and self.rng.integers(4) == 0:
            array = np.asfortranarray(array)
        if array.ndim == 1 and self.rng.integers(5) == 0:
            wide = np.zeros(2 * array.size, dtype)
            wide[::2] = array
            array = wide[::2]
        return array

    def first_target(self) -> Any:
        n = self.n
        if self.kind == "dict":
            return {f"k{i}": self.array() for i in range(n)}
        if self.kind == "nested":
            half = {f"k{i}": self.array() for i in range(n // 2)}
            return {"in": half, "list": [self.array() for _ in range(n)], "k0": self.array()}
        params = [Parameter(self.array()) for _ in range(n)]
        if self.kind == "params":
            return Holder(params)
        chain = Chain()
        with chain.init_scope():
            chain.l1, chain.l2 = Link(), Link()
        for i, param in enumerate(params):
            self.register(self.links(chain)[i % 3], f"k{i}", param)
        return chain

    @staticmethod
    def links(chain: Any) -> list[Any]:
        return list(chain.links())

    @staticmethod
    def register(link: Any, name: str, param: Any) -> None:
        with link.init_scope():
            setattr(link, name, param)

    def leaves(self) -> list[tuple[str, Any]]:
        """Paths with arrays, or with parameters."""
        if self.kind == "params":
            return [(str(i), param) for i, param in enumerate(self.target.held)]
        if self.kind == "link":
            return self.link_leaves(self.target, "")
        return self.tree_leaves(self.target, "")

    def tree_leaves(self, tree: Any, path: str) -> list[tuple[str, Any]]:
        if isinstance(tree, np.ndarray):
            return [(path, tree)]
        pairs = tree.items() if isinstance(tree, dict) else enumerate(tree)
        return [leaf for key, child in pairs for leaf in self.tree_leaves(child, f"{path}/{key}")]

    def link_leaves(self, link: Any, path: str) -> list[tuple[str, Any]]:
        found = [(f"{path}/{name}", vars(link)[name]) for name in sorted(link._params)]
        for name in sorted(getattr(link, "_children", ())):
            found += self.link_leaves(getattr(link, name), f"{path}/{name}")
        return found

    @property
    def is_tree(self) -> bool:
        return self.kind in ("dict", "nested")

    def walk(self) -> list[tuple[str, Entry, Any]]:
        """Path, entry and the model's array of every parameter, each once."""
        entries: dict[Any, Entry] = {}
        rows: list[tuple[str, Entry, Any]] = []
        self.aliases = {}
        first: dict[Any, str] = {}
        for path, leaf in self.leaves():
            path = path.strip("/")
            if self.is_tree:
                array, key = leaf, path
                place = id(array) if array.size == 0 else array.__array_interface__["data"][0]
                same: Any = (place, array.shape, array.strides, array.dtype.str)
            else:
                array, key, same = leaf.array, id(leaf), id(leaf)
                self.alive.append(leaf)
            if first.setdefault(same, path) != path:
                self.aliases[path] = first[same]
                continue
            # parameters keep what is theirs even while they are away
            entries[key] = self.entries.get(key) or Entry()
            rows.append((path, entries[key], self.value_of(array)))
        self.entries = entries if self.is_tree else {**self.entries, **entries}
        return rows

    def value_of(self, array: Any) -> Any:
        if id(array) not in self.values:
            self.values[id(array)] = array, array.copy(order="K")
        return self.values[id(array)][1]

    def containers(self) -> list[Any]:
        """The dicts and lists, innermost last; or the lists of parameters, or links."""
        if self.kind == "dict":
            return [self.target]
        if self.kind == "nested":
            return [self.target["in"], self.target["list"], self.target]
        return [self.target.held] if self.kind == "params" else self.links(self.target)

    def leaf_keys(self, container: Any) -> list[Any]:
        if isinstance(container, dict):
            return [key for key, value in container.items() if isinstance(value, np.ndarray)]
        if isinstance(container, list):
            return list(range(len(container)))
        return sorted(container._params)

    def place(self, a: int, b: int) -> tuple[Any, Any] | None:
        containers = self.containers()
        container = containers[a % len(containers)]
        keys = self.leaf_keys(container)
        return (container, keys[b % len(keys)]) if keys else None

    @staticmethod
    def get(container: Any, key: Any) -> Any:
        return vars(container)[key] if isinstance(container, Link) else container[key]

    def put(self, container: Any, key: Any, value: Any) -> None:
        if isinstance(container, Link):
            self.register(container, key, value)
        else:
            container[key] = value

    def new_leaf(self) -> Any:
        array = self.array()
        return array if self.is_tree else Parameter(array)

    def delete(self, a: int, b: int, c: int) -> None:
        where = self.place(a, b)
        if where is None or len(self.leaves()) < 2:
            return
        container, key = where
        if isinstance(container, Link):
            delattr(container, key)
        else:
            del container[key]

    def reorder(self, a: int, b: int, c: int) -> None:
        where = self.place(a, b)
        if where is None:
            return
        container, key = where
        if isinstance(container, Link):
            param = self.get(container, key)
            delattr(container, key)
            self.register(container, f"k{c % 30}", param)
        elif isinstance(container, dict):
            container[key] = container.pop(key)
        else:
            container.append(container.pop(key))

    def rebind(self, a: int, b: int, c: int) -> None:
        where = self.place(a, b)
        if where is None:
            return
        container, key = where
        leaf = self.get(container, key)
        if self.is_tree:
            container[key] = leaf.copy()
        elif c % 2:
            leaf.array = leaf.array.copy()
        else:
            new = Parameter(leaf.array.copy())
            self.put(container, key, new)

    def rebind_all(self, a: int, b: int, c: int) -> None:
        for container in self.containers():
            for key in self.leaf_keys(container):
                leaf = self.get(container, key)
                if self.is_tree:
                    container[key] = leaf.copy()
                else:
                    leaf.array = leaf.array.copy()

    def swap(self, a: int, b: int, c: int) -> None:
        one, other = self.place(a, b), self.place(a, c)
        if one is None or other is None:
            return
        x, y = self.get(*one), self.get(*other)
        self.put(*one, y)
        self.put(*other, x)

    def add(self, a: int, b: int, c: int) -> None:
        containers = self.containers()
        container = containers[a % len(containers)]
        if isinstance(container, list):
            container.insert(b % (len(container) + 1), self.new_leaf())
        elif isinstance(container, dict):
            container[f"n{b % 4}"] = self.new_leaf()
        else:
            self.register(container, f"n{b % 4}", self.new_leaf())

    def tie(self, a: int, b: int, c: int) -> None:
        where = self.place(a, b)
        if where is None:
            return
        container, key = where
        if isinstance(container, list):
            container.append(container[key])
        else:
            self.put(container, f"tied{c % 2}", self.get(container, key))

    def other_container(self, a: int, b: int, c: int) -> None:
        """Another dict or link with the same things in it takes the place of one."""
        if self.kind == "nested":
            key = ["in", "list"][a % 2]
            self.target[key] = copy.copy(self.target[key])
        elif self.kind == "link":
            link, new = self.target.l1, Link()
            for name in sorted(link._params):
                self.register(new, name, vars(link)[name])
            del self.target.l1
            self.register(self.target, "l1", new)
        elif self.kind == "params":
            self.target.held = list(self.target.held)

    def write(self, a: int, b: int, c: int) -> None:
        where = self.place(a, b)
        if where is None:
            return
        leaf = self.get(*where)
        array = leaf if self.is_tree else leaf.array
        self.value_of(array)
        for one in (array, self.values[id(array)][1]):
            one[...] = np.linspace(-1, c % 5, array.size).reshape(array.shape)

    def contiguous(self) -> bool:
        arrays = [leaf if self.is_tree else leaf.array for _, leaf in self.leaves()]
        return all(array.flags.forc for array in arrays)
