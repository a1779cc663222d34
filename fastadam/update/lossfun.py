"""What a loss function returned: what is wanted of it, and what is kept of it."""

from __future__ import annotations

import copy
import sys
from typing import Any

__all__ = ["no_pair", "without_graph"]


def no_pair(returned: Any) -> str:
    """Say what a loss function returned, and what is wanted of it."""
    what = "the loss function returned "
    if returned is None:
        return f"{what}None: did it forget its return? Return the pair (loss, gradients)"
    if isinstance(returned, list):
        return f"{what}a list of {len(returned)}; return a tuple, the pair (loss, gradients)"
    if isinstance(returned, tuple):
        return (
            f"{what}a tuple of {len(returned)}; return the pair (loss, gradients); what else there "
            "is goes with the loss, and comes back with it: ((loss, more), gradients)"
        )
    return (
        f"{what}{type(returned).__name__} without gradients; return the pair (loss, gradients), as "
        "value_and_grad does"
    )


def without_graph(loss: Any) -> Any:
    """Return one of Chainer's variables as a new one with its value; others as they are."""
    chainer = sys.modules.get("chainer")
    # a copy has a node of its own, which nothing has computed
    return copy.copy(loss) if isinstance(loss, getattr(chainer, "Variable", ())) else loss
