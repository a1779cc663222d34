"""The optimizer that needs one gradient: the order of an update."""

from __future__ import annotations

import copy
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self, cast

import numpy as np

from fastadam.kernels.backend import (
    CPU,
    capturing,
    device_of,
    loaded_cupy,
    wait_for,
    zeros_like,
)
from fastadam.model._gradients import (
    absent,
    clear_all,
    fits,
    gradients_of,
    lend_all,
    lent_arrays,
    missing,
    scales_of,
)
from fastadam.model.parameter import lendable, peek_grad
from fastadam.serializers.prepared import PreparedLoad
from fastadam.serializers.protocol import is_deserializer
from fastadam.update.exclusive import MIDDLE, POST, PRE, enter, exclusive
from fastadam.update.folded import (
    UPDATE_LOSS_SCALE,
    Folded,
    calls_own_parts,
    can_be_folded,
    parts_of,
    step,
)
from fastadam.update.gradients import (
    GradientStats,
    PendingStats,
    copy_shared_gradients,
    narrow_gradients,
)
from fastadam.update.graph import Replay, refuse_capture
from fastadam.update.hooks import Hook
from fastadam.update.hyperparameter import Hyperparameter, HyperparameterProxy
from fastadam.update.interrupt import DeferredInterrupt
from fastadam.update.lending import lend_gradients, lend_one
from fastadam.update.loss_scale import LossScaling
from fastadam.update.overrides import has_other, is_ours
from fastadam.update.plan import UpdatePlan
from fastadam.update.report import UpdateReport
from fastadam.update.rule import UpdateRule
from fastadam.update.target import ArrayTarget, Target

__all__ = ["GradientMethod", "check_hyperparam", "optional_hyperparams"]

