"""Prepare the load of hooks' states, and compare which hooks there are and were."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Collection
from typing import Any

from fastadam.checkpoint.contents import HOOKS, LATER, hook_names, own_hooks
from fastadam.checkpoint.source import Source
from fastadam.checkpoint.source_deserializer import ReadAhead, Rehearsal, SourceDeserializer
from fastadam.files.errors import CheckpointError
from fastadam.serializers.prepared import PreparedLoad
from fastadam.update.overrides import loads_in_two_phases

__all__ = ["compare_hooks", "lacks_as_the_first_did", "prepare_hooks", "saved_hooks"]


def lacks_as_the_first_did(source: Source, key: str) -> bool:
    """Tell whether a key may be missing, since the file has none of what came with it."""
    return key in LATER and not any(later in source for later in LATER)


def saved_hooks(source: Source, strict: bool) -> list[str] | None:
    """Return the names of the hooks that a file was saved with; None if it does not say.

    If `strict`, a file that should say so is refused, as is in any case one with no list of names.
    """
    if source.plain or lacks_as_the_first_did(source, HOOKS) or not source.demand(HOOKS, strict):
        return None
    value = source.value(HOOKS)
    try:
        names = json.loads(str(value.item()))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{HOOKS!r} in {source.where} is no list of names") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise CheckpointError(f"{HOOKS!r} in {source.where} is no list of names")
    return [source.new_name(name) for name in names]


def prepare_hooks(
    prepared: PreparedLoad, source: Source, opt: Any, saved: Collection[str] | None, strict: bool
) -> None:
    """Read the states of hooks that are there, and were when it was saved.

    These are the names in `saved`, None if the file does not tell. If `strict`, a value that is
    missing is an error.
    """
    demanded = frozenset(saved or ()) if strict else frozenset()
    for name, prefix, hook in own_hooks(opt):
        if name not in demanded and not source.keys_under(prefix):
            continue
        if loads_in_two_phases(hook):
            prepared.extend(hook.prepare_load(SourceDeserializer(source, prefix, strict)))
            continue
        stored = source.values_under(prefix)
        # a hook reads and writes in one: a copy of it tells what it is going to ask for
        copy.deepcopy(hook).serialize(Rehearsal(stored, prefix, strict, source.is_ignored))
        prepared.serialize(hook, ReadAhead(stored, prefix, strict, source.is_ignored))


def compare_hooks(
    saved: Collection[str] | None, opt: Any
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of hooks that are missing, and of those that there are more than saved."""
    if saved is None:
        return (), ()
    before, here = Counter(saved), Counter(hook_names(opt))
    return tuple((before - here).elements()), tuple((here - before).elements())
