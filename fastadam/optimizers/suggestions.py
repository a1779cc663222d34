"""Answers for the names that users of other libraries type: which one is meant here."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection
from typing import Any, ParamSpec, TypeVar

from fastadam import optimizer_hooks
from fastadam.algorithms.adam import ADAM, BY_NAME
from fastadam.algorithms.suggestions import (
    HYPERPARAMETERS,
    UNSCALED,
    meant,
    no_argument,
    similar,
)

__all__ = [
    "ARGUMENTS",
    "ELSEWHERE",
    "METHODS",
    "OTHER_OPTIMIZERS",
    "explain_foreign_arguments",
    "no_attribute",
    "no_hyperparameter",
    "no_optimizer",
    "refused_attribute",
]

_P = ParamSpec("_P")
_R = TypeVar("_R")

_ONE_CALL = "leave it out: all parameters are stepped in one call already"
_SCHEDULE = (
    "Keras's decay of the learning rate is a schedule here: before every update, set alpha, as in "
    "opt.alpha = 0.001 / (1 + 1e-6 * opt.t)"
)
_CLIP_EACH = (
    "no hook clips every gradient by a norm of its own, but one clips by the norm of all: "
    "opt.add_hook(optimizer_hooks.GradientClipping(1.0))"
)
_CLIP_ALL = (
    "gradients are clipped to a norm of them all by a hook: "
    "opt.add_hook(optimizer_hooks.GradientClipping(1.0))"
)
_SETTING = "it is an attribute of the optimizer, set afterwards: "
_CLIP_VALUE = (
    "elements of gradients are clipped by a hook: "
    "opt.add_hook(optimizer_hooks.GradientHardClipping(-0.5, 0.5))"
)

# What other libraries' constructors take, and the answer wherever ours do not. Those that depend on
# the class are None here, and `_answer` knows them.
ARGUMENTS: dict[str, str | None] = {
    **HYPERPARAMETERS,
    "weight_decay": None,
    "weight_decay_rate": None,
    "decay_mode": None,
    "decay": None,
    "params": "the parameters are given to setup(params)",
    "amsgrad": None,
    "adabound": None,
    "final_lr": None,
    "gamma": None,
    "clipnorm": _CLIP_EACH,
    "clipvalue": _CLIP_VALUE,
    "global_clipnorm": _CLIP_ALL,
    "max_grad_norm": _CLIP_ALL,
    "foreach": _ONE_CALL,
    "fused": _ONE_CALL,
    "capturable": _ONE_CALL,
    "on_nonfinite": f"{_SETTING}opt.on_nonfinite = 'skip'",
    "monitor": f"{_SETTING}opt.monitor = True",
    "loss_scale": f"{_SETTING}opt.loss_scale = 1024.0",
}

METHODS = {
    "step": "call update(lossfun, ...), or apply_gradients(gradients) with gradients of your own",
    "zero_grad": "update(lossfun, ...) clears the gradients itself; a link has cleargrads(), and "
    "the gradients of a torch model are torch's: model.zero_grad()",
    "minimize": "call setup(params) once, then update(lossfun, ...) for every step",
    "param_groups": "one parameter's hyperparameters are set by set_hyperparam(glob, name=value)",
    "add_param_group": "put the array into the target, as in params['new'] = array, and the next "
    "update finds it; its hyperparameters are set by set_hyperparam('new', alpha=0.01)",
    "state": "every parameter has its own: opt.parameters[path].update_rule.state",
    "defaults": "the hyperparameters are in opt.hyperparam; opt.hyperparam.get_dict()",
    "get_config": "the hyperparameters are in opt.hyperparam; opt.hyperparam.get_dict()",
    "iterations": "the number of updates made is opt.t",
    "variables": "the parameters are in opt.parameters",
    "save": "it is fastadam.save(path, optimizer)",
    "load": "it is fastadam.load(path, optimizer)",
    "state_dict": "fastadam.save(path, optimizer) saves it with its parameters; as Chainer does, "
    "serializers.save_npz(path, optimizer)",
    "load_state_dict": "fastadam.load(path, optimizer) loads what fastadam.save has saved; "
    "Chainer's files, serializers.load_npz(path, optimizer)",
}

OTHER_OPTIMIZERS = (
    "ASGD",
    "AdaDelta",
    "AdaGrad",
    "Adafactor",
    "Adamax",
    "CorrectedMomentumSGD",
    "LAMB",
    "LARS",
    "LBFGS",
    "Lion",
    "MSVAG",
    "MomentumSGD",
    "Muon",
    "NAdam",
    "NesterovAG",
    "RAdam",
    "RMSprop",
    "RMSpropGraves",
    "Rprop",
    "SGD",
    "SMORMS3",
    "SparseAdam",
)

# What people look for at the top, and where it is.
ELSEWHERE = {
    **{name: f"it is fastadam.optimizer_hooks.{name}" for name in optimizer_hooks.__all__},
    **{
        name: f"it is fastadam.serializers.{name}"
        for name in ("load_hdf5", "load_npz", "save_hdf5", "save_npz")
    },
    "clip_grad_norm": _CLIP_ALL,
    "clip_grad_norm_": _CLIP_ALL,
    "clip_by_global_norm": _CLIP_ALL,
    "clip_grad_value_": _CLIP_VALUE,
}

# Attributes of an optimizer that are misspelt, beside hyperparameters.
_SETTINGS = ("missing_gradients", "on_nonfinite", "monitor")


def explain_foreign_arguments(init: Callable[_P, _R]) -> Callable[_P, _R]:
    """Make a constructor answer names that it does not have with those that it has."""
    takes = tuple(inspect.signature(init).parameters)[1:]

    @functools.wraps(init)
    def explained(*args: _P.args, **kwds: _P.kwargs) -> _R:
        for name in kwds:
            if name not in takes:
                kind = type(args[0])
                answer = _answer(kind, name, takes)
                raise TypeError(no_argument(kind.__name__, name, takes, answer))
        return init(*args, **kwds)

    return explained


def no_attribute(kind: type[Any], name: str) -> str:
    """Say what to do in the place of reading an attribute that is not there."""
    if name in METHODS:
        return f"{kind.__name__} has no {name!r}: {METHODS[name]}"
    return refused_attribute(kind, name) or f"{kind.__name__} has no attribute {name!r}"


def refused_attribute(kind: type[Any], name: str) -> str | None:
    """Say why an attribute is not set, which would change nothing; None for a name that is free."""
    answer = _answer(kind, name, BY_NAME)
    if answer is not None:
        return f"{kind.__name__} has no {name!r}: {answer}"
    hint = meant(name, (*BY_NAME, *_SETTINGS))
    return f"{kind.__name__} has no attribute {name!r}{hint}" if hint else None


def no_hyperparameter(owner: str, name: str) -> str:
    """Say which hyperparameter is meant by one that is not there."""
    answer = _answer(None, name, BY_NAME)
    advice = f": {answer}" if answer is not None else meant(name, BY_NAME)
    return f"{owner} has no hyperparameter {name!r}{advice}; there are: {', '.join(BY_NAME)}"


def no_optimizer(module: str, name: str, known: Collection[str]) -> str:
    """Say what there is in the place of something that a module does not have."""
    others = {other.lower(): other for other in OTHER_OPTIMIZERS}
    if name.lower() in others:
        family = ", ".join(each for each in known if each.startswith(("Ada", "AMS")))
        return (
            f"fastadam has the Adam family only ({family}), no {others[name.lower()]}; the "
            "documentation of fastadam.GradientMethod shows SGD in ten lines"
        )
    elsewhere = {each.lower(): answer for each, answer in ELSEWHERE.items()}
    if name.lower() in elsewhere:
        return f"module {module!r} has no attribute {name!r}: {elsewhere[name.lower()]}"
    lower = {each.lower(): each for each in known}
    near = lower.get(name.lower()) or similar(name, known)
    hint = f"; {near!r} is meant?" if near is not None and not name.startswith("_") else ""
    return f"module {module!r} has no attribute {name!r}{hint}"


def _answer(kind: type[Any] | None, name: str, takes: Collection[str]) -> str | None:
    """Return the advice for a name of other libraries, or of others of the family.

    The class, if it is known, has no such name; `takes` is what it has.
    """
    if name not in ARGUMENTS or name in takes:
        return None
    answer = ARGUMENTS[name]
    if answer is not None:
        return answer
    decays = "weight_decay_rate" in takes
    if name == "decay":
        more = "weight_decay_rate" if decays else f"the weight_decay_rate of {_adam(kind)}"
        return f"{_SCHEDULE}; weight decay is {more}"
    if name == "weight_decay" and decays:
        return HYPERPARAMETERS[name]
    if name in ("weight_decay", "weight_decay_rate", "decay_mode"):
        same = _adam(kind, "weight_decay_rate=1e-5")
        return f"{same} is the same with weight decay, which {UNSCALED}"
    value = "True" if name in ADAM.flags else "0.1"
    more = "" if name in ADAM.flags else "adabound=True, "
    fixed = fixed_flags(kind)
    if name in fixed:
        return f"leave it out: it is always {fixed[name]} here; {_adam(kind)} is the same"
    return f"{_adam(kind, f'{more}{name}={value}')} has it"


def fixed_flags(kind: type[Any] | None) -> dict[str, Any]:
    """Return the hyperparameters that an optimizer's class has settled, by name."""
    fixed: dict[str, Any] = getattr(kind, "_fixed", {})
    return fixed


def _adam(kind: type[Any] | None, *more: str) -> str:
    """Spell the call of Adam that is one of its special cases, with more arguments."""
    fixed = fixed_flags(kind)
    return f"Adam({', '.join([*(f'{name}={value}' for name, value in fixed.items()), *more])})"
