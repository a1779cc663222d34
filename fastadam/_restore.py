"""Load one value of a link in two phases: read and check now, write later.

A link collects the writes of its whole tree and makes them when every check has passed, so that a
bad file changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from fastadam.initializer import initial_dtype
from fastadam.kernels.arrays import is_writeable
from fastadam.kernels.backend import copy_into, is_array
from fastadam.parameter import Parameter
from fastadam.serializers.protocol import check_stored_array, entry_name

__all__ = ["Commit", "read_param", "read_persistent"]

Commit: TypeAlias = Callable[[], None]


def read_param(serializer: Any, name: str, param: Parameter) -> list[Commit]:
    """Read a parameter's array.

    Parameters
    ----------
    serializer : AbstractSerializer
        A deserializer.
    name : str
        The parameter's key.
    param : Parameter
        The parameter; one that is uninitialised takes the stored shape.

    Returns
    -------
    list of callable
        What writes the array into the parameter: one call, or none if nothing was stored.
    """
    stored = serializer(name, None)
    if stored is None:
        return []
    entry = entry_name(serializer, name)
    array = param.array
    if array is None:
        dtype = initial_dtype(param.initializer)
        # Cast already here, so that nothing can fail later.
        new = np.array(check_stored_array(stored, None, dtype, entry), dtype=dtype)
    else:
        new = check_stored_array(stored, array.shape, array.dtype, entry)
        _check_writable(array, entry)

    def commit() -> None:
        # Parameters may be tied: another path may have given this one its array by now.
        target = param.array
        if target is not None and target.shape == new.shape:
            copy_into(target, new)
        else:
            param.initialize_with(param.device.send(new))

    return [commit]


def read_persistent(serializer: Any, name: str, owner: object) -> list[Commit]:
    """Read a persistent value of a link.

    Parameters
    ----------
    serializer : AbstractSerializer
        A deserializer.
    name : str
        The value's key and attribute name.
    owner : object
        The link.

    Returns
    -------
    list of callable
        What sets the attribute, or fills the array it holds.
    """
    value = getattr(owner, name)
    if is_array(value):
        stored = serializer(name, None)
        if stored is not None:
            entry = entry_name(serializer, name)
            array = check_stored_array(stored, value.shape, value.dtype, entry)
            _check_writable(value, entry)
            return [lambda: copy_into(value, array)]
    # Nothing is stored for an array here, so the template is not written to: a stored None comes
    # back as None, a missing value as the template.
    loaded = serializer(name, value)
    return [lambda: setattr(owner, name, loaded)]


def _check_writable(array: Any, entry: str) -> None:
    """Raise ValueError for an array that cannot be loaded into."""
    if not is_writeable(array):
        raise ValueError(f"cannot load {entry!r}: the array it would be copied into is read-only")
