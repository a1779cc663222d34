"""``Adam`` and ``AdamW`` in the place of PyTorch's."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch

from fastadam.algorithms.number import check_truth
from fastadam.torch.clipping import clipping
from fastadam.torch.stepping import KernelStep

__all__ = ["Adam", "AdamW", "take_options"]


class Adam(KernelStep, torch.optim.Adam):
    """``torch.optim.Adam``, stepped by fastadam's kernels.

    The arguments are PyTorch's, and these. ``foreach`` and ``fused`` choose between PyTorch's
    implementations, and are accepted; ``capturable`` and ``differentiable`` are refused.

    With gradient ``g`` at step ``t = 1, 2, ...``::

        g   = clip(g, -max_grad_value, max_grad_value)
        g   = g * min(1, max_grad_norm / (norm of all g + 1e-6))
        g   = -g                          with maximize
        g   = g + weight_decay * p        or p = (1 - lr * weight_decay) * p, if it is decoupled
        m  += (1 - beta1) * (g - m)
        v  += (1 - beta2) * (g*g - v)
        p  -= lr / (1 - beta1**t) * m / (sqrt(v / (1 - beta2**t)) + eps)

    With ``amsgrad`` the largest ``v`` so far stands below the root. Moments of half-precision
    parameters are float32.

    Parameters
    ----------
    params : iterable
        As PyTorch takes them: parameters, named parameters, or groups.
    *args, **kwargs
        PyTorch's ``lr``, ``betas``, ``eps``, ``weight_decay``, ``amsgrad``, ``maximize``,
        ``decoupled_weight_decay``, ... in its order, with its defaults.
    max_grad_norm : float, optional
        The largest norm of all gradients together, as ``clip_grad_norm_`` bounds it. The gradients
        in ``p.grad`` stay what they are.
    max_grad_value : float, optional
        The largest element of a gradient, as ``clip_grad_value_`` bounds it; before the norm.
    master_weights : bool, optional
        Whether float16 and bfloat16 parameters are stepped through float32 masters, which are kept
        in the state.

    Raises
    ------
    TypeError, ValueError
        As PyTorch, and for ``capturable=True`` and ``differentiable=True``.

    Examples
    --------
    >>> import torch
    >>> import fastadam.torch
    >>> model = torch.nn.Linear(3, 2)
    >>> opt = fastadam.torch.Adam(model.parameters(), lr=0.01, max_grad_norm=1.0)
    >>> model(torch.ones(3)).sum().backward()
    >>> opt.step()
    >>> opt.zero_grad()
    """

    def __init__(
        self,
        params: Any,
        *args: Any,
        max_grad_norm: float | None = None,
        max_grad_value: float | None = None,
        master_weights: bool = False,
        **kwargs: Any,
    ) -> None:
        take_options(self, max_grad_norm, max_grad_value, master_weights)
        super().__init__(params, *args, **kwargs)


class AdamW(KernelStep, torch.optim.AdamW):
    """``torch.optim.AdamW``, stepped by fastadam's kernels.

    All is as `Adam` says, and weight decay is decoupled: ``p = (1 - lr * weight_decay) * p`` comes
    before the step, and the moments do not see it.

    Parameters
    ----------
    params : iterable
        As PyTorch takes them: parameters, named parameters, or groups.
    *args, **kwargs
        PyTorch's ``lr``, ``betas``, ``eps``, ``weight_decay``, ``amsgrad``, ``maximize``, ... in
        its order, with its defaults.
    max_grad_norm, max_grad_value, master_weights
        As for `Adam`.

    Raises
    ------
    TypeError, ValueError
        As for `Adam`.

    Examples
    --------
    >>> import torch
    >>> import fastadam.torch
    >>> p = torch.nn.Parameter(torch.ones(2))
    >>> opt = fastadam.torch.AdamW([p], lr=0.1, weight_decay=0.5)
    >>> p.grad = torch.zeros(2)
    >>> opt.step()
    >>> p.data
    tensor([0.9500, 0.9500])
    """

    _decoupled = True

    def __init__(
        self,
        params: Any,
        *args: Any,
        max_grad_norm: float | None = None,
        max_grad_value: float | None = None,
        master_weights: bool = False,
        **kwargs: Any,
    ) -> None:
        take_options(self, max_grad_norm, max_grad_value, master_weights)
        super().__init__(params, *args, **kwargs)


def take_options(
    optimizer: KernelStep, norm: float | None, value: float | None, masters: bool
) -> None:
    """Take over what an optimizer has beside PyTorch's arguments.

    Parameters
    ----------
    optimizer : KernelStep
        Gets the attributes.
    norm, value : float or None
        The bounds of gradients.
    masters : bool
        Whether half-precision parameters have float32 masters.

    Raises
    ------
    TypeError, ValueError
        If a bound is none, or `masters` no truth value.
    """
    clipping(norm, value)
    check_truth(masters, "master_weights")
    optimizer.max_grad_norm, optimizer.max_grad_value = norm, value
    optimizer.master_weights = bool(masters)


def _signed(init: Callable[..., None], like: Callable[..., None]) -> None:
    """Give a method the signature of another one, and the keywords that it has itself.

    Trainers read there which arguments an optimizer knows.
    """
    theirs, ours = inspect.signature(like), inspect.signature(init)
    own = [each for each in ours.parameters.values() if each.kind is each.KEYWORD_ONLY]
    init.__signature__ = theirs.replace(  # type: ignore[attr-defined]
        parameters=[*theirs.parameters.values(), *own]
    )


_signed(Adam.__init__, torch.optim.Adam.__init__)
_signed(AdamW.__init__, torch.optim.AdamW.__init__)
