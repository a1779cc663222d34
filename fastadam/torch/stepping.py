"""The step that PyTorch's classes are given, and all that belongs to it."""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd import profiler
from torch.compiler import is_compiling
from torch.optim import optimizer as torch_optimizer

from fastadam.torch.clipping import clipping
from fastadam.torch.gpu_plan import GpuPlan, plan_of
from fastadam.torch.graphs import CapturesSteps, refuse_captured_scaling
from fastadam.torch.groups import refuse_incomplete, refuse_options
from fastadam.torch.plan import TensorPlan
from fastadam.torch.report import Part, reported
from fastadam.torch.states import MASTER, restored
from fastadam.torch.tensors import named, reader
from fastadam.update.overrides import class_attribute
from fastadam.update.report import UpdateReport

__all__ = ["KernelStep"]

# What an optimizer has beside that of PyTorch.
_OWN = ("max_grad_norm", "max_grad_value", "master_weights")


class KernelStep(CapturesSteps, torch.optim.Optimizer):
    """A base of optimizers whose step is made by the kernels; PyTorch's class stands behind it.

    Attributes
    ----------
    max_grad_norm, max_grad_value : float or None
        The bounds of the gradients; they may be set anew before any step.
    master_weights : bool
        Whether half-precision parameters are stepped through float32 masters in the state.
    """

    max_grad_norm: float | None = None
    max_grad_value: float | None = None
    master_weights: bool = False
    # whether weight decay is AdamW's in groups of a PyTorch that did not say it there
    _decoupled = False
    _plan: TensorPlan | None = None
    # the parts of the last step, of which there is one unless it was made in backward
    _last: list[Part] | None = None
    _backward: Any = None

    @property
    def last_update(self) -> UpdateReport | None:
        """What the last step did; None before the first.

        Returns
        -------
        UpdateReport or None
            ``t`` is the number of the step of the parameter that has made most; ``skipped`` whether
            nothing was stepped, because GradScaler had found gradients that are not finite;
            ``grad_norm`` the norm before it was clipped, and ``nonfinite`` the parameters whose
            gradients are not finite, with `max_grad_norm` only; ``loss_scale`` what GradScaler
            handed over; ``applied`` the parameters that were stepped. They are called by their
            names in ``param_names``, or by their places.

        Examples
        --------
        >>> import torch
        >>> import fastadam.torch
        >>> p = torch.nn.Parameter(torch.zeros(2))
        >>> opt = fastadam.torch.Adam([('p', p)], max_grad_norm=1.0)
        >>> p.grad = torch.tensor([3.0, 4.0])
        >>> opt.step()
        >>> opt.last_update.grad_norm
        5.0
        >>> opt.last_update.applied
        ('p',)
        """
        return None if self._last is None else reported(self._last)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters; see ``torch.optim.Optimizer.add_param_group``.

        Parameters
        ----------
        param_group : dict
            ``params``, and the options that are this group's own.

        Raises
        ------
        ValueError
            If it asks for ``capturable`` or ``differentiable``; else as PyTorch.
        """
        if isinstance(param_group, dict):
            where = f"param_groups[{len(self.param_groups)}]"
            refuse_options(type(self).__name__, where, {**self.defaults, **param_group})
        super().add_param_group(param_group)
        if self._backward is not None:
            self._backward.watch(self.param_groups[-1]["params"])

    def __getstate__(self) -> dict[str, Any]:
        self.refuse_half_way()
        return {**super().__getstate__(), **{name: getattr(self, name) for name in _OWN}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.__dict__.pop("_plan", None)

    def state_dict(self) -> dict[str, Any]:
        """Return the states and groups; see ``torch.optim.Optimizer.state_dict``.

        Returns
        -------
        dict
            In PyTorch's layout; it shares the memory of the states.

        Raises
        ------
        RuntimeError
            If a backward pass has stepped some parameters, and others not.
        """
        self.refuse_half_way()
        found: dict[str, Any] = super().state_dict()
        return found

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the state of an optimizer, this library's or PyTorch's.

        Moments of half-precision parameters become float32, and those in float32 stay what they
        are. No memory is shared with the dict.

        Parameters
        ----------
        state_dict : dict
            What ``state_dict()`` has returned.

        Raises
        ------
        TypeError, ValueError
            If groups, parameters, keys or shapes are others: nothing has changed.
        RuntimeError
            If a backward pass has stepped some parameters, and others not.
        """
        self.refuse_half_way()
        states: dict[torch.Tensor, dict[str, Any]] = {}

        def take(_: object, given: dict[str, Any]) -> dict[str, Any]:
            """Make the states, after all other hooks have seen the dict; PyTorch gets the rest."""
            counts = [len(group["params"]) for group in self.param_groups]
            if counts != [len(group["params"]) for group in given["param_groups"]]:
                # refused by PyTorch, in its own words
                return given
            refuse_incomplete(type(self).__name__, given["param_groups"], self.defaults)
            left = dict(given["state"])
            for key, name, param in self._places(given):
                if left.get(key):
                    self._refuse_master(name, left[key])
                    states[param] = restored(name, param, left[key])
                left.pop(key, None)
            return {**given, "state": left}

        def put(_: object) -> None:
            """Put them in, before all other hooks."""
            self.state.update(states)

        handles = [
            self.register_load_state_dict_pre_hook(take),
            self.register_load_state_dict_post_hook(put, prepend=True),
        ]
        try:
            super().load_state_dict(state_dict)
        finally:
            for handle in handles:
                handle.remove()

    def _places(self, given: dict[str, Any]) -> list[tuple[Any, str, torch.Tensor]]:
        """Return key in a state dict, name and parameter of every parameter."""
        return [
            (key, named(self.param_groups, number, i), param)
            for number, (own, group) in enumerate(
                zip(self.param_groups, given["param_groups"], strict=True)
            )
            for i, (key, param) in enumerate(zip(group["params"], own["params"], strict=True))
        ]

    def _refuse_master(self, name: str, state: Any) -> None:
        """Refuse a master that would not be stepped."""
        if not self.master_weights and isinstance(state, dict) and MASTER in state:
            raise ValueError(
                f"the state of parameter {name!r} has a float32 master, which would not be "
                "stepped: make the optimizer with master_weights=True, or take "
                f"{MASTER!r} out of the states"
            )

    def _make_step(self, closure: Any = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if self._backward is None:
            self.step_gradients()
        else:
            self._backward.finish()
        return loss

    def step_gradients(self, first: bool = True) -> None:
        """Step all parameters that have a gradient now, without hooks.

        Parameters
        ----------
        first : bool
            Whether it is the first part, or the whole, of what `last_update` reports.
        """
        own = self.__dict__
        bounds = None
        if self.max_grad_norm is not None or self.max_grad_value is not None:
            bounds = clipping(self.max_grad_norm, self.max_grad_value)
        found_inf, scale = own.get("found_inf"), own.get("grad_scale")
        if found_inf is not None or scale is not None:
            refuse_captured_scaling(found_inf, scale)
        if found_inf is not None and float(found_inf):
            scale = None if scale is None else float(scale)
            sets = self._last[0][0] if self._last else []
            own["_last"] = [(sets, None, scale, None, [])]
            return
        # taken out meanwhile: another thread that steps makes its own
        plan = own.pop("_plan", None)
        if plan is None or not plan.refresh(self):
            plan = self.captured_plan(plan) or plan_of(self, self._decoupled, self.master_weights)
        if scale is not None:
            scale = float(scale)
            self._unscale(scale)
            if not plan.lasts or not plan.refresh(self):
                plan = plan_of(self, self._decoupled, self.master_weights)
        if plan.sharded and bounds is not None and bounds.norm is not None:
            raise ValueError(
                "max_grad_norm is the norm of all gradients, of which this process has only parts "
                "(DTensor): use torch.nn.utils.clip_grad_norm_ before the step"
            )
        if plan.recording:
            assert isinstance(plan, GpuPlan)
            self.note_capture(plan.capture(bounds))
        else:
            norm = plan.run(bounds)
            part = plan.sets, norm, scale, plan.names, plan.absent
            own["_last"] = [part] if first or self._last is None else [*self._last, part]
        if plan.lasts:
            own["_plan"] = plan

    def step_in_backward_by(self, steps: Any) -> None:
        """Leave the steps to what makes them in backward passes, or take them back.

        Parameters
        ----------
        steps : BackwardSteps or None
            Who makes them.

        Raises
        ------
        ValueError
            If somebody makes them already.
        """
        if steps is not None and self._backward is not None:
            raise ValueError("this optimizer steps in backward already; remove() that first")
        self.__dict__["_backward"] = steps

    def steps_in_backward_by(self, steps: Any) -> bool:
        """Tell whether this makes the steps in backward passes."""
        return self._backward is steps

    def refuse_half_way(self) -> None:
        """Refuse to be saved, loaded, copied or compared while a step is made in backward.

        Raises
        ------
        RuntimeError
            If a backward pass has stepped some parameters, and others not.
        """
        if self._backward is not None:
            self._backward.refuse_half_way()

    def hooks_before_steps(self) -> bool:
        """Tell whether there are hooks that are called before a step."""
        return bool(self._optimizer_step_pre_hooks or torch_optimizer._global_optimizer_pre_hooks)

    def _unscale(self, scale: float) -> None:
        """Divide all gradients, which are true ones from then on, as PyTorch leaves them."""
        params = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        with torch.no_grad():
            for p in params:
                if not p.grad.is_contiguous() and 0 in p.grad.stride():
                    # elements may share memory, which is divided once
                    p.grad = p.grad.clone(memory_format=torch.contiguous_format)
            torch._foreach_div_([p.grad for p in params], scale)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters; see ``torch.optim.Optimizer.zero_grad``.

        Parameters
        ----------
        set_to_none : bool
            Whether they become None; else they are filled with zeros.
        """
        if not set_to_none or is_compiling() or profiler._is_profiler_enabled:
            super().zero_grad(set_to_none)
            return
        for group in self.param_groups:
            reader().clear(group["params"])

    def step(self, closure: Any = None) -> Any:
        """Make one step.

        Parameters
        ----------
        closure : callable, optional
            Computes the loss, and the gradients.

        Returns
        -------
        object
            The loss; None without `closure`.

        Raises
        ------
        TypeError, ValueError, RuntimeError
            If a parameter, a gradient, a state or a group is such as no step can be made with. Then
            nothing has changed.
        """
        if is_compiling():
            return _untraced(self, closure)
        if (
            self._optimizer_step_pre_hooks
            or self._optimizer_step_post_hooks
            or torch_optimizer._global_optimizer_pre_hooks
            or torch_optimizer._global_optimizer_post_hooks
            or profiler._is_profiler_enabled
        ) and class_attribute(type(self), "step") is KernelStep.step:
            return _with_hooks(self, closure)
        if closure is not None or self._backward is not None:
            return self._make_step(closure)
        self.step_gradients()
        return None

    # PyTorch does not wrap it once more
    step.hooked = True  # type: ignore[attr-defined]


_with_hooks = torch.optim.Optimizer.profile_hook_step(KernelStep._make_step)


@torch._disable_dynamo
def _untraced(optimizer: Any, closure: Any) -> Any:
    """Make a step beside a graph that is being compiled."""
    return optimizer.step(closure)
