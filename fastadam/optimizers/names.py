"""Answers for the names that users of other libraries type: which one is meant here."""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Callable, Iterable
from typing import ParamSpec, TypeVar

__all__ = ["FOREIGN_ARGUMENTS", "FOREIGN_METHODS", "explain_foreign_arguments", "similar"]

_P = ParamSpec("_P")
_R = TypeVar("_R")

_ALPHA = "the learning rate is called alpha"
_EPS = "it is called eps; for PyTorch's placement of it, add eps_mode='paper'"
_DECAY = (
    "it is called weight_decay_rate, and it is not multiplied by alpha: PyTorch's "
    "weight_decay=0.01 at lr=0.001 is weight_decay_rate=1e-5; or keep 0.01 and add "
    "decay_mode='alpha'"
)
_BETAS = "give beta1 and beta2"

FOREIGN_ARGUMENTS = {
    "lr": _ALPHA,
    "learning_rate": _ALPHA,
    "betas": _BETAS,
    "beta_1": _BETAS,
    "beta_2": _BETAS,
    "b1": _BETAS,
    "b2": _BETAS,
    "weight_decay": _DECAY,
    "decay": _DECAY,
    "epsilon": _EPS,
    "params": "the parameters are given to setup(params)",
}

FOREIGN_METHODS = {
    "step": "call update(lossfun, ...), or apply_gradients(gradients) with gradients of your own",
    "zero_grad": "nothing needs it here: update(lossfun, ...) clears the gradients itself; a link "
    "has cleargrads()",
    "minimize": "call setup(params) once, then update(lossfun, ...) for every step",
    "param_groups": "one parameter's hyperparameters are set by set_hyperparam(glob, name=value)",
    "state_dict": "fastadam.save(path, optimizer) saves it with its parameters; as Chainer does, "
    "serializers.save_npz(path, optimizer)",
    "load_state_dict": "fastadam.load(path, optimizer) loads what fastadam.save has saved; "
    "Chainer's files, serializers.load_npz(path, optimizer)",
}


def explain_foreign_arguments(init: Callable[_P, _R]) -> Callable[_P, _R]:
    """Make a constructor answer other libraries' argument names with its own."""

    @functools.wraps(init)
    def explained(*args: _P.args, **kwds: _P.kwargs) -> _R:
        for name in kwds:
            if name in FOREIGN_ARGUMENTS:
                kind = type(args[0]).__name__
                raise TypeError(f"{kind} has no argument {name!r}: {FOREIGN_ARGUMENTS[name]}")
        return init(*args, **kwds)

    return explained


def similar(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that a misspelt one stands for, if there is one.

    A whole known name with a number or an underscored suffix is no misspelling: ``alpha0``.
    """
    matches: list[str] = difflib.get_close_matches(name, list(known), cutoff=0.8)
    if any(re.fullmatch(rf"{re.escape(match)}(\d+|_\w+)", name) for match in matches):
        return None
    return matches[0] if matches else None
