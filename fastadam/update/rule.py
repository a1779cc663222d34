"""The update rule: how one parameter is updated, with its own count, state and hooks."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from fastadam.algorithms.number import check_loss_scale
from fastadam.kernels.backend import beside
from fastadam.kernels.dtypes import computing_dtype
from fastadam.kernels.memory import lie_apart
from fastadam.model.parameter import Parameter, peek_grad
from fastadam.update.flags import Flag
from fastadam.update.gradients import copy_shared_gradients, unscale_gradients
from fastadam.update.hooks import Hook, HookTable
from fastadam.update.hyperparameter import Hyperparameter, plain
from fastadam.update.overrides import is_for_optimizers
from fastadam.update.rule_state import RuleState

__all__ = ["UpdateRule"]


class UpdateRule(RuleState):
    """Base class of update rules: the state and the hyperparameters of one parameter's updates.

    A rule of your own overrides `update_core` (or `update_core_cpu` and `update_core_gpu`), and
    `init_state` if it keeps state. It works alone and beside other rules in one target.

    Parameters
    ----------
    parent_hyperparam : Hyperparameter, optional
        Where hyperparameters are looked up that are not set on this rule.

    Attributes
    ----------
    enabled : bool
        Whether `update` does anything.
    hyperparam : Hyperparameter
        The rule's own hyperparameters; what it lacks is the parent's.
    t : int
        Number of updates made by this rule.
    path : str or None
        Where the target holds the parameter (``'l1/W'``), for messages.
    is_elementwise : bool
        Whether each element's update depends on that element alone.

    Examples
    --------
    >>> import numpy as np
    >>> from fastadam import Parameter, UpdateRule
    >>> class SGDRule(UpdateRule):
    ...     def update_core(self, param):
    ...         param.array -= self.hyperparam.lr * param.grad
    >>> rule = SGDRule()
    >>> rule.hyperparam.lr = 0.5
    >>> param = Parameter(np.ones(2))
    >>> param.grad = np.array([1.0, 2.0])
    >>> rule.update(param)
    >>> param.array
    array([0.5, 0. ])
    """

    is_elementwise = False
    enabled = Flag()
    # the count of the step under way, once a kernel has told that it is made
    _stepped_at: int | None = None

    def __init__(self, parent_hyperparam: Hyperparameter | None = None) -> None:
        super().__init__()
        self.enabled = True
        self.hyperparam = Hyperparameter(parent_hyperparam)
        self.path: str | None = None
        self._hooks = HookTable()

    def __repr__(self) -> str:
        values = self.hyperparam.get_dict().items()
        shown = ", ".join(f"{name}={plain(value)!r}" for name, value in values)
        whose = "" if self.path is None else f" of {self.path!r}"
        off = "" if self.enabled else ", disabled"
        return f"<{type(self).__name__}({shown}){whose} t={self.t}{off}>"

    def add_hook(self, hook: Hook, name: str | None = None, timing: str = "auto") -> None:
        """Add a function called as ``hook(rule, param)`` before or after each update.

        Parameters
        ----------
        hook : callable
            Takes the rule and the parameter.
        name : str, optional
            Default: ``hook.name`` or ``hook.__name__``.
        timing : {'auto', 'pre', 'post'}
            'auto' takes ``hook.timing``, or 'pre' without one.

        Raises
        ------
        TypeError
            If the hook cannot be called, or is one of this library's for optimizers.
        ValueError
            If the timing is unknown or there is no name.
        KeyError
            If the name is taken.
        """
        if is_for_optimizers(hook):
            raise TypeError(
                f"{type(hook).__name__} changes the gradients of all parameters together, and is "
                "not for a single rule: add it to the optimizer, with opt.add_hook(...)"
            )
        self._hooks.add(hook, name, timing)

    def remove_hook(self, name: str) -> None:
        """Remove a hook.

        Parameters
        ----------
        name : str
            The name under which it was added.

        Raises
        ------
        KeyError
            If there is no hook of that name.
        """
        self._hooks.remove(name)

    def update(self, param: Parameter) -> None:
        """Make one update of the parameter, with the rule's hooks around it.

        Nothing happens if the rule is disabled, or the parameter is frozen or has no array yet.
        If anything raises before the update is done, `t` is as it was. A gradient that a backward
        pass has left multiplied by a loss scale is divided by it first.

        Parameters
        ----------
        param : Parameter
            The parameter; its array is written.
        """
        if not self.enabled or param.array is None or getattr(param, "frozen", False):
            return
        # no floating-point setting of a caller's reaches into a step
        with np.errstate(all="ignore"):
            self._update(param)

    def _update(self, param: Parameter) -> None:
        """Make one update of a parameter that is there."""
        scaled = getattr(param, "_loss_scale", None) is not None
        hooks = self._hooks.at("pre")
        # gradients are written, and nothing else is meant to be
        if (scaled or hooks) and not self._lies_apart(param):
            copy_shared_gradients([param])
        if scaled:
            assert param.array is not None
            dtype = computing_dtype(param.array.dtype)
            door = f"the loss scale of parameter {self.path or param.name!r}"
            check_loss_scale(param._loss_scale, door, () if dtype is None else (dtype,))
            unscale_gradients([param])
        stepped = self._stepped(param) if self._use_fp32_update else param
        if stepped is not param:
            grad = param.grad
            with beside(param.array):
                stepped.grad = None if grad is None else grad.astype(np.float32)
        self.follow_device(param)
        before, t = self._state, self.t
        started = counted = False
        try:
            try:
                self._stepped_at = None
                self.t = t + 1
                if self._state is None:
                    self._state = {}
                    self.init_state(stepped)
                    hooks = self._hooks.at("pre")
                for hook in hooks:
                    hook(self, stepped)
                started = True
                self.update_core(stepped)
                counted = True
            except BaseException as error:
                # Ctrl-C during a step arrives when its kernel is done: that step counts. Of a step
                # that somebody else makes it is not known how far it has come.
                counted = self._stepped_at == t + 1
                unknown = started and not self._is_known_to_write_state()
                counted = counted or (unknown and not isinstance(error, Exception))
                if not counted:
                    self.t = t
                    if before is None:
                        self._state = None
                raise
            for hook in self._hooks.at("post"):
                hook(self, stepped)
        finally:
            if stepped is not param:
                if counted:
                    self._finish(param, stepped)
                else:
                    stepped.cleargrad()

    def update_core(self, param: Parameter) -> None:
        """Update the parameter in place, by default with `update_core_cpu` or `_gpu`.

        Parameters
        ----------
        param : Parameter
            The parameter, with an array; its gradient may be None.
        """
        if isinstance(param.array, np.ndarray):
            self.update_core_cpu(param)
        else:
            self.update_core_gpu(param)

    def update_core_cpu(self, param: Parameter) -> None:
        """Update a parameter that is a NumPy array.

        Parameters
        ----------
        param : Parameter
            The parameter.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must override update_core or update_core_cpu"
        )

    def update_core_gpu(self, param: Parameter) -> None:
        """Update a parameter that is an array on a GPU.

        Parameters
        ----------
        param : Parameter
            The parameter.
        """
        raise NotImplementedError(
            f"{type(self).__name__} does not know how to update an array of type "
            f"{type(param.array).__name__}; it must override update_core or update_core_gpu"
        )

    def update_core_chainerx(self, param: Parameter) -> None:
        """Update a parameter that is a ChainerX array; nobody calls it unless a subclass does.

        Parameters
        ----------
        param : Parameter
            The parameter.
        """
        raise NotImplementedError(
            f"{type(self).__name__} does not update ChainerX arrays; NumPy arrays are updated"
        )

    def batch_key(self) -> Hashable | None:
        """Tell which rules `update_batch` may take together; None to be updated by itself."""
        return None

    @classmethod
    def check_batch(cls, rules: Sequence[Any], params: Sequence[Any]) -> None:
        """Raise what `update_batch` would refuse, and change nothing; by default, accept.

        Parameters
        ----------
        rules, params : sequence
            As for `update_batch`.
        """

    @classmethod
    def update_batch(cls, rules: Sequence[Any], params: Sequence[Any]) -> None:
        """Update many parameters, each by its rule; by default one after the other.

        Parameters
        ----------
        rules : sequence of UpdateRule
            Enabled rules of one `batch_key`.
        params : sequence of Parameter
            Their parameters, in the same order.
        """
        for rule, param in zip(rules, params, strict=True):
            rule.update(param)

    def _lies_apart(self, param: Any) -> bool:
        """Tell, fast, whether a gradient shares no memory with what its parameter's update writes.

        False where that takes a closer look.
        """
        if self._fp32_param is not None or getattr(param, "update_rule", None) is not self:
            return False
        grad, state = peek_grad(param), self._state
        if grad is None:
            return True
        held = state.values() if isinstance(state, dict) else ()
        return lie_apart(grad, [param.array, *held])

    def _steps_with_others(self) -> bool:
        """Tell whether the kernels step this rule's parameter, together with others."""
        return False

    def _check_single(self, param: Any) -> Any:
        """Raise what an update would refuse; return what tells later that it is still good.

        None if that is to be asked again each time.
        """
        type(self).check_batch([self], [param])

    def _is_known_to_write_state(self) -> bool:
        """Tell whether `_written` knows all arrays of the state."""
        return False

    def _door(self) -> str:
        """Say where numbers are looked at, for messages."""
        return "an update" if self.path is None else f"the update of parameter {self.path!r}"

    def _check_parameter(self, path: str, param: Any) -> None:
        """Refuse a parameter that this rule can never update; by default, take any."""

    def _written(self, param: Any) -> list[tuple[str, Any]]:
        """Return what is known to be written, with what it is; state of users' rules is theirs."""
        master = self._fp32_param
        masters = [] if master is None else [("float32 master", master.array)]
        return [("array", param.array), *masters]
