"""What the groups of parameters say: the numbers of a step, and what is done to its gradients."""

from __future__ import annotations

from typing import Any

import torch

from fastadam.algorithms.adam import Coefficients
from fastadam.algorithms.coefficients import Constants, coefficients_at
from fastadam.kernels.ops import ADD, MULTIPLY, Op
from fastadam.torch._items import Items
from fastadam.torch.tensors import refuse_freed

__all__ = ["Numbers", "refuse_incomplete", "refuse_options"]

# Options of PyTorch's that there is nothing for here.
_REFUSED = ("capturable", "differentiable")

# What is read of a group, but for its betas.
_READ = (
    *("lr", "eps", "weight_decay", "amsgrad", "maximize", "decoupled_weight_decay"),
    *("final_lr", "gamma", "base_lr", *_REFUSED),
)

# What every group has.
_NEEDED = ("lr", "betas", "eps", "weight_decay")

# Types of values that do not change in place.
_PLAIN = (float, int, bool, type(None))


class Numbers:
    """The numbers of one group, read anew from it where any of them may be another one.

    Parameters
    ----------
    name : str
        The optimizer's, for messages.
    number : int
        Which group it is.
    group : dict
        One of the optimizer's ``param_groups``.
    decoupled : bool
        Whether weight decay is AdamW's where the group, of an older PyTorch, does not say it.
    """

    def __init__(self, name: str, number: int, group: dict[str, Any], decoupled: bool) -> None:
        self.group = group
        self._name, self._number = name, number
        self._decoupled = decoupled
        # what the group held, if none of it can change in place
        self.seen: Items | None = None
        self.amsgrad = False
        # what is done to the gradients: -g for maximize, g + weight_decay * p where it is in them
        self.ops: list[Op] = []
        # streams of which nothing is left in the step: their beta is 0
        self.forgotten: tuple[str, ...] = ()
        self._constants: Constants
        self._initial: float | None = None

    def read(self) -> None:
        """Read the group.

        Raises
        ------
        ValueError
            If the group asks for something that there is not, lacks a number, or has one that is
            out of range.
        TypeError
            If something is no number.
        """
        group, where = self.group, f"param_groups[{self._number}]"
        refuse_options(self._name, where, group)
        missing = [key for key in _NEEDED if key not in group]
        if missing:
            raise ValueError(f"{where} has no {' and no '.join(map(repr, missing))}")
        betas = tuple(group["betas"])
        lr, beta1, beta2 = self._number_of("lr", group["lr"]), *self._betas(betas)
        eps = self._number_of("eps", group["eps"])
        decay = self._number_of("weight_decay", group["weight_decay"])
        if not eps >= 0:
            raise ValueError(f"{where}: eps = {eps!r} must be at least 0")
        bounded = "final_lr" in group
        decoupled = group.get("decoupled_weight_decay", self._decoupled)
        self.amsgrad = bool(group.get("amsgrad", False))
        self._constants = Constants(
            alpha=lr,
            beta1=beta1,
            beta2=beta2,
            eps=eps,
            eta=1.0,
            decay=lr * decay if decoupled else 0.0,
            amsgrad=self.amsgrad,
            adabound=bounded,
            final_lr=self._number_of("final_lr", group["final_lr"]) if bounded else 0.0,
            gamma=self._number_of("gamma", group["gamma"]) if bounded else 0.0,
            # AdaBound's authors have eps beside the root as it is
            paper=not bounded,
        )
        self._initial = self._number_of("base_lr", group["base_lr"]) if bounded else None
        if self._initial == 0:
            # a warm-up from 0: the first that is not
            group["base_lr"] = self._initial = lr
        self.ops = [Op(MULTIPLY, b=-1.0)] if group.get("maximize") else []
        if decay and not decoupled:
            self.ops.append(Op(ADD, decay))
        self.forgotten = tuple(
            key for key, beta in (("exp_avg", beta1), ("exp_avg_sq", beta2)) if beta == 0
        )
        # a tensor, and a list, may change in place
        lasting = type(group["betas"]) is tuple and all(
            isinstance(value, _PLAIN) for value in (*(group.get(key) for key in _READ), *betas)
        )
        self.seen = Items(group) if lasting else None

    def _betas(self, betas: tuple[Any, ...]) -> tuple[float, float]:
        """Return both betas, checked."""
        where = f"param_groups[{self._number}]"
        if len(betas) != 2:
            raise ValueError(f"{where}: betas must be two numbers, not {betas!r}")
        beta1, beta2 = (self._number_of("betas", beta) for beta in betas)
        if not (0 <= beta1 < 1 and 0 <= beta2 < 1):
            raise ValueError(
                f"{where}: betas are {beta1!r} and {beta2!r}; both must be at least 0 and below 1"
            )
        return beta1, beta2

    def _number_of(self, key: str, value: Any) -> float:
        """Return a number, or what a tensor of one element holds."""
        if isinstance(value, torch.Tensor):
            refuse_freed(f"{key} of param_groups[{self._number}]", value)
        try:
            return float(value.item() if isinstance(value, torch.Tensor) else value)
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(
                f"param_groups[{self._number}]: {key} must be a number, or a tensor of one "
                f"element, not {value!r}"
            ) from error

    def coefficients(self, t: int) -> Coefficients:
        """Return the scalars of step `t`.

        Raises
        ------
        ValueError
            If no step can be made with these numbers.
        """
        if t < 1:
            raise ValueError(
                f"a state of param_groups[{self._number}] has the step {t - 1}, below 0"
            )
        return coefficients_at(self._constants, t, self._initial)


def refuse_options(name: str, where: str, group: dict[str, Any]) -> None:
    """Refuse options that there is nothing for.

    Parameters
    ----------
    name : str
        The optimizer's class.
    where : str
        What has the options, for messages.
    group : dict
        The options.

    Raises
    ------
    ValueError
        With the way to do without.
    """
    for key in _REFUSED:
        if group.get(key):
            raise ValueError(
                f"fastadam.torch.{name} has no {key}=True ({where}); leave it out, or set "
                f"group[{key!r}] = False"
            )


def refuse_incomplete(name: str, groups: list[dict[str, Any]], defaults: dict[str, Any]) -> None:
    """Refuse groups of a state dict that lack what a step needs.

    Parameters
    ----------
    name : str
        The optimizer's.
    groups : list of dict
        The groups.
    defaults : dict
        The optimizer's, which say whether it bounds its rates.

    Raises
    ------
    ValueError
        If a group lacks a number.
    """
    bounds = tuple(key for key in ("final_lr", "gamma") if key in defaults)
    for number, group in enumerate(groups):
        missing = [key for key in (*_NEEDED, *bounds) if key not in group]
        if missing:
            raise ValueError(
                f"param_groups[{number}] of the loaded state dict has no "
                f"{' and no '.join(map(repr, missing))}: it is not that of {name}"
            )
