"""`fastadam.save` and `fastadam.load` for the optimizers on PyTorch's tensors."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch

from fastadam.checkpoint.contents import GROUP, HYPERPARAM, OPTIMIZER, RULE, TARGET
from fastadam.checkpoint.kinds import Checkpointed
from fastadam.checkpoint.renaming import hint_of_wrappers
from fastadam.checkpoint.source import Source
from fastadam.files.entries import Value, is_none
from fastadam.files.errors import CheckpointError
from fastadam.serializers.dictionary import storable_array
from fastadam.serializers.prepared import PreparedLoad
from fastadam.serializers.protocol import check_stored_array
from fastadam.torch.clipping import BOUNDS, clipping
from fastadam.torch.group_loading import DECOUPLED, UNSAVED, prepare_groups
from fastadam.torch.shared_memory import refuse_disagreement
from fastadam.torch.state_loading import STEP, loaded_state
from fastadam.torch.states import MASTER, STREAMS, is_half, refuse_state
from fastadam.torch.stored import array_over, stored_number, stored_value, widened
from fastadam.torch.tensors import Array, named_params, reader, refuse_tensor

__all__ = ["TensorCheckpoint"]

MASTERS = "fastadam/settings/master_weights"


class TensorCheckpoint(Checkpointed):
    """An optimizer on PyTorch's tensors.

    Parameters
    ----------
    optimizer : KernelStep
        The optimizer.

    Raises
    ------
    ValueError
        If two of its parameters have one name.
    """

    def __init__(self, optimizer: Any) -> None:
        self._optimizer = optimizer
        self._params = named_params(optimizer)

    def contents(self, parameters: bool) -> dict[str, Any]:
        """Return what is saved, by key."""
        optimizer = self._optimizer
        optimizer.refuse_half_way()
        found: dict[str, Value] = {}
        for number, name, param in self._params:
            if parameters:
                found[TARGET + name] = array_over(f"cannot save parameter {name!r}", param)
            found[f"{RULE}{name}/group"] = np.array(number)
            state = self._state(number, name, param)
            for key, value in state.items():
                key = f"{OPTIMIZER}{name}/{key}"
                found[key] = stored_value(key, value)
        for number, group in enumerate(optimizer.param_groups):
            # groups of older PyTorchs do not say whose weight decay it is
            for name, value in {DECOUPLED: optimizer._decoupled, **group}.items():
                if name not in UNSAVED:
                    key = f"{GROUP}{number}/{name}"
                    found[key] = stored_number(key, value)
        for name in BOUNDS:
            found[HYPERPARAM + name] = storable_array(name, getattr(optimizer, name))
        found[MASTERS] = np.array(bool(optimizer.master_weights))
        return found

    def _state(self, number: int, name: str, param: torch.Tensor) -> dict[str, Any]:
        """Return what is saved of a state: None for what there may be and is not."""
        optimizer = self._optimizer
        state: dict[str, Any] = optimizer.state.get(param) or {}
        if not state:
            return {STEP: None}
        refuse_state(name, param, state)
        lacking = [STREAMS[2]] if optimizer.param_groups[number].get("amsgrad") else []
        if optimizer.master_weights and is_half(param):
            lacking.append(MASTER)
        return {**dict.fromkeys(lacking), **state}

    def versions(self) -> dict[str, str]:
        """Return which PyTorch it is."""
        return {"torch": str(torch.__version__)}

    def values(self) -> dict[str, Any]:
        """Return the arrays over all parameters, by key."""
        self._optimizer.refuse_half_way()
        found = {}
        for _, name, param in self._params:
            refuse_tensor(name, param)
            found[TARGET + name] = array_over(f"parameter {name!r}", param)
        return found

    def room(self, values: Mapping[str, Any]) -> dict[str, int | None]:
        """Return what each array may take: no more than complex128 would."""
        return {key.removeprefix(TARGET): 16 * value.size for key, value in values.items()}

    def prepare(
        self, source: Source, values: Mapping[str, Any], hyperparam: bool, strict: bool
    ) -> tuple[PreparedLoad, tuple[str, ...], tuple[str, ...]]:
        """Read and check everything that is loaded."""
        optimizer = self._optimizer
        if not source.keys_under(GROUP):
            raise CheckpointError(
                f"{source.where} was saved with an optimizer that has a target and rules, such as "
                f"fastadam.Adam: load it into one of these, not into fastadam.torch."
                f"{type(optimizer).__name__}"
            )
        prepared = PreparedLoad()
        groups = optimizer.param_groups
        self._compare_names(source, strict)
        written: list[torch.Tensor] = []
        if hyperparam:
            groups, written = prepare_groups(
                prepared, source, optimizer, self._params, optimizer._decoupled, strict
            )
            self._prepare_bounds(prepared, source, strict)
        begin = self._compare_masters(source, strict)
        loaded: dict[str, Array] = {}
        for key, array in values.items():
            if source.demand(key, strict):
                stored = widened(source.value(key), array.dtype)
                value = check_stored_array(stored, array.shape, array.dtype, key)
                prepared.copy(array, value, key)
                loaded[key.removeprefix(TARGET)] = value
        refuse_disagreement({name: values[TARGET + name] for name in loaded}, loaded)
        if values:
            written += [param for _, _, param in self._params]
        states = optimizer.state.copy()
        for number, name, param in self._params:
            amsgrad = bool(groups[number].get("amsgrad", False))
            old = optimizer.state.get(param) or {}
            state = loaded_state(
                source, name, param, old, amsgrad, optimizer.master_weights, begin, strict
            )
            if state:
                states[param] = state
            else:
                states.pop(param, None)
        prepared.attribute(optimizer, "state", states)
        # just before the first value is written; autograd may go on counting if none is
        prepared.call(partial(reader().raise_versions, written), lambda: _nothing)
        return prepared, (), ()

    def _compare_names(self, source: Source, strict: bool) -> None:
        """Refuse a file with other parameters."""
        if not strict:
            return
        keys = [f"{RULE}{name}/group" for _, name, _ in self._params]
        here = {source.in_file(key) for key in keys if not source.is_ignored(key)}
        there = {key for key in source.keys_under(RULE) if not source.is_ignored(key)}
        lacking, more = (
            [key.removeprefix(RULE).removesuffix("/group") for key in sorted(some)]
            for some in (here - there, there - here)
        )
        if not (lacking or more):
            return
        lists = [
            f"{what} {', '.join(map(repr, some[:5]))}{', ...' if len(some) > 5 else ''}"
            for what, some in (("lacks", lacking), ("has", more))
            if some
        ]
        unnamed = [all(name.isdigit() for name in some) for some in (lacking, more) if some]
        hint = "; `rename` gives them another name, and strict=False leaves them"
        if len(set(unnamed)) == 2:
            hint = "; one of the two was made with named_parameters(), and the other without names"
        hint = hint_of_wrappers(source.names(), [name for _, name, _ in self._params]) or hint
        raise CheckpointError(
            f"{source.where} was saved with other parameters: it {', and '.join(lists)}{hint}"
        )

    def _prepare_bounds(self, prepared: PreparedLoad, source: Source, strict: bool) -> None:
        """Read the bounds of gradients."""
        found = {name: getattr(self._optimizer, name) for name in BOUNDS}
        for name in BOUNDS:
            key = HYPERPARAM + name
            if source.demand(key, strict):
                stored = source.value(key)
                found[name] = None if is_none(stored) else stored.item()
                prepared.attribute(self._optimizer, name, found[name])
        clipping(*found.values())

    def _compare_masters(self, source: Source, strict: bool) -> bool:
        """Refuse masters that would not be stepped; tell whether the file need not have any.

        Whether there are masters stays what the optimizer was made with.
        """
        if not source.demand(MASTERS, strict):
            return True
        stored = source.value(MASTERS)
        if stored.shape != () or stored.dtype != np.bool_:
            raise ValueError(f"{MASTERS!r} is {stored} in the file, and no truth value")
        halves = any(is_half(param) for _, _, param in self._params)
        if strict and stored and halves and not self._optimizer.master_weights:
            raise CheckpointError(
                f"{source.where} was saved with master_weights=True, and this "
                f"{type(self._optimizer).__name__} has master_weights=False: make the optimizer "
                "with the same; strict=False leaves the masters"
            )
        return not stored


def _nothing() -> None:
    """Take nothing back."""
