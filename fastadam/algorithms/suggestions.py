"""Answers for the names of hyperparameters that users of other libraries type, at every door."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable

__all__ = ["HYPERPARAMETERS", "UNSCALED", "meant", "no_argument", "similar"]

_ALPHA = "the learning rate is called alpha"
_EPS = "it is called eps; for PyTorch's placement of it, add eps_mode='paper'"
_BETAS = "give beta1 and beta2"
UNSCALED = (
    "is not multiplied by alpha: PyTorch's weight_decay=0.01 at lr=0.001 is "
    "weight_decay_rate=1e-5; or keep 0.01 and add decay_mode='alpha'"
)

# What other libraries call a hyperparameter, and the answer wherever there is that of the family.
HYPERPARAMETERS = {
    "lr": _ALPHA,
    "learning_rate": _ALPHA,
    "betas": _BETAS,
    "beta_1": _BETAS,
    "beta_2": _BETAS,
    "b1": _BETAS,
    "b2": _BETAS,
    "weight_decay": f"it is called weight_decay_rate, and it {UNSCALED}",
    "epsilon": _EPS,
    "maximize": "an alpha below 0, such as alpha=-0.001, goes up the gradient",
    "decoupled_weight_decay": "leave it out: weight decay is always decoupled from the gradient",
    "momentum": "Adam's momentum is beta1",
}


def no_argument(owner: str, name: str, takes: Collection[str], answer: str | None) -> str:
    """Say what to do in the place of an argument that there is not.

    Parameters
    ----------
    owner : str
        What has been called.
    name : str
        The argument.
    takes : collection of str
        The arguments that there are.
    answer : str or None
        What is known about this one.
    """
    if answer is not None:
        return f"{owner} has no argument {name!r}: {answer}"
    return f"{owner} has no argument {name!r}{meant(name, takes)}; there are: {', '.join(takes)}"


def similar(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that a misspelt one stands for, if there is one.

    A whole known name with a number or an underscored suffix is no misspelling: ``alpha0``.
    """
    matches: list[str] = difflib.get_close_matches(name, list(known), cutoff=0.8)
    if any(re.fullmatch(rf"{re.escape(match)}(\d+|_\w+)", name) for match in matches):
        return None
    return matches[0] if matches else None


def meant(name: str, known: Iterable[str]) -> str:
    """Ask whether a name that is nearly this one is meant; nothing if there is none."""
    near = similar(name, known)
    return "" if near is None else f"; {near!r} is meant?"
