"""The plan of a step of which anything is on a GPU."""

from __future__ import annotations

from typing import Any

import torch

from fastadam.kernels.multi_tensor import MultiTensorStep
from fastadam.kernels.ops import ADD, Op
from fastadam.torch.clipping import Clipping, GpuNorm, Norm, clipped_on_gpu, clipping
from fastadam.torch.gpu import (
    is_on_gpu,
    on_current_streams,
    recorded,
    refuse_capture,
    require_gpu,
)
from fastadam.torch.graphs import CapturedStep
from fastadam.torch.plan import TensorPlan
from fastadam.torch.states import is_half
from fastadam.torch.tensors import Array, computing, is_sharded, local_of, named, no_memory

__all__ = ["GpuPlan", "plan_of"]

# What can become part of a graph.
_REPEATED = (
    "what is captured is a step made again, of parameters on one GPU that share no memory with one "
    "another or with gradients, and not in parts by step_in_backward. Make a step with gradients "
    "of the same parameters before the capture begins"
)


def plan_of(optimizer: Any, decoupled: bool, masters: bool) -> TensorPlan:
    """Return the plan of an optimizer's next step, by where its tensors are.

    Parameters
    ----------
    optimizer, decoupled, masters
        As for `TensorPlan`.

    Raises
    ------
    TypeError, ValueError, RuntimeError
        If no step can be made: nothing has changed.
    """
    devices: set[int] = set()
    for number, group in enumerate(optimizer.param_groups):
        for i, param in enumerate(group["params"]):
            if is_on_gpu(param) and param.grad is not None and param.device.index not in devices:
                require_gpu(named(optimizer.param_groups, number, i), param)
                devices.add(param.device.index)
    if not devices:
        return TensorPlan(optimizer, decoupled, masters)
    return GpuPlan(optimizer, decoupled, masters, sorted(devices))


