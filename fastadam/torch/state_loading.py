"""Prepare the load of states: tensors are made and checked, and put in later."""

from __future__ import annotations

from typing import Any

import torch

from fastadam.checkpoint.contents import OPTIMIZER
from fastadam.checkpoint.source import Source
from fastadam.files.entries import is_none, text_of
from fastadam.serializers.protocol import check_stored_array
from fastadam.torch.states import MASTER, STREAMS, is_half, restored
from fastadam.torch.stored import numpy_dtype, tensor_of
from fastadam.torch.tensors import computing

__all__ = ["loaded_state"]

# What says of a parameter that it has a state; it is None in files where there was none.
STEP = "step"


def loaded_state(
    source: Source,
    name: str,
    param: torch.Tensor,
    old: dict[str, Any],
    amsgrad: bool,
    masters: bool,
    begin: bool,
    strict: bool,
) -> dict[str, Any]:
    """Read and check the state of one parameter.

    Parameters
    ----------
    source : Source
        The file.
    name : str
        The parameter's.
    param : torch.Tensor
        The parameter.
    old : dict
        Its state now; empty if it has none. It stays as it is.
    amsgrad : bool
        Whether the parameter's group will have the running maximum.
    masters : bool
        Whether half-precision parameters are stepped through masters.
    begin : bool
        Whether masters that are not in the file begin from the parameters, with the next step.
    strict : bool
        Whether what is missing is an error.

    Returns
    -------
    dict
        What it will be, in memory of its own; empty if there will be none.

    Raises
    ------
    KeyError, TypeError, ValueError
        If it does not fit.
    """
    prefix = f"{OPTIMIZER}{name}/"
    if not source.is_ignored(prefix + STEP):
        if not source.demand(prefix + STEP, strict):
            return old
        if is_none(source.value(prefix + STEP)):
            return {}
    needed = [*STREAMS[:2], *(STREAMS[2:] if amsgrad else ())]
    if masters and is_half(param):
        needed.append(MASTER)
    elif MASTER in _names(source, prefix) and strict:
        raise ValueError(
            f"parameter {name!r} has a float32 master in the file, and here none would be stepped: "
            "it is for float16 and bfloat16, with master_weights=True"
        )
    for key in needed:
        if key == MASTER and begin and prefix + key not in source:
            source.converted[prefix + key] = None
        elif not (key == STREAMS[2] and source.converts):
            source.demand(prefix + key, strict)
    given: dict[str, Any] = {}
    kept: dict[str, Any] = {}
    for key in _names(source, prefix):
        if source.is_ignored(prefix + key):
            kept.update({key: old[key]} if key in old else {})
        elif key == STREAMS[2] and source.converts and not amsgrad:
            source.pass_over(prefix + key)
        elif key != MASTER or key in needed:
            value = _value(source, prefix + key, key, param)
            if value is not None or key not in (*STREAMS, MASTER):
                given[key] = value
    if not given:
        return old
    if amsgrad and source.converts and STREAMS[2] not in {**given, **kept}:
        # the largest that is known
        given[STREAMS[2]] = {**given, **kept}.get(STREAMS[1])
        source.converted[prefix + STREAMS[2]] = None
    loaded = {**restored(name, param, {**kept, **given}), **kept}
    # in the order in which they are made
    order = [key for key in (STEP, *STREAMS, MASTER) if key in loaded]
    return {key: loaded[key] for key in dict.fromkeys((*order, *loaded))}


def _names(source: Source, prefix: str) -> list[str]:
    """Return what a file has of a state."""
    return [key.removeprefix(prefix) for key in source.keys_under(prefix)]


def _value(source: Source, key: str, name: str, param: torch.Tensor) -> Any:
    """Read one value: a tensor, a string, or None."""
    stored = source.value(key)
    if is_none(stored):
        return None
    text = text_of(stored)
    if text is not None:
        return text
    if name in (*STREAMS, MASTER) and stored.dtype.kind != "V":
        check_stored_array(stored, tuple(param.shape), numpy_dtype(computing(param.dtype)), key)
    return tensor_of(key, stored)
