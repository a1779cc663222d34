"""An optimizer, read and checked, to be written later."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from fastadam.checkpoint.contents import (
    HYPERPARAM,
    OPTIMIZER,
    RULE,
    SETTINGS,
    TARGET,
    own_hooks,
    rules_of,
)
from fastadam.checkpoint.rehearsal import Rehearsal
from fastadam.checkpoint.source import Source
from fastadam.checkpoint.source_deserializer import SourceDeserializer
from fastadam.checkpoint.target_reading import read_target
from fastadam.files.errors import CheckpointError
from fastadam.loss_scaling import ON_NONFINITE
from fastadam.serializers.npz import NpzDeserializer

__all__ = ["read_optimizer"]

Commit = Callable[[], object]

# Hyperparameters that say which of the family it is.
_VARIANT = ("amsgrad", "adabound")
# What of a rule's state has the parameter's shape.
_LIKE_PARAMETER = ("m", "v", "vhat", "fp32_param")


def read_optimizer(
    source: Source, opt: Any, values: Mapping[str, Any], hyperparam: bool, strict: bool
) -> list[Commit]:
    """Read and check everything; return what makes it the optimizer's own, in order."""
    commits: list[Commit] = []
    if not source.plain:
        if hyperparam:
            _check_variant(source, opt)
        commits += _read_hooks(source, opt, strict)
        commits += _read_settings(source, opt)
        if hyperparam:
            commits += _read_bag(source, HYPERPARAM, opt.hyperparam, opt._check_hyperparam)
            commits += _read_rules(source, opt)
        commits += _read_no_loss_scale(source, opt)
    if values:
        deserializer = SourceDeserializer(source, TARGET, strict)
        commits += read_target(deserializer, opt._set_up(), values)
    deserializer = SourceDeserializer(source, OPTIMIZER, strict)
    if type(opt).serialize.__module__.startswith("fastadam."):
        with _variants_as_saved(source, opt if hyperparam else None):
            commits += opt._read(deserializer)
        _check_uninitialised(source, opt)
        return commits + _read_first_alphas(source, opt)
    # somebody's own way of loading cannot be cut into reading and writing
    return [*commits, partial(opt.serialize, deserializer.read_ahead())]


def _check_variant(source: Source, opt: Any) -> None:
    """Refuse the state of another of the family."""
    mine = opt.hyperparam.get_dict()
    for name in _VARIANT:
        key = HYPERPARAM + name
        if name not in mine or key not in source or source.is_ignored(key):
            continue
        theirs = bool(source.value(key)[()])
        if theirs == bool(mine[name]) or (name == "amsgrad" and source.converts):
            continue
        advice = "make the optimizer with the same"
        if name == "amsgrad":
            advice += ", or pass convert_amsgrad=True: " + (
                "vhat is dropped then" if theirs else "vhat begins with v then"
            )
        raise CheckpointError(
            f"{source.where} was saved with {name}={theirs}, and this {type(opt).__name__} has "
            f"{name}={bool(mine[name])}: {advice}"
        )


@contextlib.contextmanager
def _variants_as_saved(source: Source, opt: Any) -> Iterator[None]:
    """Let rules know which states they had while these are read; afterwards all is as it was."""
    before: list[tuple[Any, str, Any]] = []
    try:
        for path, rule in () if opt is None or source.converts else rules_of(opt):
            for name in _VARIANT:
                key = f"{RULE}{path}/hyperparam/{name}"
                if key in source and not source.is_ignored(key):
                    before.append((rule.hyperparam, name, vars(rule.hyperparam).get(name)))
                    setattr(rule.hyperparam, name, bool(source.value(key)[()]))
        yield
    finally:
        for bag, name, value in reversed(before):
            if value is None:
                delattr(bag, name)
            else:
                setattr(bag, name, value)


def _read_settings(source: Source, opt: Any) -> list[Commit]:
    """Read what is neither a count nor a hyperparameter."""
    commits: list[Commit] = []
    for key, (name, kind) in SETTINGS.items():
        if key in source and not source.is_ignored(key):
            value = kind(source.value(key)[()])
            if name == "on_nonfinite" and value not in ON_NONFINITE:
                raise ValueError(f"{key!r} is {value!r}, which is none of {ON_NONFINITE}")
            commits.append(partial(setattr, opt, name, value))
    return commits


