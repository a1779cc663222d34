"""The parameters of a target, read and checked, to be written later."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from fastadam._link import Link
from fastadam._restore import read_param
from fastadam.checkpoint.contents import TARGET
from fastadam.checkpoint.source_deserializer import SourceDeserializer
from fastadam.kernels.arrays import is_writeable
from fastadam.kernels.backend import copy_into, is_array
from fastadam.parameter import Parameter
from fastadam.serializers.npz import NpzDeserializer
from fastadam.serializers.protocol import check_stored_array
from fastadam.targets import ArrayTarget, Target

__all__ = ["read_target"]


def read_target(
    deserializer: SourceDeserializer, targets: Target, values: Mapping[str, Any]
) -> list[Callable[[], object]]:
    """Read the values of parameters, and of what else a link keeps.

    Parameters
    ----------
    deserializer : SourceDeserializer
        Of the file's section of the target.
    targets : Target
        The optimizer's.
    values : mapping of str to array
        What the target holds now, by key.

    Returns
    -------
    list of callable
        What writes them.
    """
    link: Any = getattr(targets, "link", None)
    if isinstance(link, Link) and type(link).serialize is Link.serialize:
        return list(link._read(deserializer))
    if isinstance(targets, ArrayTarget) or not callable(getattr(link, "serialize", None)):
        commits: list[Callable[[], object]] = []
        for path, param in targets.parameters.items():
            commits += _read_array(deserializer, path, param)
        return commits
    # another library's link writes while it reads: it is given what has been checked
    checked: dict[str, Any] = {}
    for key, value in values.items():
        name = key.removeprefix(TARGET)
        stored = deserializer(name, None)
        if stored is None:
            continue
        if is_array(value) and value.dtype != object:
            stored = check_stored_array(stored, value.shape, value.dtype, key)
        checked[name] = stored
    return [partial(link.serialize, NpzDeserializer(checked, strict=False))]


def _read_array(
    deserializer: SourceDeserializer, path: str, param: Any
) -> list[Callable[[], object]]:
    """Read the array of one parameter."""
    if isinstance(param, Parameter):
        return list(read_param(deserializer, path, param))
    stored = deserializer(path, None)
    if stored is None or param.array is None:
        return []
    key = deserializer.path + path
    array = check_stored_array(stored, param.array.shape, param.array.dtype, key)
    if not is_writeable(param.array):
        raise ValueError(f"{key!r}: the array it would be copied into is read-only")
    return [partial(copy_into, param.array, array)]
