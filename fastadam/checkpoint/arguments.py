"""The arguments of `save` and `load`, looked at before a file is."""

from __future__ import annotations

import os
from typing import Any

from fastadam.algorithms.number import check_truth
from fastadam.checkpoint.kinds import checkpointed, is_checkpointed

__all__ = ["check_arguments"]


def check_arguments(path: Any, opt: Any, **choices: bool) -> None:
    """Refuse what is no optimizer, or no choice, with a TypeError, and say what comes first."""
    for name, choice in choices.items():
        check_truth(choice, name)
    if is_checkpointed(path):
        raise TypeError(
            "the path comes first, and the optimizer second: save(path, optimizer), "
            "load(path, optimizer)"
        )
    if not isinstance(path, str | bytes | os.PathLike):
        hint = ""
        if hasattr(path, "read") or hasattr(path, "write"):
            hint = (
                "; file objects are written by save_npz(file, optimizer) of fastadam.serializers, "
                "and read by load_npz(file, optimizer): the optimizer alone, without parameters"
            )
        raise TypeError(f"the name of a file is wanted, and not {type(path).__name__}{hint}")
    if not is_checkpointed(opt):
        checkpointed(opt)
