"""What is done before a loss is differentiated, and what a loss function returned."""

from __future__ import annotations

import copy
import sys
import warnings
from typing import Any

__all__ = ["clear_gradients", "no_pair", "without_graph"]


def clear_gradients(targets: Any, target: Any, to_none: bool) -> None:
    """Make room for the gradients of a backward pass: None in their place, or zeros."""
    if targets.lender is not None:
        targets.lender.clear_gradients(to_none)
    elif not to_none:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            target.zerograds()
    elif hasattr(target, "cleargrads"):
        target.cleargrads()
    else:
        for param in targets.parameters.values():
            param.cleargrad()


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
