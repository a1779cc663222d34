"""Prepare the load of one value of a link: read and check it now, write it later."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastadam.kernels.backend import is_array
from fastadam.model.initializer import initial_dtype
from fastadam.model.parameter import Parameter
from fastadam.serializers.prepared import PreparedLoad
from fastadam.serializers.protocol import check_stored_array, entry_name, stored_entry

__all__ = ["prepare_kept", "prepare_param", "prepare_persistent"]


def prepare_param(prepared: PreparedLoad, serializer: Any, name: str, param: Any) -> None:
    """Read the array of a parameter, of this library or another.

    One of ours that is uninitialised takes the stored shape.
    """
    array = param.array
    stored = stored_entry(serializer, name, array)
    if stored is None:
        return
    entry = entry_name(serializer, name)
    if array is not None:
        checked = check_stored_array(stored, array.shape, array.dtype, entry)
        prepared.copy(array, checked, entry)
    elif isinstance(param, Parameter):
        dtype = initial_dtype(param.initializer)
        new = np.asarray if getattr(serializer, "gives_new_arrays", False) else np.array
        array = new(check_stored_array(stored, None, dtype, entry), dtype=dtype)
        param.prepare_array(prepared, param.device.send(array))


def prepare_kept(prepared: PreparedLoad, serializer: Any, name: str, array: Any) -> bool:
    """Read an array that is saved beside parameters, to fill it; tell whether one is stored."""
    stored = stored_entry(serializer, name, array)
    if stored is None:
        return False
    entry = entry_name(serializer, name)
    prepared.copy(array, check_stored_array(stored, array.shape, array.dtype, entry), entry)
    return True


def prepare_persistent(prepared: PreparedLoad, serializer: Any, name: str, owner: object) -> None:
    """Read a persistent value of a link, to set the attribute or to fill the array it holds."""
    value = getattr(owner, name)
    if is_array(value) and prepare_kept(prepared, serializer, name, value):
        return
    # Nothing is stored for an array here, so the template is not written to: a stored None comes
    # back as None, a missing value as the template.
    loaded = serializer(name, value)
    if loaded is not value:
        prepared.attribute(owner, name, loaded)