class GpuPlan(TensorPlan):
    """The step of parameters of which some are on GPUs, and some may be on the CPU.

    All is launched on PyTorch's current streams, and nothing is waited for. What has no gradient is
    left out, so that another plan is made when others have one.

    Parameters
    ----------
    optimizer, decoupled, masters
        As for `TensorPlan`.
    devices : list of int
        The GPUs.
    """

    _on_gpu = True

    def __init__(self, optimizer: Any, decoupled: bool, masters: bool, devices: list[int]) -> None:
        self._devices = devices
        self._bounds = clipping(optimizer.max_grad_norm, optimizer.max_grad_value)
        # which set of coefficients each parameter has, as it was described
        self._sets_of: list[int] | None = None
        refuse_capture(devices, _REPEATED)
        with on_current_streams(devices):
            super().__init__(optimizer, decoupled, masters)

    def refresh(self, optimizer: Any) -> bool:
        """Read everything for the next step; False if it is to be described anew.

        Parameters
        ----------
        optimizer : torch.optim.Optimizer
            The one that this was made of.
        """
        self._bounds = clipping(optimizer.max_grad_norm, optimizer.max_grad_value)
        with on_current_streams(self._devices):
            self.recording = recorded(self._devices) is not None
            if self.recording:
                self._refuse_numbers_on_gpu()
            return super().refresh(optimizer)

    def _refuse_numbers_on_gpu(self) -> None:
        """Refuse to read a number from a GPU while nothing may be waited for."""
        for number, group in enumerate(self._groups):
            for key, value in group.items():
                parts = value if isinstance(value, tuple | list) and key != "params" else (value,)
                if any(map(is_on_gpu, parts)):
                    refuse_capture(
                        self._devices,
                        f"{key!r} of param_groups[{number}] is a tensor on a GPU, which the host "
                        "would have to wait for. Make it a number, or a tensor on the CPU",
                    )

    def run(self, bounds: Clipping | None) -> Norm | GpuNorm | None:
        """Launch the step that has been read, and return the norm if there is a bound of it.

        Parameters
        ----------
        bounds : Clipping or None
            Of the gradients.
        """
        with on_current_streams(self._devices):
            return super().run(bounds)

    def capture(self, bounds: Clipping | None) -> CapturedStep:
        """Launch the step that has been read into a CUDA graph; it is neither made nor counted.

        Parameters
        ----------
        bounds : Clipping or None
            Of the gradients.

        Raises
        ------
        RuntimeError
            If it cannot be captured.
        """
        steps = self._steps
        assert steps is not None
        if not steps.gpu.begin_capture():
            refuse_capture(self._devices, _REPEATED)
        gradients = [row.param.grad for row in self._rows]
        replaced = dict(self._source.replaced)
        try:
            with on_current_streams(self._devices):
                norm = self._prepare(steps, bounds)
                if self._forgets:
                    self._forget()
                steps.gpu.capture()
                self._put_back()
        finally:
            self._source.let_go()
        return CapturedStep(self, gradients, replaced, self._captured(), norm)

    def replay(self, optimizer: Any, step: CapturedStep) -> bool:
        """Count a captured step, and write its scalars to where its graph reads them.

        Parameters
        ----------
        optimizer : torch.optim.Optimizer
            The one that this was made of.
        step : CapturedStep
            The step.

        Returns
        -------
        bool
            False, and nothing has changed, if it is no longer what there is to step.
        """
        source, steps = self._source, self._steps
        assert steps is not None
        self._bounds = clipping(optimizer.max_grad_norm, optimizer.max_grad_value)
        source.captured, source.replaced = step.gradients, dict(step.replaced)
        try:
            with on_current_streams(self._devices):
                if (
                    not self._read_counts(optimizer)
                    or self._captured() != step.settings
                    or source.numbers() != self._sets_of
                    or not steps.refresh(self._coefficients())
                ):
                    return False
                steps.replay(
                    optimizer.__dict__,
                    {"_last": [(self.sets, step.norm, None, self.names, [])]},
                    (),
                )
        finally:
            source.let_go()
        return True

    def may_follow(self, optimizer: Any, step: CapturedStep) -> bool:
        """Tell whether a captured step of this plan can be the next one.

        Parameters
        ----------
        optimizer : torch.optim.Optimizer
            The one that this was made of.
        step : CapturedStep
            The step.
        """
        self._bounds = clipping(optimizer.max_grad_norm, optimizer.max_grad_value)
        self._source.captured = step.gradients
        try:
            return self._read_counts(optimizer) and self._captured() == step.settings
        finally:
            self._source.let_go()

    def forget_graphs(self) -> None:
        """Let go of what graphs read."""
        if self._steps is not None:
            self._steps.gpu.forget()

    def _captured(self) -> tuple[Any, ...]:
        """Return what is part of a graph, but for memory."""
        each = [(numbers.ops, numbers.forgotten) for numbers in self._numbers]
        return self._bounds, each

    def _prepare(self, steps: MultiTensorStep, bounds: Clipping | None) -> Norm | GpuNorm | None:
        if bounds is not None and bounds.norm is not None:
            return clipped_on_gpu(steps, bounds.norm)
        if steps.prepared:
            steps.leave_gradients()
        return None

    def _describe(self, arrays: list[list[Array | None]]) -> None:
        super()._describe(arrays)
        assert self._steps is not None
        self.lasts = self._steps.steady
        if not self.lasts and self._masters and any(is_half(row.param) for row in self._rows):
            raise ValueError(
                "parameters on a GPU share memory with one another or with gradients, which is not "
                "done with master_weights: give the optimizer clones"
            )

    def _take_gradients(self) -> bool:
        if self._source.absent:
            return False
        numbers = self._source.numbers()
        if self._sets_of is None:
            self._sets_of = numbers
        if numbers != self._sets_of:
            # a launch knows of one division of its parameters
            return False
        self._refuse_bound_of_norm()
        value = self._bounds is not None and self._bounds.value is not None
        changes = value or any(self._numbers[row.group].ops for row in self._rows)
        places = [*range(len(self._rows))] if changes else sorted(self._odd)
        grads = [self._plain(k, self._rows[k].param.grad) for k in places]
        for k, grad in zip(places, self._changed(places, grads), strict=True):
            self._source.replaced[k] = self._array_over(k, grad)
        return True

    def _refuse_bound_of_norm(self) -> None:
        """Refuse a bound of the norm that cannot be kept on the way of this step."""
        if self._bounds is None or self._bounds.norm is None:
            return
        places = {str(row.param.device) for row in self._rows}
        why = ""
        if len(places) > 1:
            why = f"the gradients are in several places ({', '.join(sorted(places))})"
        elif any(op.kind == ADD for row in self._rows for op in self._numbers[row.group].ops):
            why = "the weight decay of a group comes between it and the step, as in Adam"
        elif not self.lasts:
            why = "parameters or gradients share memory"
        if why:
            raise ValueError(
                f"max_grad_norm cannot be used on a GPU here: {why}. Call "
                "torch.nn.utils.clip_grad_norm_ before the step"
            )

    def _gradient(self, k: int, grad: torch.Tensor) -> Array:
        (changed,) = self._changed([k], [self._plain(k, grad)])
        return self._array_over(k, changed)

    def _array_over(self, k: int, grad: torch.Tensor) -> Array:
        """Return the array over a gradient."""
        array = self._array_of(grad)
        if array is None:
            raise TypeError(f"the gradient of parameter {self.names[k]!r}: {no_memory(grad)}")
        return array

    def _plain(self, k: int, grad: Any) -> torch.Tensor:
        """Return a gradient as the kernels walk it: itself, or a copy, which is noted."""
        row, given = self._rows[k], self._local_gradient(k, grad)
        param, like = local_of(row.param), local_of(row.state["exp_avg"])
        if given.shape != param.shape or given.device != param.device:
            raise ValueError(
                f"the gradient of parameter {row.name!r} has the shape {tuple(given.shape)}, on "
                f"{given.device}, and the parameter {tuple(param.shape)}, on {param.device}"
            )
        if given.layout is not torch.strided or given.is_complex() != param.is_complex():
            raise TypeError(f"the gradient of parameter {row.name!r}: {no_memory(given)}")
        plain = given.detach()
        if plain._is_zerotensor():
            plain = plain.clone()
        plain = plain.resolve_conj().resolve_neg()
        if plain.dtype not in (param.dtype, like.dtype):
            plain = plain.to(computing(param.dtype))
        plain = _laid_out(plain, like)
        if is_sharded(grad) or (plain.data_ptr(), plain.dtype) != (given.data_ptr(), given.dtype):
            self._odd.add(k)
        return plain

    def _changed(self, places: list[int], grads: list[torch.Tensor]) -> list[torch.Tensor]:
        """Return gradients as the step is to see them: clipped by value, and by their groups."""
        found = dict(zip(places, grads, strict=True))
        together: dict[tuple[int, torch.device], list[int]] = {}
        for k in places:
            together.setdefault((self._rows[k].group, found[k].device), []).append(k)
        for (number, _), own in together.items():
            ops = self._numbers[number].ops
            bound = None if self._bounds is None else self._bounds.value
            if bound is None and not ops:
                continue
            part = [_reals(found[k]) for k in own]
            if bound is not None:
                part = torch._foreach_clamp_max(torch._foreach_clamp_min(part, -bound), bound)
            for op in ops:
                part = self._applied(op, own, part)
            # they lie as the gradients do
            found.update(zip(own, part, strict=True))
        return [found[k] for k in places]

    def _applied(self, op: Op, places: list[int], grads: list[torch.Tensor]) -> list[torch.Tensor]:
        """Return what an operation of a group makes of gradients."""
        if op.kind == ADD:
            params = [_reals(local_of(self._rows[k].param).detach()) for k in places]
            return list(torch._foreach_add(grads, params, alpha=op.a))
        return list(torch._foreach_mul(grads, op.b))


def _reals(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor, or the parts of complex numbers."""
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def _laid_out(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return a tensor whose elements lie as those of another do: itself, or a copy."""
    if tensor.stride() == like.stride():
        return tensor
    return torch.empty_like(like, dtype=tensor.dtype).copy_(tensor)
