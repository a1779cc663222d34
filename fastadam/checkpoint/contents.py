"""All that a checkpoint of an optimizer holds, by key."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from fastadam.serializers.dictionary import DictionarySerializer
from fastadam.update.hooks import hooks_of
from fastadam.update.hyperparameter import plain
from fastadam.update.loss_scale import MISSING_GRADIENTS, ON_NONFINITE
from fastadam.update.optimizer import target_of
from fastadam.update.rule_state import uses_master
from fastadam.update.target import ArrayTarget, Target

__all__ = [
    "GROUP",
    "HOOK",
    "HOOKS",
    "HYPERPARAM",
    "LATER",
    "OPTIMIZER",
    "OURS",
    "RULE",
    "SETTINGS",
    "TARGET",
    "contents",
    "hook_names",
    "own_hooks",
    "rules_of",
    "saved_link",
    "stateless_key",
    "target_values",
]

# The sections of a file. In the first two the layout is Chainer's.
OPTIMIZER = "optimizer/"
TARGET = "target/"
OURS = "fastadam/"
HYPERPARAM = "fastadam/hyperparam/"
HOOK = "fastadam/hook/"
RULE = "fastadam/rule/"
HOOKS = "fastadam/hooks"
# of optimizers whose hyperparameters are those of groups of parameters
GROUP = "fastadam/group/"

# Settings of an optimizer that are neither counts nor hyperparameters, with what they may be: a
# truth value where that is not told.
SETTINGS: dict[str, tuple[str, tuple[str, ...]]] = {
    "fastadam/settings/on_nonfinite": ("on_nonfinite", ON_NONFINITE),
    "fastadam/settings/missing_gradients": ("missing_gradients", MISSING_GRADIENTS),
    "fastadam/settings/monitor": ("monitor", ()),
    "fastadam/settings/use_fp32_update": ("_use_fp32_update", ()),
}

# What files of the first version lack, all of it; every other has all of it.
LATER = (HOOKS, "fastadam/settings/missing_gradients")


def contents(opt: Any, parameters: bool) -> dict[str, Any]:
    """Return what is saved of a set-up optimizer, with the target's values or not; not copied.

    Values that files do not take are for whoever writes them to refuse.
    """
    values: dict[str, Any] = {}
    DictionarySerializer(values, OPTIMIZER).save(opt)
    if parameters:
        values.update(target_values(target_of(opt)))
    for key, (name, _) in SETTINGS.items():
        values[key] = getattr(opt, name)
    for name, value in vars(opt.hyperparam).items():
        values[HYPERPARAM + name] = plain(value)
    for path, rule in rules_of(opt):
        for name, value in vars(rule.hyperparam).items():
            values[f"{RULE}{path}/hyperparam/{name}"] = plain(value)
        values[f"{RULE}{path}/enabled"] = bool(rule.enabled)
        values[f"{RULE}{path}/use_fp32_update"] = uses_master(rule)
        # the rule's own entry is Chainer's way, and leaves it out where it is today's alpha
        first = vars(rule).get("initial_alpha")
        if first is not None:
            values[f"{RULE}{path}/initial_alpha"] = float(first)
        # every other rule that has been counted has one: without this, it would be missing
        if rule.t and rule.state is None:
            values[stateless_key(path)] = True
    values[HOOKS] = json.dumps(hook_names(opt))
    for _, prefix, hook in own_hooks(opt):
        DictionarySerializer(values, prefix).save(hook)
    return values


def hook_names(opt: Any) -> list[str]:
    """Return the names of all hooks, those of rules with the path of the parameter before them."""
    return [name for name, _, _ in _hooks(opt)]


def own_hooks(opt: Any) -> Iterator[tuple[str, str, Any]]:
    """Yield the hooks that have a state of their own.

    Each comes with its name, as `hook_names` has it, and with what its keys begin with.
    """
    return (each for each in _hooks(opt) if callable(getattr(each[2], "serialize", None)))


def _hooks(opt: Any) -> Iterator[tuple[str, str, Any]]:
    for _, name, hook in hooks_of(opt):
        yield name, f"{HOOK}{name}/", hook
    for path, rule in rules_of(opt):
        for _, name, hook in hooks_of(rule):
            yield f"{path}: {name}", f"{RULE}{path}/hook/{name}/", hook


def rules_of(opt: Any) -> Iterator[tuple[str, Any]]:
    """Yield fastadam's own rules with their paths."""
    for path, param in target_of(opt).parameters.items():
        rule = getattr(param, "update_rule", None)
        if rule is not None and hasattr(rule, "hyperparam") and uses_master(rule) is not None:
            yield path, rule


def stateless_key(path: str) -> str:
    """Return the key that says of a rule that it has been counted, and has no state."""
    return f"{RULE}{path}/stateless"


def saved_link(targets: Target) -> Any:
    """Return the link that saves and loads the parameters itself; None for arrays by name."""
    link: Any = getattr(targets, "link", None)
    is_one = not isinstance(targets, ArrayTarget) and callable(getattr(link, "serialize", None))
    return link if is_one else None


def target_values(targets: Target) -> dict[str, Any]:
    """Return the values of parameters, and of what else a link keeps."""
    link = saved_link(targets)
    if link is None:
        arrays = {path: param.array for path, param in targets.parameters.items()}
        return {
            TARGET + path: np.array(None, dtype=object) if array is None else array
            for path, array in {**arrays, **targets.kept()}.items()
        }
    values: dict[str, Any] = {}
    link.serialize(DictionarySerializer(values, TARGET))
    return values
