"""What may be a target: links, anything with parameters, and arrays in dicts and lists.

A target is looked at anew at every update, so that rebound arrays and parameters that appear late
are noticed.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping
from functools import singledispatch
from itertools import repeat
from typing import Any

import numpy.typing as npt

from fastadam.files.names import plain
from fastadam.kernels._noted import Noted
from fastadam.kernels.backend import copy_into, is_array
from fastadam.kernels.memory import first_sharing, reach_into_another
from fastadam.model.parameter import Parameter
from fastadam.update._tree import CHANGED, MOVED, SAME, TreeSpec, by_path, others
from fastadam.update.bridges import bridged
from fastadam.update.lender import Lender
from fastadam.update.lossfun import without_graph
from fastadam.update.noted_links import noted_links
from fastadam.update.paths import added, advice, check_keys, leaves_of, matched
from fastadam.update.ties import memory_of, replaced, ties

__all__ = ["ArrayTarget", "LinkTarget", "Target", "as_target"]

Array = npt.NDArray[Any]

# Sets an attribute in C, where no Ctrl-C comes in between.
_set = object.__setattr__


class Target(ABC):
    """The parameters of what the user gave to ``setup``.

    Attributes
    ----------
    parameters : dict of str to Parameter
        Each parameter once, under the first of its paths.
    aliases : dict of str to str
        Further paths of shared parameters, with the path that `parameters` has them under.
    lender : Lender or None
        Who has the arrays and gradients, if that is another library.
    """

    lender: Lender | None = None

    def __init__(self) -> None:
        self.parameters: dict[str, Any] = {}
        self.aliases: dict[str, str] = {}

    @abstractmethod
    def refresh(self) -> None:
        """Walk the target again and bring `parameters` up to date."""

    @abstractmethod
    def unchanged(self) -> bool:
        """Tell, fast, that a walk would find the same arrays and parameters again."""

    def is_settled(self) -> bool:
        """Tell, fast, that a refresh would change nothing."""
        return self.unchanged()

    @abstractmethod
    def ordered(self, grads: Any) -> list[Any] | None:
        """Return gradients in the order of `parameters`, None where that takes a closer look."""

    @abstractmethod
    def finish(self) -> None:
        """Make the user's own objects hold what an update has made."""

    @abstractmethod
    def gradients(self, grads: Any) -> dict[str, Any]:
        """Return the gradients by path, one for every parameter; None where there is none.

        Raises
        ------
        ValueError
            If gradients are missing or superfluous; it names them.
        """

    def backward(self, loss: Any, loss_scale: float | None) -> Any:
        """Compute gradients of a loss, and return it without the graph that it was computed by."""
        loss.backward(loss_scale=loss_scale)
        return without_graph(loss)

    def kept(self) -> dict[str, Any]:
        """Return the arrays that are saved with the parameters, by path, and not trained."""
        return {}

    def uninitialised(self) -> list[str]:
        """Return the paths of what will be a parameter, or kept, and has no shape yet."""
        return []


