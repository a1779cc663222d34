"""Prepare the load of an optimizer: all is read and checked now, and written later."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

import numpy as np

from fastadam.algorithms.algorithm import Stream
from fastadam.algorithms.table import CONVERTED, FLAGS, STATE
from fastadam.checkpoint.contents import (
    GROUP,
    HYPERPARAM,
    OPTIMIZER,
    RULE,
    SETTINGS,
    TARGET,
    rules_of,
    saved_link,
    stateless_key,
)
from fastadam.checkpoint.hook_loading import lacks_as_the_first_did, prepare_hooks
from fastadam.checkpoint.source import Source
from fastadam.checkpoint.source_deserializer import ReadAhead, SourceDeserializer
from fastadam.files.entries import text_of
from fastadam.files.errors import CheckpointError
from fastadam.kernels.backend import is_array
from fastadam.model.loading import prepare_kept, prepare_param
from fastadam.optimizers.suggestions import fixed_flags
from fastadam.serializers.prepared import PreparedLoad
from fastadam.serializers.protocol import check_stored_array
from fastadam.serializers.remembering import remember
from fastadam.update.hyperparameter import prepare_values
from fastadam.update.loss_scale import LossScaling
from fastadam.update.loss_scale_files import prepare_no_scale
from fastadam.update.optimizer import target_of
from fastadam.update.overrides import class_overrides, loads_in_two_phases, overrides
from fastadam.update.rule import UpdateRule
from fastadam.update.ruled import check_hyperparam, optional_hyperparams

__all__ = ["prepare_optimizer"]

# What of a rule's state has the parameter's shape.
_LIKE_PARAMETER = (*STATE, "fp32_param")


def prepare_optimizer(
    source: Source,
    opt: Any,
    values: Mapping[str, Any],
    hooks: Collection[str] | None,
    hyperparam: bool,
    strict: bool,
) -> PreparedLoad:
    """Read and check everything, with the arguments of `fastadam.load`.

    `values` is what the target holds now, by key; empty if parameters are not loaded. `hooks` are
    the names of those that it was saved with; None if the file does not tell.
    """
    if source.keys_under(GROUP):
        raise CheckpointError(
            f"{source.where} was saved with an optimizer whose parameters are in groups, such as "
            f"fastadam.torch's: load it into one of these, not into {type(opt).__name__}"
        )
    prepared = PreparedLoad()
    complete = not source.plain and hyperparam and not source.converts
    if not source.plain:
        if hyperparam:
            _check_variant(source, opt)
        prepare_hooks(prepared, source, opt, hooks, strict)
        _prepare_settings(prepared, source, opt, strict)
        if hyperparam:
            _demand_hyperparameters(source, opt, strict)
            _prepare_bag(prepared, source, HYPERPARAM, opt.hyperparam, opt, strict)
            _prepare_rules(prepared, source, opt, strict)
        _prepare_no_loss_scale(prepared, source, opt)
    if values:
        _prepare_target(prepared, SourceDeserializer(source, TARGET, strict), opt, values)
    stateless = None if source.plain else _stateless(source, opt)
    deserializer = SourceDeserializer(source, OPTIMIZER, strict, complete, stateless)
    if loads_in_two_phases(opt):
        prepared.extend(opt.prepare_load(deserializer))
        _check_uninitialised(source, opt)
    else:
        # somebody's own way of loading cannot be cut into reading and writing
        prepared.serialize(opt, deserializer.read_ahead())
    _prepare_first_alphas(prepared, source, opt, hyperparam, strict)
    return prepared


def _prepare_target(
    prepared: PreparedLoad, deserializer: SourceDeserializer, opt: Any, values: Mapping[str, Any]
) -> None:
    """Read the values of parameters, and of what else a link keeps."""
    targets = target_of(opt)
    link = saved_link(targets)
    if link is None:
        for path, param in targets.parameters.items():
            prepare_param(prepared, deserializer, path, param)
        for path, array in targets.kept().items():
            prepare_kept(prepared, deserializer, path, array)
        if targets.lender is not None:
            targets.lender.prepare_written(prepared)
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


def _check_variant(source: Source, opt: Any) -> None:
    """Refuse the state of another of the family."""
    mine = opt.hyperparam.get_dict()
    usual = fixed_flags(type(opt))
    for name in FLAGS:
        key = HYPERPARAM + name
        if name not in mine or key not in source or source.is_ignored(key):
            continue
        theirs = _truth(source, key)
        if theirs in (bool(mine[name]), usual.get(name)):
            continue
        made = [stream for stream in CONVERTED if stream.when == name]
        if made and (source.converts or _has_other_streams(source, opt, theirs, made)):
            continue
        advice = "make the optimizer with the same"
        if made:
            advice += f", or pass convert_{name}=True: " + " and ".join(
                f"{stream.name} is dropped then"
                if theirs
                else f"{stream.name} begins with {stream.made_of} then"
                for stream in made
            )
        raise CheckpointError(
            f"{source.where} was saved with {name}={theirs}, and this {type(opt).__name__} has "
            f"{name}={bool(mine[name])}: {advice}"
        )


def _has_other_streams(source: Source, opt: Any, saved_with: bool, made: list[Stream]) -> bool:
    """Tell whether the side without a flag has its streams all the same: it was switched off."""
    if saved_with:
        states = [rule.state for _, rule in rules_of(opt) if rule.state]
        return bool(states) and all(stream.name in state for state in states for stream in made)
    for stream in made:
        end = f"/{stream.made_of}"
        keys = [key for key in source.keys if key.startswith(OPTIMIZER) and key.endswith(end)]
        there = {f"{key.removesuffix(end)}/{stream.name}" for key in keys}
        if not there or not there <= source.keys:
            return False
    return True


def _prepare_settings(prepared: PreparedLoad, source: Source, opt: Any, strict: bool) -> None:
    """Read what is neither a count nor a hyperparameter."""
    for key, (name, modes) in SETTINGS.items():
        if lacks_as_the_first_did(source, key) or not source.demand(key, strict):
            continue
        value: Any = _text(source, key) if modes else _truth(source, key)
        if modes:
            if value not in modes:
                raise ValueError(f"{key!r} is {value!r}, which is none of {modes}")
            if not class_overrides(type(opt), (name,), LossScaling):
                name = f"_{name}"
        prepared.attribute(opt, name, value)


def _demand_hyperparameters(source: Source, opt: Any, strict: bool) -> None:
    """Refuse a file without what every optimizer of the kind has; modes are only saved if set."""
    for name in vars(opt.hyperparam):
        converted = name in FLAGS and source.converts
        if name not in optional_hyperparams(opt) and not converted:
            source.demand(HYPERPARAM + name, strict)


def _prepare_bag(
    prepared: PreparedLoad, source: Source, prefix: str, bag: Any, opt: Any, strict: bool
) -> None:
    """Read a bag of hyperparameters: afterwards it holds what it held when it was saved."""
    known = {*opt.hyperparam.get_dict(), *optional_hyperparams(opt), *bag.get_dict()}
    values: dict[str, Any] = {}
    unknown: list[str] = []
    # a rule's own are all that it has; of an optimizer's, some are there only where they were set
    only = set(optional_hyperparams(opt)) if bag.parent is None else set(vars(bag))
    for key in source.keys_under(prefix):
        name = key.removeprefix(prefix)
        if source.is_ignored(key):
            only.discard(name)
        elif name in FLAGS and source.converts:
            source.pass_over(key)
            only.discard(name)
        elif name in known:
            values[name] = _plain(source.value(key))
        elif strict:
            # what there is no room for is refused as such
            source.value(key)
            unknown.append(name)
    if unknown:
        raise CheckpointError(
            f"{source.where} has values under {prefix!r} that {type(opt).__name__} has no "
            f"hyperparameters for: {', '.join(map(repr, unknown[:5]))}; there are: "
            f"{', '.join(sorted(known))}. strict=False leaves them"
        )
    together = {**bag.get_dict(), **values}
    for name, value in values.items():
        door = f"{prefix + name!r} in {source.where}"
        check_hyperparam(opt, name, value, door, together)
    prepare_values(prepared, bag, values, only)


def _prepare_rules(prepared: PreparedLoad, source: Source, opt: Any, strict: bool) -> None:
    """Read the hyperparameters and flags of single parameters."""
    for path, rule in rules_of(opt):
        enabled, fp32 = f"{RULE}{path}/enabled", f"{RULE}{path}/use_fp32_update"
        # a parameter that is not in the file is missed where its count is read
        if not any(source.keys_under(f"{section}{path}/") for section in (RULE, OPTIMIZER)):
            continue
        bag_prefix = f"{RULE}{path}/hyperparam/"
        _prepare_bag(prepared, source, bag_prefix, rule.hyperparam, opt, strict)
        if source.demand(enabled, strict):
            prepared.attribute(rule, "enabled", _truth(source, enabled))
        if source.demand(fp32, strict):
            flag = _truth(source, fp32)
            if overrides(rule, "use_fp32_update", UpdateRule):
                prepared.call(partial(rule.use_fp32_update, flag), partial(remember, rule))
            else:
                prepared.attribute(rule, "_use_fp32_update", flag)


def _stateless(source: Source, opt: Any) -> frozenset[str]:
    """Return what the keys of rules begin with that were counted and had no state."""
    found = set()
    for path, _ in rules_of(opt):
        key = stateless_key(path)
        if key in source and not source.is_ignored(key) and _truth(source, key):
            found.add(f"{OPTIMIZER}{path}/")
    return frozenset(found)


def _check_uninitialised(source: Source, opt: Any) -> None:
    """Refuse states that fit neither each other nor the parameter that they are loaded with."""
    for path, param in target_of(opt).parameters.items():
        if param.array is not None:
            continue
        keys = [TARGET + path, *(f"{OPTIMIZER}{path}/{name}" for name in _LIKE_PARAMETER)]
        read = {key: source.shapes[key] for key in keys if source.shapes.get(key, ()) != ()}
        if len(set(read.values())) > 1:
            shapes = ", ".join(f"{key!r} has shape {shape}" for key, shape in read.items())
            raise ValueError(f"states and parameter do not have one shape: {shapes}")


def _prepare_first_alphas(
    prepared: PreparedLoad, source: Source, opt: Any, hyperparam: bool, strict: bool
) -> None:
    """Read the alpha against which AdaBound's bounds are measured; a rule may have none yet."""
    for path, rule in rules_of(opt):
        key = f"{RULE}{path}/initial_alpha"
        # Chainer's way to save it is never the only one
        if not source.plain and f"{OPTIMIZER}{path}/initial_alpha" in source:
            source.demand(key, strict)
        if key not in source:
            if hyperparam and f"{RULE}{path}/enabled" in source:
                prepared.remove_attribute(rule, "initial_alpha")
        elif not source.is_ignored(key):
            value = source.value(key)
            if value.shape != () or value.dtype.kind not in "fiu" or not np.isfinite(value):
                raise ValueError(f"{key!r} is {value} in the file, and no finite number")
            prepared.attribute(rule, "initial_alpha", float(value))


def _prepare_no_loss_scale(prepared: PreparedLoad, source: Source, opt: Any) -> None:
    """Switch loss scaling off, if it was off when the file was saved."""
    key = f"{OPTIMIZER}fastadam/loss_scale"
    if opt.loss_scale is not None and not source.keys_under(key) and not source.is_ignored(key):
        prepare_no_scale(prepared, opt)


def _truth(source: Source, key: str) -> bool:
    """Read a truth value."""
    value = source.value(key)
    if value.shape != () or value.dtype != np.bool_:
        raise ValueError(f"{key!r} in {source.where} is {value}, and no truth value")
    return bool(value)


def _text(source: Source, key: str) -> str:
    """Read a string; anything else in words, which are no mode."""
    value = source.value(key)
    found = text_of(value)
    return str(value.tolist()) if found is None else found


def _plain(value: Any) -> Any:
    """Return a stored number, truth value or string as Python's."""
    if value.dtype == object:
        return None
    return value.item() if value.shape == () else np.array(value)
