"""Prepare the load of a target's parameters: read and checked now, written later."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastadam.checkpoint.contents import TARGET
from fastadam.checkpoint.source_deserializer import ReadAhead, SourceDeserializer
from fastadam.kernels.backend import is_array
from fastadam.model.loading import prepare_param
from fastadam.serializers.prepared import PreparedLoad
from fastadam.serializers.protocol import check_stored_array
from fastadam.update.overrides import loads_in_two_phases
from fastadam.update.target import ArrayTarget, Target

__all__ = ["prepare_target"]


def prepare_target(
    prepared: PreparedLoad,
    deserializer: SourceDeserializer,
    targets: Target,
    values: Mapping[str, Any],
) -> None:
    """Read the values of parameters, and of what else a link keeps.

    Parameters
    ----------
    prepared : PreparedLoad
        What is to write them.
    deserializer : SourceDeserializer
        Of the file's section of the target.
    targets : Target
        The optimizer's.
    values : mapping of str to array
        What the target holds now, by key.
    """
    link: Any = getattr(targets, "link", None)
    if isinstance(targets, ArrayTarget) or not callable(getattr(link, "serialize", None)):
        for path, param in targets.parameters.items():
            prepare_param(prepared, deserializer, path, param)
        return
    if loads_in_two_phases(link):
        prepared.extend(link.prepare_load(deserializer))
        return
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
    prepared.serialize(link, ReadAhead(checked, "", False))