class LinkTarget(Target):
    """The parameters of a link, or of anything else with ``params()``."""

    def __init__(self, link: Any) -> None:
        super().__init__()
        self.link = link
        # what every link holds, if all of them walk as ours do
        self._noted: Noted | None = None
        self._named: list[tuple[str, Any]] = []
        self._places: dict[str, int] = {}
        self.refresh()

    def unchanged(self) -> bool:
        """Compare what every link holds, or walk again through other libraries' links."""
        if self._noted is not None:
            return self._noted.same()
        named = self._walk()
        return len(named) == len(self._named) and all(
            path == old_path and param is old
            for (path, param), (old_path, old) in zip(named, self._named, strict=True)
        )

    def _walk(self) -> list[tuple[str, Any]]:
        """Return the parameters with their paths."""
        try:
            if hasattr(self.link, "namedparams"):
                return list(self.link.namedparams())
            return [(str(i), param) for i, param in enumerate(self.link.params())]
        except RecursionError as error:
            raise ValueError(
                f"the {type(self.link).__name__} is nested too deep, or contains itself"
            ) from error

    def ordered(self, grads: Any) -> list[Any] | None:
        """Match a mapping that has the paths, in any order."""
        return by_path(grads, self._places)

    def refresh(self) -> None:
        """Walk the link again; a parameter that it holds twice counts once."""
        if self._named and self.unchanged():
            return
        noted = noted_links(self.link)
        named = self._walk()
        parameters: dict[str, Any] = {}
        aliases: dict[str, str] = {}
        first: dict[int, str] = {}
        for name, param in named:
            path = name.strip("/")
            if id(param) in first:
                aliases[path] = first[id(param)]
            else:
                first[id(param)] = path
                parameters[path] = param
        # all at once: whoever interrupts a walk leaves what there was
        self.__dict__.update(
            _noted=noted,
            _named=named,
            _places={path: i for i, path in enumerate(parameters)},
            parameters=parameters,
            aliases=aliases,
        )

    def __getstate__(self) -> dict[str, Any]:
        # a copy holds other objects
        arrays = ((path, p.array) for path, p in self.parameters.items() if is_array(p.array))
        tied = [(self.parameters[a], self.parameters[b]) for a, b in ties(arrays).items()]
        return {**self.__dict__, "_noted": None, "_named": [], "_ties": tied}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take what another had; views of one memory, which were copied apart, are so again."""
        tied = state.pop("_ties", [])
        self.__dict__.update(state)
        for param, first in tied:
            param.array = first.array[...]

    def finish(self) -> None:
        """Leave it: a link's parameters are the user's own."""

    def gradients(self, grads: Any) -> dict[str, Any]:
        """Match a mapping from path to gradient with the parameters."""
        if not isinstance(grads, Mapping):
            raise TypeError(
                "the gradients of a link are a mapping from path to array, such as "
                f"{{{next(iter(self.parameters), 'l1/W')!r}: ...}}, not {type(grads).__name__}"
            )
        check_keys("the gradients", self.parameters, {plain(k).strip("/") for k in grads})
        return {plain(path).strip("/"): grad for path, grad in grads.items()}


class ArrayTarget(Target):
    """The arrays of a dict, a list, a nesting of these, or one array."""

    def __init__(self, tree: Any) -> None:
        super().__init__()
        self.tree = tree
        self._shape: TreeSpec | None = None
        # the paths of all arrays, also of those that are there twice
        self._paths: tuple[str, ...] = ()
        # the array of each parameter that the user holds
        self._arrays: dict[str, Array] = {}
        self.refresh()

    def refresh(self) -> None:
        """Take over arrays that were put in the place of others, and keys that come and go.

        A path keeps its parameter, with its rule and state, as long as it is there.
        """
        found = CHANGED if self._shape is None else self._shape.compare()
        if found == MOVED and self._take_over():
            return
        if found == SAME:
            self.finish()
        else:
            self._walk()

    def _take_over(self) -> bool:
        """Give the parameters arrays that are like those in whose place they are, fast.

        False, and nothing is changed, if there is more to find out: some may be one array, or
        share memory.
        """
        assert self._shape is not None
        arrays = self._shape.moved()
        if arrays is None or len(arrays) != len(self.parameters):
            return False
        if reach_into_another(arrays):
            return False
        held = self._arrays.items()
        self._write_back({p: a for (p, a), new in zip(held, arrays, strict=True) if new is a})
        self._shape.take(arrays, self.parameters, self._arrays)
        return True

    def _walk(self) -> None:
        """Look at everything anew."""
        deque(leaves_of(self.tree, ""), 0)  # what cannot be a target is refused by name
        shape = TreeSpec(self.tree)
        leaves = list(leaves_of(self.tree, ""))
        if not leaves:
            raise ValueError("the optimization target holds no array, so there is nothing to train")
        found = dict(leaves)
        self._write_back({p: a for p, a in self._arrays.items() if found.get(p) is a})
        arrays: dict[str, Array] = {}
        aliases: dict[str, str] = {}
        of_memory: dict[tuple[Any, ...], str] = {}
        for path, array in leaves:
            if path in ("t", "epoch"):
                raise ValueError(
                    f"the top-level key {path!r} is taken: state files keep the optimizer's own "
                    f"{path!r} under it; rename the parameter"
                )
            first = of_memory.setdefault(memory_of(array), path)
            if first == path:
                arrays[path] = array
            else:
                aliases[path] = first
        _refuse_overlaps(arrays)
        parameters = {path: self.parameters.get(path) or Parameter(name=path) for path in arrays}
        # all at once, in C: whoever interrupts a walk leaves what there was
        deque(map(_set, parameters.values(), repeat("_array"), arrays.values()), 0)
        self.__dict__.update(
            parameters=parameters,
            aliases=aliases,
            _shape=shape,
            _paths=tuple([path for path, _ in leaves]),
            _arrays=arrays,
        )

    def unchanged(self) -> bool:
        """Look at every dict and list."""
        return self._shape is not None and self._shape.compare() == SAME

    def is_settled(self) -> bool:
        """Tell, fast, that the same arrays are in tree and parameters as before."""
        shape = self._shape
        same = shape is not None and shape.compare() == SAME
        return same and not others(self.parameters, self._arrays)

    def ordered(self, grads: Any) -> list[Any] | None:
        """Match the structure of gradients with the target's."""
        found = None if self._shape is None else self._shape.match(grads)
        if found is None or len(found) == len(self.parameters):
            return found
        return list(self._added(dict(zip(self._paths, found, strict=True))).values())

    def finish(self) -> None:
        """Write what rules and hooks have put in the place of the user's arrays into these."""
        if others(self.parameters, self._arrays):
            self._write_back(self._arrays)

    def _write_back(self, arrays: Mapping[str, Array]) -> None:
        """Give parameters their arrays again, with the values of those that took their place."""
        for path in others(self.parameters, dict(arrays)):
            param, array = self.parameters[path], arrays[path]
            other = param.array
            if other is not None:
                if other.shape != array.shape:
                    raise ValueError(
                        f"parameter {path!r} was given an array of shape {other.shape}, but the "
                        f"target's has shape {array.shape}: put the new one into the target"
                    )
                copy_into(array, other)
            param.array = array

    def __getstate__(self) -> dict[str, Any]:
        # a copy has other arrays: it is to walk the tree
        state = {**self.__dict__, "_shape": None, "_arrays": {}}
        with contextlib.suppress(TypeError, ValueError):
            state["_ties"] = ties(leaves_of(self.tree, ""))
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take what another had; views of one memory, which were copied apart, are so again."""
        tied = state.pop("_ties", {})
        self.__dict__.update(state)
        if tied:
            arrays = dict(leaves_of(self.tree, ""))
            views = {path: arrays[first][...] for path, first in tied.items()}
            self.tree = replaced(self.tree, views, "")

    def gradients(self, grads: Any) -> dict[str, Any]:
        """Match gradients in the target's structure; add up those of an array given twice."""
        return self._added(dict(matched(self.tree, grads, "")))

    def _added(self, found: dict[str, Any]) -> dict[str, Any]:
        """Add up the gradients of an array that is there twice, from those of all paths."""
        for path, first in self.aliases.items():
            more = found.pop(path)
            if more is not None:
                one = found[first]
                found[first] = more if one is None else added(path, one, more)
        return found


@singledispatch
def as_target(obj: Any) -> Target:
    """Return what the optimizer needs to know of a target; a bridge registers its own kinds.

    Raises
    ------
    TypeError, ValueError
        If `obj` cannot be a target; the message says what to give instead.
    """
    if bridged(obj):
        return as_target(obj)
    if callable(getattr(obj, "params", None)):
        return LinkTarget(obj)
    if isinstance(obj, (dict, list, tuple)) or is_array(obj):
        return ArrayTarget(obj)
    if isinstance(obj, Parameter):
        raise TypeError(
            "the optimization target must be a link that holds the parameter, or its array"
        )
    raise TypeError(advice("the optimization target", obj))


def _refuse_overlaps(arrays: Mapping[str, Array]) -> None:
    """Refuse parameters that share part of their memory: a step on one would move the other."""
    paths = sorted(arrays)
    found = first_sharing([arrays[path] for path in paths])
    if found is not None:
        first, second = (paths[i] for i in found)
        raise ValueError(
            f"parameters {first!r} and {second!r} share part of their memory, so a step on one "
            "would move the other; give one of them a copy"
        )
