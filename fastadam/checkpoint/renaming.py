"""What is called otherwise in a file than in the target."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from fastadam.files.errors import CheckpointError
from fastadam.kernels.dtypes import type_name

__all__ = ["Rename", "hint_of_wrappers", "old_names"]

Rename = Mapping[str, str] | Callable[[str], str]

# What torch.compile, and PyTorch's data parallelism, put before the names in a module that they
# wrap; a part of a model may have been compiled, too.
_WRAPPERS: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("name.replace('_orig_mod.', '')", lambda name: name.replace("_orig_mod.", "")),
    ("'_orig_mod.' + name", lambda name: "_orig_mod." + name),
    ("name.removeprefix('module.')", lambda name: name.removeprefix("module.")),
    ("'module.' + name", lambda name: "module." + name),
)


def old_names(rename: Rename, there: Collection[str]) -> dict[str, str]:
    """Return names in a file by those in the target.

    Parameters
    ----------
    rename : mapping of str to str, or callable
        Names in the target by those in the file, or what makes the one of the other.
    there : collection of str
        All names in the file.

    Raises
    ------
    TypeError
        If it is, or returns, something else.
    CheckpointError
        If two names become one.
    """
    pairs: dict[Any, Any]
    if isinstance(rename, Mapping):
        pairs = dict(rename)
    elif callable(rename):
        pairs = {old: rename(old) for old in sorted(there)}
    else:
        raise TypeError(
            "rename must be a mapping, {name in the file: name in the target}, or a function from "
            f"the one to the other, not {type_name(rename)}"
        )
    found: dict[str, str] = {}
    for old, new in pairs.items():
        if not (isinstance(old, str) and isinstance(new, str)):
            raise TypeError(f"rename: names are str, and {old!r} would become {new!r}")
        name = new.strip("/")
        if name in found:
            raise CheckpointError(
                f"rename: two names become one: {found[name]!r} and {old!r} become {new!r}"
            )
        found[name] = old.strip("/")
    return found


def hint_of_wrappers(there: Collection[str], here: Collection[str]) -> str:
    """Say how to load names that only a wrapper of the module makes differ; "" for others.

    Parameters
    ----------
    there : collection of str
        The names in a file.
    here : collection of str
        Those in the target.
    """
    old, new = set(there), set(here)
    for line, change in _WRAPPERS:
        if old and not old <= new and {change(name) for name in old} <= new:
            return (
                "; the names differ by what wraps a module (torch.compile, DataParallel) alone: "
                f"load it with rename=lambda name: {line}"
            )
    return ""