class GradientMethod(LossScaling):
    """Base class of optimizers that update every parameter from its gradient, by a rule.

    A subclass overrides `create_update_rule`.

    Attributes
    ----------
    hyperparam : Hyperparameter
        The hyperparameters that the rules of all parameters fall back on.
    missing_gradients : {'zeros', 'skip'}
        Whether a parameter without a gradient is updated with zeros, or left alone.
    monitor : bool
        Whether every update looks at the gradients, so that ``last_update`` has their norm and
        names those that are not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from fastadam import GradientMethod, UpdateRule
    >>> class SGDRule(UpdateRule):
    ...     def update_core(self, param):
    ...         param.array -= self.hyperparam.lr * param.grad
    >>> class SGD(GradientMethod):
    ...     def __init__(self, lr=0.01):
    ...         super().__init__()
    ...         self.hyperparam.lr = lr
    ...     def create_update_rule(self):
    ...         return SGDRule(self.hyperparam)
    >>> w = np.ones(2)
    >>> SGD(lr=0.5).setup(w).apply_gradients(np.array([1.0, 2.0]))
    >>> w
    array([0.5, 0. ])
    """

    _use_cleargrads = True
    _plan: UpdatePlan | None = None
    # the parameters that have been given rules
    _walked: dict[str, Any] | None = None
    _replay: Replay | None = None
    # all that have been captured: as long as a graph may be launched, what it reads must be there
    _graphs: tuple[Replay, ...] = ()
    # a report, or what one is to be made of
    _last: UpdateReport | tuple[Any, ...] | None = None
    _use_fp32_update = False
    # hyperparameters that the bag holds only where somebody has set them
    _optional_hyperparams: ClassVar[frozenset[str]] = frozenset()

    def __init__(self) -> None:
        self.hyperparam = Hyperparameter()
        self._known: list[Any] = []

    def __getstate__(self) -> dict[str, Any]:
        # a copy finds its own batches
        own = ("_plan", "_replay", "_graphs")
        # what is copied is read on the current stream, whichever one writes it
        params = () if self._targets is None else self._targets.parameters.values()
        for device in {device_of(param.array) for param in params} - {CPU}:
            wait_for(device)
        return {k: v for k, v in super().__getstate__().items() if k not in own}

    @property
    def last_update(self) -> UpdateReport | None:
        """What the last update did; None before the first."""
        if type(self._last) is tuple:
            t, skipped, found, loss_scale, applied = self._last
            # gradients may be on a GPU still, and are waited for
            looked = isinstance(found, (GradientStats, PendingStats))
            norm = found.norm if looked else found
            nonfinite = found.nonfinite if looked else None if found is None else ()
            self._last = UpdateReport(t, skipped, nonfinite, norm, loss_scale, applied)
        return cast("UpdateReport | None", self._last)

    def create_update_rule(self) -> Any:
        """Return the rule that a parameter gets; a subclass says which."""
        raise NotImplementedError(f"{type(self).__name__} must override create_update_rule")

    def setup(self, link: Any) -> Self:
        """Set the target and give every parameter a new rule.

        Parameters
        ----------
        link : Link, object with ``params()``, array, or dict or list of arrays
            What to train; see :meth:`Optimizer.setup`.

        Returns
        -------
        GradientMethod
            The optimizer itself.

        Raises
        ------
        TypeError, ValueError
            As :meth:`Optimizer.setup`; also if a parameter can never be updated by its rule:
            integers, read-only or masked arrays and the like. The old target stays.
        """
        before, rules = dict(self.__dict__), []
        try:
            super().setup(link)
            self._last = self._plan = self._replay = None
            self._known = []
            for param in self._set_up().parameters.values():
                rules.append((param, getattr(param, "update_rule", None)))
                param.update_rule = None
            self._refresh()
            for path, param in self._set_up().parameters.items():
                if isinstance(param.update_rule, UpdateRule):
                    param.update_rule._check_parameter(path, param)
        except BaseException:
            # the old target stays, and so do the rules of parameters
            for param, rule in rules:
                param.update_rule = rule
            self.__dict__.clear()
            self.__dict__.update(before)
            raise
        return self

    @exclusive
    def update(self, lossfun: Callable[..., Any] | None = None, *args: Any, **kwds: Any) -> Any:
        """Make one update of every parameter.

        Parameters
        ----------
        lossfun : callable, optional
            Called with `args` and `kwds` and nothing else. It returns the pair
            ``(loss, gradients)``, the gradients in the target's structure; or, for a link whose
            parameters collect gradients, a loss with a ``backward`` method. Without it,
            the gradients must be there already.

        Returns
        -------
        object
            The loss; None without `lossfun`. One of Chainer's variables is returned without the
            graph that it was computed by, so that hooks and step do not hold its memory.

        Raises
        ------
        RuntimeError
            If the optimizer is not set up, or another thread is updating, saving or comparing it,
            or it is called by one of its own hooks.
        TypeError
            If `lossfun` cannot be called; if the loss carries no gradients, or they are None; if a
            parameter or gradient has a dtype that cannot be stepped.
        ValueError
            If gradients are missing, superfluous or misshaped, or a parameter is read-only.
        FloatingPointError
            If a gradient is not finite and ``on_nonfinite`` is 'raise'.

        Notes
        -----
        The order is:

        1. loss and gradients, of a loss multiplied by `loss_scale` if it has a ``backward``;
        2. zeros for missing gradients, unless they are to be skipped; division by the loss scale,
           and a look at what is not finite, where asked for;
        3. 'pre' hooks, which see the true gradients;
        4. ``t += 1``; if a gradient is not finite, what `on_nonfinite` says;
        5. the update of every parameter whose rule is enabled;
        6. a new loss scale, if it is dynamic; 'post' hooks, which see it and `last_update`, and
           may save.

        Everything is checked before anything is written: a refused update has changed neither
        parameters nor state nor counts. A loss function or 'pre' hook that raises leaves these as
        they were, too. When a rule's hook or a 'post' hook raises, every parameter is wholly
        before or wholly after its step, and ``last_update.applied`` names those that are after.
        Ctrl-C, and any other signal that Python handles, waits until all parameters have made
        their step; a second Ctrl-C does not. Hooks cannot update the optimizer again.
        """
        if lossfun is None:
            self._update()
            return None
        self._set_up()
        if not callable(lossfun):
            raise TypeError(
                f"update calls a loss function, and {type(lossfun).__name__} cannot be called; "
                "gradients that are there already are given to apply_gradients(gradients)"
            )
        loss = lossfun(*args, **kwds)
        if isinstance(loss, tuple) and len(loss) == 2:
            loss, grads = loss
            loss = _without_graph(loss)
            self._update(grads, lent=True)
            return loss
        self._refresh()
        arrays = isinstance(self._targets, ArrayTarget)
        if arrays or not callable(getattr(loss, "backward", None)):
            raise TypeError(
                _no_pair(loss) + ("" if arrays else "; or a loss with backward(), without them")
            )
        self._clear_gradients()
        loss.backward(loss_scale=self._loss_scale)
        loss = _without_graph(loss)
        self._update()
        return loss

    @exclusive
    def apply_gradients(self, grads: Any, loss_scale: float | None = None) -> None:
        """Make one update from gradients computed elsewhere, which are only read.

        Parameters
        ----------
        grads : array, dict or list
            The gradients in the target's structure; for a link, a mapping from path to
            gradient. Each is anything that `numpy.asarray` takes with the parameter's shape and
            a real floating dtype, or None for no gradient (which counts as zeros, unless
            ``missing_gradients`` is 'skip'). None for all of them is refused: it is what a
            function without a ``return`` gives.
        loss_scale : float, optional
            What the loss was multiplied by before the gradients were computed, and what they are
            divided by: usually this optimizer's `loss_scale`.

        Raises
        ------
        RuntimeError
            If the optimizer is not set up, or another thread is updating it.
        TypeError, ValueError, FloatingPointError
            As `update`.
        """
        if loss_scale is not None:
            self._check_loss_scale(loss_scale)
        self._update(grads, loss_scale, lent=True)

    @exclusive
    def prepare_replay(self) -> None:
        """Get ready for the next launch of a CUDA graph in which an update was captured.

        Counts the step, and writes its scalars, such as the bias-corrected rate of the new ``t``,
        to where the graph reads them: on the current stream, which must be the one that the graph
        is launched on, or be waited for by it and wait for its launch before.

        Raises
        ------
        RuntimeError
            If no update has been captured; if parameters, states, hooks or settings have changed
            since, except for hyperparameters of the whole optimizer, which may.

        Notes
        -----
        An update is captured as everything else is, by calling `update` or `apply_gradients`
        between ``stream.begin_capture()`` and ``stream.end_capture()``. One such update must have
        been made before. A captured update is not made, and not counted: that is what the replays
        are for. `last_update` is that of the last replay; what it says of gradients is waited
        for, and is to be looked at after the launch. A graph divides gradients by the loss scale
        of its capture. The optimizer keeps what its graphs read, and must live as long as they.
        Dynamic loss scaling and an `on_nonfinite` other than 'propagate', with which the
        host decides, cannot be captured.

        Examples
        --------
        With CuPy's arrays on a GPU::

            stream = cupy.cuda.Stream(non_blocking=True)
            stream.wait_event(cupy.cuda.Stream.null.record())
            with stream:
                opt.apply_gradients(gradients)
                stream.begin_capture()
                compute(gradients)
                opt.apply_gradients(gradients)
                graph = stream.end_capture()
                for _ in range(1000):
                    opt.prepare_replay()
                    graph.launch()
        """
        self._set_up()
        if self._replay is None:
            raise RuntimeError(
                "there is no captured update to replay: call update() or apply_gradients() "
                "between begin_capture() and end_capture() of a stream of CuPy's"
            )
        self._replay.prepare(self)

    def reallocate_cleared_grads(self) -> None:
        """Give zeros to every initialised parameter that has no gradient.

        The zeros still let the moments decay and the parameter move. Nothing happens where
        ``missing_gradients`` is 'skip'.
        """
        if self._missing_gradients == "skip":
            return
        targets = self._targets or self._set_up()
        params = list(targets.parameters.values())
        if not missing(params):
            return
        for param in params:
            if param.array is not None and peek_grad(param) is None:
                param.grad = zeros_like(param.array)

    def call_hook(self, hook: Hook) -> None:
        """Call one hook, then give zeros for the gradients that it cleared.

        Parameters
        ----------
        hook : callable
            As for :meth:`Optimizer.call_hook`. A hook that is called for each parameter is not
            called for those without a rule or with a disabled one, which no update touches.
        """
        if is_ours(type(hook)):
            # no floating-point setting of a caller's reaches into it
            with np.errstate(all="ignore"):
                super().call_hook(hook)
        else:
            super().call_hook(hook)
        self.reallocate_cleared_grads()

    def use_cleargrads(self, use: bool = True) -> None:
        """Choose between clearing gradients and filling them with zeros (deprecated).

        Parameters
        ----------
        use : bool
            Whether ``update(lossfun)`` clears the gradients of a link.
        """
        warnings.warn(
            "use_cleargrads is deprecated: gradients are cleared by default",
            DeprecationWarning,
            stacklevel=2,
        )
        self._use_cleargrads = use

    def use_fp32_update(self, flag: bool = True) -> None:
        """Keep float32 masters of half-precision parameters, and update these.

        Each step is made on the float32 master and rounded to the parameter, so that small steps
        add up instead of being rounded away. Float32 and float64 parameters are unaffected. May be
        called before or after `setup`, at any time.

        Parameters
        ----------
        flag : bool
            False ends it: the masters are dropped.

        See Also
        --------
        UpdateRule.use_fp32_update : The same for one parameter.
        """
        self._use_fp32_update = bool(flag)
        if self._targets is not None:
            for param in self._targets.parameters.values():
                rule = getattr(param, "update_rule", None)
                if rule is not None:
                    rule.use_fp32_update(flag)

    def serialize(self, serializer: Any) -> None:
        """Write ``t``, ``epoch``, the rules' states and the loss scale, or read them.

        The parameters' values are not part of it. A read checks everything first; if it
        raises, nothing has changed. What Chainer does not know (the loss scale, float32
        masters, AdaBound's first alpha) is under keys of its own, which Chainer ignores and
        whose absence is no error.

        Parameters
        ----------
        serializer : Serializer or Deserializer
            fastadam's or another library's, such as Chainer's.

        Raises
        ------
        KeyError
            If an entry is missing.
        ValueError, TypeError
            If an entry has another shape, or a dtype that does not convert.
        """
        super().serialize(serializer)
        if not is_deserializer(serializer):
            self._write_loss_scaling(serializer)

    def prepare_load(self, serializer: Any) -> PreparedLoad:
        """Read and check counts, states and the loss scale; nothing changes yet.

        Parameters
        ----------
        serializer : Deserializer
            Where to read, as for :meth:`Optimizer.prepare_load`.

        Returns
        -------
        PreparedLoad
            What its ``commit()`` is going to change.
        """
        prepared = super().prepare_load(serializer)
        self._prepare_loss_scaling(prepared, serializer)
        return prepared

    def set_hyperparam(self, which: str | Callable[[str, Any], object], **values: Any) -> list[str]:
        """Override hyperparameters for some of the parameters.

        Parameters
        ----------
        which : str or callable
            A glob over paths, such as ``'*/b'``, or a predicate called with path and parameter.
        **values
            The hyperparameters to set on the matching parameters' rules. They no longer follow
            the optimizer's.

        Returns
        -------
        list of str
            The paths that matched.

        Raises
        ------
        ValueError
            If nothing matched, or a matching parameter has no rule.
        TypeError
            If a name is no hyperparameter, or none is given; if Adam is given a value that is no
            number.

        Examples
        --------
        >>> import numpy as np
        >>> import fastadam
        >>> opt = fastadam.AdamW(weight_decay_rate=1e-4)
        >>> _ = opt.setup({'l1': {'W': np.zeros((2, 3)), 'b': np.zeros(3)}})
        >>> opt.set_hyperparam('*/b', weight_decay_rate=0)
        ['l1/b']
        """
        if not values:
            raise TypeError("set_hyperparam needs a hyperparameter to set, as name=value")
        known = self.hyperparam.get_dict()
        # by their own names: an alias may be called otherwise
        own: dict[str, Any] = {}
        for name, value in values.items():
            alias = getattr(type(self), name, None)
            if isinstance(alias, HyperparameterProxy):
                own[alias._attr_name] = value
            elif name in known:
                own[name] = value
            else:
                raise TypeError(self._no_hyperparam(name))
        parameters = self.parameters
        paths = parameters.matching(which)
        rules = [parameters[path].update_rule for path in paths]
        if None in rules:
            raise ValueError(f"parameter {paths[rules.index(None)]!r} has no update rule")
        for rule in rules:
            others = {**rule.hyperparam.get_dict(), **own}
            for name, value in own.items():
                self._check_hyperparam(name, value, f"set_hyperparam({name}=...)", others)
        for rule in rules:
            # modes first: what a number may be depends on them
            for name, value in sorted(own.items(), key=lambda item: not item[0].endswith("_mode")):
                setattr(rule.hyperparam, name, value)
        return paths

    def _no_hyperparam(self, name: str) -> str:
        """Say that there is no such hyperparameter."""
        return (
            f"{type(self).__name__} has no hyperparameter {name!r}; "
            f"there are: {', '.join(self.hyperparam.get_dict())}"
        )

    def _check_hyperparam(
        self, name: str, value: Any, door: str = "", others: Mapping[str, Any] | None = None
    ) -> None:
        """Refuse a value that a hyperparameter cannot have beside others; any is good here."""

    def _hooked_parameters(self) -> list[Any]:
        """Return the parameters whose rule is there and enabled."""
        return [
            param
            for param in self._present().values()
            if (rule := getattr(param, "update_rule", None)) is not None
            and getattr(rule, "enabled", True)
        ]

    def _refresh(self) -> None:
        """Walk the target, and give rules to the parameters that are new."""
        super()._refresh()
        parameters = self._set_up().parameters
        if parameters is self._walked:
            return
        known = {id(param) for param in self._known}
        if len(known) == len(parameters) and all(id(p) in known for p in parameters.values()):
            self._walked = parameters
            return
        for path, param in parameters.items():
            # a rule of None in a parameter that is known was set by hand, and stays
            if id(param) not in known and getattr(param, "update_rule", None) is None:
                rule = param.update_rule = self.create_update_rule()
                if isinstance(rule, UpdateRule):
                    rule.path = path
                if self._use_fp32_update:
                    rule.use_fp32_update()
        self._known = list(parameters.values())
        self._walked = parameters

    def _clear_gradients(self) -> None:
        """Make room for the gradients of a backward pass."""
        if not self._use_cleargrads:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                self.target.zerograds()
        elif hasattr(self.target, "cleargrads"):
            self.target.cleargrads()
        else:
            for param in self._set_up().parameters.values():
                param.cleargrad()

    def _update(
        self, grads: Any = None, loss_scale: float | None = None, lent: bool = False
    ) -> None:
        """Make one update, from a caller's gradients or from those that are there."""
        targets, hooks = self._targets, self._hooks
        if targets is None or hooks is None:
            targets, hooks = self._set_up(), self._set_up_hooks()
        if targets.unchanged() and targets.parameters is self._walked:
            targets.finish()
        else:
            self._refresh()
        enter(self, PRE)
        params = list(targets.parameters.values())
        called = calls_own_parts(self, _PARTS)
        if lent:
            gradients = self._ordered(targets, params, grads, called)
        else:
            gradients = gradients_of(params)
        plan = None if gradients is None else self._plan
        skip = self._missing_gradients == "skip"
        if plan is not None and not plan.holds(targets.parameters, gradients, skip):
            plan = self.__dict__["_plan"] = None
        pre, post = hooks.tables()
        if (
            plan is None
            or called
            or self.t == 0
            or not self._step_at_once(plan, params, gradients, loss_scale, lent, pre, post)
        ):
            given = (gradients, grads, loss_scale) if lent else None
            self._update_openly(targets, plan, params, given, called, pre, post)
        elif post:
            self._call_post_hooks(targets, params, gradients, lent, post)
        elif lent:
            clear_all(params)

    def _ordered(
        self, targets: Target, params: list[Any], grads: Any, called: bool
    ) -> list[Any] | None:
        """Return a caller's gradients in the order of the parameters, zeros for missing ones.

        None if they do not fit; whoever lends them says why. With `called`, somebody else may say
        what becomes of missing ones.
        """
        found = None if grads is None else targets.ordered(grads)
        if found is None:
            return None
        found = lent_arrays(params, found, lendable)
        if not fits(params, found):
            return None
        if self._missing_gradients != "skip" and not called:
            for i in absent(params, found):
                found[i] = zeros_like(params[i].array)
        return found

    def _step_at_once(
        self,
        plan: UpdatePlan,
        params: list[Any],
        gradients: Any,
        loss_scale: float | None,
        lent: bool,
        pre: dict[str, Any],
        post: dict[str, Any],
    ) -> bool:
        """Make the step of a plan, if nobody's code runs between gradients and step.

        What is to be done to gradients is folded into it. False, with nothing changed, if there is
        more to do.
        """
        steps = plan.steps
        if steps is None or not plan.only_steps:
            return False
        if not (lent or plan.skip) and absent(params, gradients):
            return False
        scales = scales_of(params)
        if lent:
            scales = None if loss_scale is None else [loss_scale] * len(params)
        asked = self.monitor or self._loss_scaling_is_dynamic or self._on_nonfinite != "propagate"
        if pre or scales or asked or steps.batch.on_gpu:
            # 'post' hooks see what has become of the gradients
            if post or not can_be_folded(pre):
                return False
            return Folded(self, plan, gradients, scales, lent).run(list(pre.values()))
        if steps.batch.prepared:
            steps.batch.prepare(gradients, None, 1.0, False)
        step(self, plan, None, [], has_other(self, "update_loss_scale", UPDATE_LOSS_SCALE))
        return True

    def _call_post_hooks(
        self,
        targets: Target,
        params: list[Any],
        gradients: Any,
        lent: bool,
        hooks: dict[str, Any],
    ) -> None:
        """Call the 'post' hooks, which see the gradients of an update that is made."""
        enter(self, POST)
        try:
            if lent:
                self._lend(params, gradients, None, None)
            for hook in list(hooks.values()):
                self.call_hook(hook)
        finally:
            targets.finish()
            if lent:
                clear_all(params)

    def _lend(
        self, params: list[Any], gradients: Any, grads: Any, loss_scale: float | None
    ) -> None:
        """Lend a caller's gradients: in the order of the parameters, if they fit, or as given."""
        if gradients is not None and fits(params, gradients) == 2:
            lend_all(params, gradients, loss_scale)
        elif gradients is None or grads is not None:
            lend_gradients(self._set_up(), grads, loss_scale)
        else:
            for param, grad in zip(params, gradients, strict=True):
                lend_one(param, grad, loss_scale)

    def _update_openly(
        self,
        targets: Target,
        plan: UpdatePlan | None,
        params: list[Any],
        lent: tuple[list[Any] | None, Any, float | None] | None,
        called: bool,
        pre: dict[str, Any],
        post: dict[str, Any],
    ) -> None:
        """Make one update in which hooks and rules see the gradients of parameters.

        Parameters
        ----------
        targets : Target
            The walked target.
        plan : UpdatePlan or None
            What has been found to hold with these gradients.
        params : list of Parameter
            All parameters.
        lent : tuple, optional
            A caller's gradients in the order of the parameters, None if they do not fit; as they
            were given; and their loss scale.
        called : bool
            Whether all parts of the update are called, since some of them are somebody's own.
        pre, post : dict of str to callable
            The hooks.
        """
        own, t = self.__dict__, self.t
        if (plan is None or plan.on_gpu) and loaded_cupy() is not None:
            if any(map(capturing, {device_of(p.array) for p in params} - {CPU})):
                refuse_capture(self)
        if lent is not None:
            self._lend(params, *lent)
        elif isinstance(targets, ArrayTarget) and len(
            absent(params, gradients_of(params))
        ) == len(params):
            raise ValueError(
                "there are no gradients: call update(lossfun, ...) with a function that "
                "returns (loss, gradients), or apply_gradients(gradients)"
            )
        isnan, ever = own.get("_loss_scaling_isnan"), own.get("_loss_scaling_isnan_ever")
        own["_unscaled"] = ()
        try:
            if t == 0:
                self._before_first_update()
            scaled = scales_of(params) is not None
            if scaled:
                self._check_left_scales()
            if called or missing(params):
                self.reallocate_cleared_grads()
                plan = None
            if (scaled or pre or post) and (
                plan is None or plan.reaches(gradients_of(params))
            ):
                # gradients are written, and nothing else is meant to be
                copy_shared_gradients(params)
                plan = None
            decides = self._loss_scaling_is_dynamic or self._on_nonfinite != "propagate"
            if scaled or decides or self.monitor:
                self._unscale_and_look()
                plan = None
            own["_loss_scaling_isnan"] = False
            if called or self._loss_scaling_is_dynamic:
                self.check_nan_in_grads()
            if called:
                self.call_hooks("pre")
            else:
                for hook in list(pre.values()):
                    self.call_hook(hook)
            if called or pre:
                plan = None
            if decides:
                self._refuse_nonfinite()
            if (called or pre) and not targets.unchanged():
                # a hook has put other arrays into it
                self._refresh()
                self.reallocate_cleared_grads()
            self._update_parameters(plan, called or decides)
            if called or missing(params):
                self.reallocate_cleared_grads()
            if called:
                self.call_hooks("post")
            else:
                for hook in list(post.values()):
                    self.call_hook(hook)
        finally:
            if self.t == t:
                # nothing has been updated, and nothing found
                own["_loss_scaling_isnan"] = bool(isnan)
                own["_loss_scaling_isnan_ever"] = bool(ever)
            unscaled = own.pop("_unscaled", None)
            own.pop("_facts", None)
            targets.finish()
            if unscaled:
                narrow_gradients(unscaled)
            if lent is not None:
                clear_all(params)

    def _before_first_update(self) -> None:
        """Get ready for the first update; there is nothing to do here."""

    def _update_parameters(self, plan: UpdatePlan | None, asks: bool) -> None:
        """Count the step, run the rules unless it is to be skipped, and report.

        `plan` is what holds, if nobody's code has run since that was found; `asks` says whether
        the gradients may be such that no parameter is to be touched.
        """
        safe = not asks or self.is_safe_to_update()
        if not safe:
            plan = None
        elif plan is None:
            plan = self._plan_now()
        own, t = self.__dict__, self.t
        adapts = has_other(self, "update_loss_scale", UPDATE_LOSS_SCALE)
        noted: dict[str, Any] = {
            "t": t + 1,
            "_last": (t + 1, not safe, self._facts, self._loss_scale, plan.paths if plan else ()),
        }
        if self._loss_scaling_is_dynamic and not adapts:
            noted["_loss_scale"] = self._next_loss_scale()
        if plan is not None and plan.only_steps and plan.steps.batch.in_c and not adapts:
            plan.run(own, noted)
            enter(self, POST)
            return
        # Ctrl-C between two parameters, or between a count and its step, would break a state
        with DeferredInterrupt():
            enter(self, MIDDLE)
            try:
                with np.errstate(all="ignore"):
                    if plan is None:
                        own.update(noted)
                    else:
                        plan.run(own, noted)
                if adapts:
                    self.update_loss_scale()
            except BaseException:
                if own.get("_last") is not noted["_last"]:
                    # a step that no parameter has taken is not counted
                    applied = () if plan is None else plan.applied
                    noted["_last"] = t + 1, not safe, self._facts, self._loss_scale, applied
                    own.update(noted if applied else {"t": t})
                raise
            finally:
                enter(self, POST)

    def _plan_now(self) -> UpdatePlan:
        """Return the plan of this update: the last one, if it holds, or a new one."""
        assert self._targets is not None
        parameters = self._targets.parameters
        gradients = gradients_of(list(parameters.values()))
        skip = self._missing_gradients == "skip"
        if self._plan is None or not self._plan.holds(parameters, gradients, skip):
            own = self.__dict__
            own["_plan"] = None
            with np.errstate(all="ignore"):
                own["_plan"] = UpdatePlan(parameters, gradients, skip)
        assert self._plan is not None
        batch = None if self._plan.steps is None else self._plan.steps.batch
        if batch is not None and batch.prepared:
            batch.prepare(gradients, None, 1.0, False)
        return self._plan


