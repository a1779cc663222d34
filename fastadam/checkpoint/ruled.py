"""Optimizers with a target and rules, as they are saved and loaded."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from fastadam.checkpoint.contents import contents, target_values
from fastadam.checkpoint.hook_loading import compare_hooks, saved_hooks
from fastadam.checkpoint.kinds import Checkpointed
from fastadam.checkpoint.optimizer_loading import prepare_optimizer
from fastadam.checkpoint.source import Source
from fastadam.kernels.dtypes import is_half
from fastadam.model.initializer import initial_dtype
from fastadam.serializers.prepared import PreparedLoad
from fastadam.update.optimizer import target_of

__all__ = ["RuledCheckpoint"]


class RuledCheckpoint(Checkpointed):
    """An optimizer with a target and rules.

    Parameters
    ----------
    optimizer : GradientMethod
        One that is set up.
    """

    def __init__(self, optimizer: Any) -> None:
        self._optimizer = optimizer
        self._targets = target_of(optimizer)

    def contents(self, parameters: bool) -> dict[str, Any]:
        """Return what is saved, by key."""
        return contents(self._optimizer, parameters)

    def values(self) -> dict[str, Any]:
        """Walk the target again, and return its values by key."""
        self._targets = target_of(self._optimizer, refresh=True)
        self.aliases = self._targets.aliases
        return target_values(self._targets)

    def prepare(
        self, source: Source, values: Mapping[str, Any], hyperparam: bool, strict: bool
    ) -> tuple[PreparedLoad, tuple[str, ...], tuple[str, ...]]:
        """Read and check everything that is loaded."""
        names = saved_hooks(source, strict)
        prepared = prepare_optimizer(source, self._optimizer, values, names, hyperparam, strict)
        return prepared, *compare_hooks(names, self._optimizer)

    def names(self) -> Iterable[str]:
        """Return the paths of all parameters."""
        return (*self._targets.parameters, *self._targets.aliases)

    def uninitialised(self) -> Iterable[str]:
        """Return what the target says of its parameters."""
        return self._targets.uninitialised()

    def room(self, values: Mapping[str, Any]) -> dict[str, int | None]:
        """Return what each array may take: no more than it has, or float64 would take."""
        room = super().room(values)
        for path, param in self._targets.parameters.items():
            room[path] = None if param.array is None else 8 * int(param.array.size)
        return room

    def wide(self) -> Collection[str]:
        """Return the paths of the parameters that can hold a float32 master."""
        found = set()
        for path, param in self._targets.parameters.items():
            # Chainer's uninitialised ones may have no dtype yet
            like = getattr(param, "initializer", None) if param.array is None else param.array
            if not is_half(initial_dtype(like)):
                found.add(path)
        found |= {path for path, first in self._targets.aliases.items() if first in found}
        return found
