"""``AdaBound`` and ``AMSBound`` in PyTorch's form: PyTorch has none of its own."""

from __future__ import annotations

from typing import Any

import torch

from fastadam.torch.optimizers import take_options
from fastadam.torch.stepping import KernelStep
from fastadam.torch.tensors import refuse_freed

__all__ = ["AMSBound", "AdaBound"]


class AdaBound(KernelStep):
    """AdaBound (Luo et al., 2019) on PyTorch's tensors, by fastadam's kernels.

    Each element's step size is kept between two bounds that approach `final_lr`, so that training
    begins as Adam's and ends as SGD's::

        m    += (1 - beta1) * (g - m)
        v    += (1 - beta2) * (g*g - v)
        final = final_lr * lr / base_lr
        step  = lr * sqrt(1 - beta2**t) / (1 - beta1**t) / (sqrt(v) + eps)
        step  = clip(step, final * (1 - 1 / (gamma*t + 1)), final * (1 + 1 / (gamma*t)))
        p    -= step * m

    ``base_lr`` is the `lr` with which a group was added, or the first after it that is not 0, so
    that a schedule moves the bounds, too. It is kept in the group.

    Parameters
    ----------
    params : iterable
        Parameters, named parameters, or groups.
    lr : float or torch.Tensor
        The learning rate.
    betas : tuple of float
        The decays of the two moments.
    eps : float
        Added to the root.
    weight_decay : float
        Added to the gradient, times the parameter; with `decoupled_weight_decay`, ``lr *
        weight_decay`` of a parameter is taken away instead.
    final_lr : float
        What the step sizes end at.
    gamma : float
        How fast they get there.
    amsgrad : bool
        Whether the largest ``v`` so far stands below the root: AMSBound.
    maximize : bool
        Whether to climb.
    decoupled_weight_decay : bool
        See `weight_decay`.
    foreach, fused : bool, optional
        Accepted, for programs that set them for any optimizer; they choose nothing.
    max_grad_norm, max_grad_value, master_weights
        As for `Adam`.

    Raises
    ------
    TypeError, ValueError
        If an argument is out of its range, as PyTorch's optimizers say it.

    Examples
    --------
    >>> import torch
    >>> import fastadam.torch
    >>> p = torch.nn.Parameter(torch.ones(2))
    >>> opt = fastadam.torch.AdaBound([p], lr=0.01, final_lr=0.1)
    >>> p.grad = torch.ones(2)
    >>> opt.step()
    >>> p.data
    tensor([0.9900, 0.9900])
    """

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        *,
        final_lr: float = 0.1,
        gamma: float = 1e-3,
        amsgrad: bool = False,
        maximize: bool = False,
        decoupled_weight_decay: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
        max_grad_norm: float | None = None,
        max_grad_value: float | None = None,
        master_weights: bool = False,
    ) -> None:
        take_options(self, max_grad_norm, max_grad_value, master_weights)
        for name, value in (("learning rate", lr), ("epsilon value", eps)):
            if not value >= 0:
                raise ValueError(f"Invalid {name}: {value}")
        for i, beta in enumerate(betas):
            if not 0 <= beta < 1:
                raise ValueError(f"Invalid beta parameter at index {i}: {beta}")
        for name, value in (
            *(("weight_decay", weight_decay), ("final_lr", final_lr)),
            ("gamma", gamma),
        ):
            if not value >= 0:
                raise ValueError(f"Invalid {name} value: {value}")
        defaults = {
            "lr": lr,
            "betas": tuple(betas),
            "eps": eps,
            "weight_decay": weight_decay,
            "final_lr": final_lr,
            "gamma": gamma,
            "amsgrad": amsgrad,
            "maximize": maximize,
            "decoupled_weight_decay": decoupled_weight_decay,
            "foreach": foreach,
            "fused": fused,
        }
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters, whose `lr` becomes its ``base_lr`` unless it has one.

        Parameters
        ----------
        param_group : dict
            ``params``, and the options that are this group's own.

        Raises
        ------
        TypeError, ValueError
            As PyTorch.
        """
        base = None
        if isinstance(param_group, dict):
            base = _base_of({**self.defaults, **param_group}, len(self.param_groups))
        super().add_param_group(param_group)
        self.param_groups[-1]["base_lr"] = base

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for number, group in enumerate(self.param_groups):
            group["base_lr"] = _base_of(group, number)


class AMSBound(AdaBound):
    """AMSBound on PyTorch's tensors: `AdaBound` with ``amsgrad=True``.

    Parameters
    ----------
    params : iterable
        Parameters, named parameters, or groups.
    *args, **kwargs
        As for `AdaBound`.

    Raises
    ------
    TypeError, ValueError
        As for `AdaBound`.

    Examples
    --------
    >>> import torch
    >>> import fastadam.torch
    >>> p = torch.nn.Parameter(torch.ones(2))
    >>> opt = fastadam.torch.AMSBound([p], lr=0.01, gamma=0.5)
    >>> p.grad = torch.full((2,), 0.5)
    >>> opt.step()
    >>> sorted(opt.state[p])
    ['exp_avg', 'exp_avg_sq', 'max_exp_avg_sq', 'step']
    """

    def __init__(self, params: Any, *args: Any, amsgrad: bool = True, **kwargs: Any) -> None:
        super().__init__(params, *args, amsgrad=amsgrad, **kwargs)


def _base_of(group: dict[str, Any], number: int) -> Any:
    """Return the `lr` that a group has begun with; unless that is known, it begins now."""
    if "base_lr" in group:
        return group["base_lr"]
    lr = group["lr"]
    if not isinstance(lr, torch.Tensor):
        return lr
    refuse_freed(f"lr of param_groups[{number}]", lr)
    return lr.item()