# The parts of an update as they are here, not as they may be patched.
_PARTS = parts_of(GradientMethod)


def _no_pair(returned: Any) -> str:
    """Say what a loss function returned, and what is wanted of it."""
    what = "the loss function returned "
    if returned is None:
        return f"{what}None: did it forget its return? Return the pair (loss, gradients)"
    if isinstance(returned, list):
        return f"{what}a list of {len(returned)}; return a tuple, the pair (loss, gradients)"
    if isinstance(returned, tuple):
        return (
            f"{what}a tuple of {len(returned)}; return the pair (loss, gradients); what else there "
            "is goes with the loss, and comes back with it: ((loss, more), gradients)"
        )
    return (
        f"{what}{type(returned).__name__} without gradients; return the pair (loss, gradients), as "
        "value_and_grad does"
    )


def _without_graph(loss: Any) -> Any:
    """Return one of Chainer's variables as a new one with its value; others as they are."""
    chainer = sys.modules.get("chainer")
    # a copy has a node of its own, which nothing has computed
    return copy.copy(loss) if isinstance(loss, getattr(chainer, "Variable", ())) else loss


def optional_hyperparams(optimizer: GradientMethod) -> frozenset[str]:
    """Return the names of hyperparameters that are there only where they have been set."""
    return optimizer._optional_hyperparams


def check_hyperparam(
    optimizer: GradientMethod, name: str, value: Any, door: str, others: Mapping[str, Any]
) -> None:
    """Refuse what a hyperparameter cannot be beside others; `door` says where it comes from."""
    optimizer._check_hyperparam(name, value, door, others)
