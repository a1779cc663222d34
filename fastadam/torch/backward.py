"""Steps while gradients arrive: a backward pass holds those of one bucket, not all."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import torch

from fastadam.torch.stepping import KernelStep
from fastadam.torch.tensors import named

__all__ = ["BackwardSteps", "step_in_backward"]


class BackwardSteps:
    """What `step_in_backward` returns.

    Parameters
    ----------
    optimizer : KernelStep
        The optimizer.
    bucket_bytes : int
        Bytes of gradients that are gathered before a step.
    """

    def __init__(self, optimizer: KernelStep, bucket_bytes: int) -> None:
        # the hooks of parameters hold this, and must not hold the optimizer
        self._reference = weakref.ref(optimizer)
        self._bucket_bytes = bucket_bytes
        self._handles: list[Any] = []
        self._bytes = 0
        # the parameters whose gradients have arrived in this bucket, and that were stepped before
        self._arrived: set[int] = set()
        self._stepped: set[int] = set()

    @property
    def _optimizer(self) -> KernelStep:
        optimizer = self._reference()
        assert optimizer is not None
        return optimizer

    def watch(self, params: Iterable[torch.Tensor]) -> None:
        """Step these parameters, too, when their gradients arrive.

        Parameters
        ----------
        params : iterable of torch.Tensor
            Parameters of the optimizer. What needs no gradient is left out.
        """
        for param in params:
            if param.requires_grad:
                self._handles.append(param.register_post_accumulate_grad_hook(self._arrive))

    def remove(self) -> None:
        """Let the optimizer step in its own `step` again, with all gradients."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        optimizer = self._reference()
        # it may step for another one by now
        if optimizer is not None and optimizer.steps_in_backward_by(self):
            optimizer.step_in_backward_by(None)

    def _arrive(self, param: torch.Tensor) -> None:
        """Take in that the gradient of a parameter is there."""
        if self._reference() is None:
            self.remove()
            return
        self.refuse_options()
        if id(param) in self._stepped or id(param) in self._arrived:
            raise RuntimeError(
                f"a second gradient of parameter {self._name(param)!r} has arrived before "
                "optimizer.step(): with step_in_backward the first has been used, or may have "
                "been. Call step() after each backward pass, or give the sum of the losses to one"
            )
        self._arrived.add(id(param))
        grad = param.grad
        assert grad is not None
        self._bytes += grad.numel() * grad.element_size()
        if self._bytes >= self._bucket_bytes:
            self._flush()

    def _flush(self) -> None:
        """Step what has arrived, and free its gradients."""
        self._optimizer.step_gradients(first=not self._stepped)
        self._optimizer.zero_grad()
        self._stepped |= self._arrived
        self._arrived.clear()
        self._bytes = 0

    def finish(self) -> None:
        """Step what is left; the next backward pass may come."""
        try:
            self.refuse_options()
            self._flush()
        finally:
            self._stepped.clear()
            self._arrived.clear()
            self._bytes = 0

    def refuse_half_way(self) -> None:
        """Refuse what needs all parameters before a step, or all after it.

        Raises
        ------
        RuntimeError
            If some have been stepped, and ``step()`` has not ended the pass.
        """
        if self._stepped:
            optimizer = self._optimizer
            total = sum(len(group["params"]) for group in optimizer.param_groups)
            raise RuntimeError(
                f"this {type(optimizer).__name__} is half-way in an update: step_in_backward has "
                f"stepped {len(self._stepped)} of its {total} parameters. It can be saved, loaded, "
                "copied or compared again once optimizer.step() has ended the pass, or the "
                "handle's remove() has given it up"
            )

    def refuse_options(self) -> None:
        """Refuse what needs all gradients together, or before any of them is used.

        Raises
        ------
        RuntimeError
            With the option.
        """
        optimizer = self._optimizer
        if optimizer.max_grad_norm is not None:
            raise RuntimeError(
                "max_grad_norm needs all gradients before the first step, and step_in_backward "
                "uses them one bucket after the other; max_grad_value needs each alone"
            )
        if "grad_scale" in optimizer.__dict__ or "found_inf" in optimizer.__dict__:
            raise RuntimeError(
                "GradScaler looks at all gradients before a step, and step_in_backward has used "
                "them by then: train in bfloat16, which needs no scale, or without step_in_backward"
            )
        if optimizer.hooks_before_steps():
            raise RuntimeError(
                "a hook before steps would find the gradients of the last bucket only: take it "
                "away, or do without step_in_backward"
            )

    def _name(self, param: torch.Tensor) -> str:
        """Return what a parameter is called in messages."""
        groups = self._optimizer.param_groups
        for number, group in enumerate(groups):
            for i, other in enumerate(group["params"]):
                if other is param:
                    return named(groups, number, i)
        return "that is none of the optimizer's"


def step_in_backward(optimizer: KernelStep, bucket_bytes: int = 2**25) -> BackwardSteps:
    """Let an optimizer step parameters during the backward pass, as their gradients arrive.

    Gradients are gathered until they fill a bucket. Then their parameters are stepped, and the
    gradients are freed. So there are never more than those of a bucket, and of the parameter that
    filled it. ``optimizer.step()``, which is called as before, steps what is left.

    A bucket is stepped wholly or not at all; if something is refused, buckets before it have been
    stepped. Each parameter has one gradient between two calls of ``step()``: to add up those of
    several backward passes is refused. If a parameter is read in the pass after it was stepped,
    autograd raises, as it does for any tensor that was changed in place.

    Parameters
    ----------
    optimizer : Adam, AdamW, AdaBound or AMSBound
        Of this library. Its numbers are read at each bucket.
    bucket_bytes : int, optional
        How many bytes of gradients make a bucket; 0 steps each parameter alone.

    Returns
    -------
    BackwardSteps
        Its ``remove()`` ends it.

    Raises
    ------
    TypeError
        If `optimizer` is none of this library's, or `bucket_bytes` no integer.
    ValueError
        If `bucket_bytes` is below 0, or the optimizer steps in backward already.
    RuntimeError
        If it has `max_grad_norm`, or hooks before its steps. So do backward passes and steps, if
        these are set later; and a step by GradScaler.

    Examples
    --------
    >>> import torch
    >>> import fastadam.torch
    >>> model = torch.nn.Linear(3, 2)
    >>> opt = fastadam.torch.AdamW(model.parameters(), lr=0.01)
    >>> handle = fastadam.torch.step_in_backward(opt, bucket_bytes=0)
    >>> model(torch.ones(3)).sum().backward()
    >>> [p.grad for p in model.parameters()]
    [None, None]
    >>> opt.step()
    >>> handle.remove()
    """
    if not isinstance(optimizer, KernelStep):
        raise TypeError(
            "step_in_backward takes an optimizer of fastadam.torch, not "
            f"{type(optimizer).__module__}.{type(optimizer).__qualname__}"
        )
    if isinstance(bucket_bytes, bool) or not isinstance(bucket_bytes, int):
        raise TypeError(f"bucket_bytes must be an integer, not {type(bucket_bytes).__name__}")
    if bucket_bytes < 0:
        raise ValueError(f"bucket_bytes = {bucket_bytes} must be at least 0")
    steps = BackwardSteps(optimizer, bucket_bytes)
    steps.refuse_options()
    optimizer.step_in_backward_by(steps)
    for group in optimizer.param_groups:
        steps.watch(group["params"])
    return steps