def _read_bag(
    source: Source, prefix: str, bag: Any, check: Callable[[str, Any], None]
) -> list[Commit]:
    """Read a bag of hyperparameters: afterwards it holds what it held when it was saved."""
    stored = {
        key.removeprefix(prefix): key
        for key in sorted(source.keys_under(prefix))
        if not source.is_ignored(key)
    }
    commits: list[Commit] = []
    for name, key in stored.items():
        if name in _VARIANT and source.converts:
            continue
        value = _plain(source.value(key))
        check(name, value)
        commits.append(partial(setattr, bag, name, value))
    if bag.parent is not None:
        for name in set(vars(bag)) - set(stored):
            commits.append(partial(delattr, bag, name))
    return commits


def _read_rules(source: Source, opt: Any) -> list[Commit]:
    """Read the hyperparameters and flags of single parameters."""
    commits: list[Commit] = []
    for path, param in opt._set_up().parameters.items():
        rule = getattr(param, "update_rule", None)
        enabled, fp32 = f"{RULE}{path}/enabled", f"{RULE}{path}/use_fp32_update"
        if rule is None or enabled not in source:
            continue
        commits += _read_bag(
            source, f"{RULE}{path}/hyperparam/", rule.hyperparam, opt._check_hyperparam
        )
        if not source.is_ignored(enabled):
            commits.append(partial(setattr, rule, "enabled", bool(source.value(enabled)[()])))
        if fp32 in source and not source.is_ignored(fp32):
            commits.append(partial(rule.use_fp32_update, bool(source.value(fp32)[()])))
    return commits


def _check_uninitialised(source: Source, opt: Any) -> None:
    """Refuse states that fit neither each other nor the parameter that they are loaded with."""
    for path, param in opt._set_up().parameters.items():
        if param.array is not None:
            continue
        keys = [TARGET + path, *(f"{OPTIMIZER}{path}/{name}" for name in _LIKE_PARAMETER)]
        read = {key: source.shapes[key] for key in keys if source.shapes.get(key, ()) != ()}
        if len(set(read.values())) > 1:
            shapes = ", ".join(f"{key!r} has shape {shape}" for key, shape in read.items())
            raise ValueError(f"states and parameter do not have one shape: {shapes}")


def _read_first_alphas(source: Source, opt: Any) -> list[Commit]:
    """Read the alpha against which AdaBound's bounds are measured."""
    commits: list[Commit] = []
    for path, param in opt._set_up().parameters.items():
        key = f"{RULE}{path}/initial_alpha"
        if key in source and not source.is_ignored(key):
            value = float(source.value(key)[()])
            commits.append(partial(setattr, param.update_rule, "initial_alpha", value))
    return commits


def _read_no_loss_scale(source: Source, opt: Any) -> list[Commit]:
    """Switch loss scaling off, if it was off when the file was saved."""
    key = f"{OPTIMIZER}fastadam/loss_scale"
    if opt.loss_scale is None or key in source or source.is_ignored(key):
        return []
    return [partial(setattr, opt, "loss_scale", None)]


def _read_hooks(source: Source, opt: Any, strict: bool) -> list[Commit]:
    """Read the states of hooks that are there, and were when it was saved."""
    commits: list[Commit] = []
    for prefix, hook in own_hooks(opt):
        stored = source.values_under(prefix)
        if stored:
            # a hook reads and writes in one: a copy of it tells what it is going to ask for
            copy.deepcopy(hook).serialize(Rehearsal(stored, prefix, strict, source.is_ignored))
            commits.append(
                partial(hook.serialize, NpzDeserializer(stored, prefix, strict, source.is_ignored))
            )
    return commits


def _plain(value: Any) -> Any:
    """Return a stored number, truth value or string as Python's."""
    if value.dtype == object:
        return None
    return value.item() if value.shape == () else np.array(value)
