"""What there is to compare of an optimizer on PyTorch's tensors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from fastadam.torch.clipping import BOUNDS
from fastadam.torch.group_loading import UNSAVED
from fastadam.torch.stored import array_over
from fastadam.torch.tensors import Array, named_params, reader, refuse_freed
from fastadam.update.snapshot import PARAM, Snapshot

__all__ = ["described"]


def described(optimizer: Any) -> Snapshot:
    """Return a snapshot that shares the memory of the tensors.

    Parameters
    ----------
    optimizer : KernelStep
        The optimizer.

    Raises
    ------
    TypeError, ValueError
        If it has tensors that NumPy cannot have, or two parameters of one name.
    RuntimeError
        If a backward pass has stepped some of its parameters only, or memory was freed.
    """
    optimizer.refuse_half_way()
    facts: dict[tuple[str, str], Any] = {("", "class"): type(optimizer)}
    arrays: dict[tuple[str, str], Array] = {}
    params = named_params(optimizer)
    states = [optimizer.state.get(param) or {} for _, _, param in params]
    for (_, name, _), state in zip(params, states, strict=True):
        if isinstance(state.get("step"), torch.Tensor):
            refuse_freed(f"step of parameter {name!r}", state["step"])
    facts["", "t"] = max([int(state["step"]) for state in states if "step" in state], default=0)
    facts.update({("", name): value for name, value in _settings(optimizer)})
    for (number, name, param), state in zip(params, states, strict=True):
        facts[name, "group"] = number
        for key, value in state.items():
            if isinstance(value, torch.Tensor) and key != "step":
                arrays[name, key] = _array(f"{key} of parameter {name!r}", value)
            else:
                facts[name, key] = _plain(f"{key} of parameter {name!r}", value)
        # it moves after its state: it is what shows a cause last
        arrays[name, PARAM] = _array(f"parameter {name!r}", param)
    return Snapshot(type(optimizer), facts, arrays, tuple([name for _, name, _ in params]))


def _settings(optimizer: Any) -> Iterator[tuple[str, Any]]:
    """Yield what there is beside parameters and states."""
    for number, group in enumerate(optimizer.param_groups):
        for key, value in group.items():
            if key not in UNSAVED:
                name = f"param_groups[{number}].{key}"
                yield name, _plain(name, value)
    for name in (*BOUNDS, "master_weights"):
        yield name, getattr(optimizer, name)


def _plain(name: str, value: Any) -> Any:
    """Return a value with numbers in the place of tensors."""
    if isinstance(value, tuple | list):
        return type(value)([_plain(name, each) for each in value])
    if not isinstance(value, torch.Tensor) or value.numel() != 1:
        return value
    refuse_freed(name, value)
    return value.item()


def _array(name: str, tensor: torch.Tensor) -> Array:
    """Return the array over a tensor; of complex numbers, over their parts."""
    array = array_over(name, tensor, "compared")
    parts = reader().array_of(tensor.detach()) if tensor.is_complex() else None
    return array if parts is None else parts
