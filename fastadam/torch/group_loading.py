"""Prepare the load of groups: their numbers, and which parameters are in which."""

from __future__ import annotations

from typing import Any

import torch

from fastadam.checkpoint.contents import GROUP, RULE
from fastadam.checkpoint.source import Source
from fastadam.files.errors import CheckpointError
from fastadam.serializers.prepared import PreparedLoad
from fastadam.torch.groups import Numbers
from fastadam.torch.stored import TensorFills

__all__ = ["DECOUPLED", "UNSAVED", "prepare_groups"]

# What of a group is known by the parameters' keys.
UNSAVED = ("params", "param_names")

DECOUPLED = "decoupled_weight_decay"

# Without which there is no step, and what says which steps are made.
_DEMANDED = ("lr", "betas", "eps", "weight_decay", "amsgrad", "maximize", DECOUPLED)
_OF_BOUNDS = ("final_lr", "gamma", "base_lr")


def prepare_groups(
    prepared: PreparedLoad,
    source: Source,
    optimizer: Any,
    names: list[tuple[int, str, Any]],
    decoupled: bool,
    strict: bool,
) -> tuple[list[dict[str, Any]], list[torch.Tensor]]:
    """Read and check the values of all groups.

    Parameters
    ----------
    prepared : PreparedLoad
        What is going to set them.
    source : Source
        The file.
    optimizer : torch.optim.Optimizer
        The optimizer.
    names : list of (int, str, torch.Tensor)
        Group, name and tensor of every parameter.
    decoupled : bool
        Whether weight decay is AdamW's where a group does not say it.
    strict : bool
        Whether what is missing is an error.

    Returns
    -------
    tuple of list
        What the groups will be, with numbers in the place of tensors; and the tensors that are
        going to be written.

    Raises
    ------
    CheckpointError, KeyError, ValueError, TypeError
        If they do not fit.
    """
    groups = optimizer.param_groups
    _compare_members(source, len(groups), names, strict)
    fills = TensorFills(prepared)
    later: list[dict[str, Any]] = []
    for i, group in enumerate(groups):
        prefix = f"{GROUP}{i}/"
        bounded = "final_lr" in group
        _refuse_other_kind(source, type(optimizer).__name__, prefix, group, decoupled)
        for name in (*_DEMANDED, *(_OF_BOUNDS if bounded else ())):
            if name != "amsgrad" or not source.converts:
                source.demand(prefix + name, strict)
        plain: dict[str, Any] = {}
        for key in source.keys_under(prefix):
            name = key.removeprefix(prefix)
            if source.is_ignored(key) or name in UNSAVED:
                continue
            older = name == DECOUPLED and name not in group
            if older or (name == "amsgrad" and source.converts):
                source.pass_over(key)
                continue
            stored = source.value(key)
            plain[name] = TensorFills(PreparedLoad()).value(key, stored, None)
            prepared.entry(group, name, fills.value(key, stored, group.get(name)))
        later.append({**group, **plain})
        # what no step can be made with is refused here, and not by the next step
        Numbers(type(optimizer).__name__, i, dict(later[-1]), decoupled).read()
    return later, fills.tensors


def _compare_members(
    source: Source, n_groups: int, names: list[tuple[int, str, Any]], strict: bool
) -> None:
    """Refuse other groups than those that there are, and parameters that are in another one."""
    numbers = {key.removeprefix(GROUP).partition("/")[0] for key in source.keys_under(GROUP)}
    if strict and numbers != set(map(str, range(n_groups))):
        raise CheckpointError(
            f"{source.where} was saved with {len(numbers)} groups of parameters, and here are "
            f"{n_groups}: add the others with add_param_group, or leave what does not fit with "
            "strict=False"
        )
    for i, name, _ in names:
        key = f"{RULE}{name}/group"
        if source.demand(key, strict):
            saved = source.value(key)
            if saved.shape != () or saved.dtype.kind not in "iu" or int(saved) != i:
                raise ValueError(
                    f"parameter {name!r} is in group {saved} in the file, and in group {i} here"
                )


def _refuse_other_kind(
    source: Source, kind: str, prefix: str, group: dict[str, Any], decoupled: bool
) -> None:
    """Refuse a group of another of the family: Adam's, AdamW's, AdaBound's, or with AMSGrad."""
    bounded = "final_lr" in group
    if (prefix + "final_lr" in source) != bounded and prefix + "lr" in source:
        those = "AdaBound or AMSBound" if not bounded else "Adam or AdamW"
        raise CheckpointError(f"{source.where} was saved with {those}, and this is {kind}")
    own = {
        "amsgrad": bool(group.get("amsgrad", False)),
        DECOUPLED: bool(group.get(DECOUPLED, decoupled)),
    }
    for name, mine in own.items():
        key = prefix + name
        if key not in source or source.is_ignored(key) or (name == "amsgrad" and source.converts):
            continue
        theirs = source.value(key)
        if theirs.shape == () and theirs.dtype.kind == "b" and bool(theirs) == mine:
            continue
        advice = "make the optimizer with the same"
        if name == "amsgrad":
            advice += (
                ", or pass convert_amsgrad=True: max_exp_avg_sq is dropped, or begins with "
                "exp_avg_sq"
            )
        raise CheckpointError(
            f"{source.where} was saved with {name}={theirs}, and this {kind} has {name}={mine}: "
            f"{advice}"
        )
