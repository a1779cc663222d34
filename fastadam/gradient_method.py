"""The optimizer that needs one gradient: the order of an update."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Self, cast

from fastadam.dispatch import Dispatch
from fastadam.exclusive import exclusive
from fastadam.gradient_pass import GradientFacts, PendingFacts, narrow_gradients
from fastadam.hookable import Hook
from fastadam.hyperparameter import Hyperparameter, HyperparameterProxy
from fastadam.interrupt import DeferredInterrupt
from fastadam.kernels.backend import CPU, capturing, device_of, wait_for, zeros_like
from fastadam.lending import lend_gradients
from fastadam.loss_scaling import LossScaling, refuse_no_number
from fastadam.parameter import peek_grad
from fastadam.repetition import Repetition, repeatable
from fastadam.replay import Replay, refuse_capture
from fastadam.serializers.protocol import is_deserializer
from fastadam.targets import ArrayTarget
from fastadam.update_report import UpdateReport
from fastadam.update_rule import UpdateRule

__all__ = ["GradientMethod"]


class GradientMethod(LossScaling):
    """Base class of optimizers that update every parameter from its gradient, by a rule.

    A subclass overrides `create_update_rule`.

    Attributes
    ----------
    hyperparam : Hyperparameter
        The hyperparameters that the rules of all parameters fall back on.
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
    _work: Dispatch | None = None
    _kept: Repetition | None = None
    _replay: Replay | None = None
    # all that have been captured: as long as a graph may be launched, what it reads must be there
    _graphs: tuple[Replay, ...] = ()
    # a report, or what one is to be made of
    _last: UpdateReport | tuple[Any, ...] | None = None
    _use_fp32_update = False

    def __init__(self) -> None:
        self.hyperparam = Hyperparameter()
        self._known: list[Any] = []

    def __getstate__(self) -> dict[str, Any]:
        # a copy finds its own batches
        own = ("_work", "_kept", "_replay", "_graphs")
        # what is copied is read on the current stream, whichever one writes it
        params = () if self._targets is None else self._targets.parameters.values()
        for device in {device_of(param.array) for param in params} - {CPU}:
            wait_for(device)
        return {k: v for k, v in self.__dict__.items() if k not in own}

    @property
    def last_update(self) -> UpdateReport | None:
        """What the last update did; None before the first."""
        if type(self._last) is tuple:
            t, skipped, found, loss_scale, applied = self._last
            # gradients may be on a GPU still, and are waited for
            looked = isinstance(found, (GradientFacts, PendingFacts))
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
        """
        super().setup(link)
        self._last = self._kept = self._replay = None
        self._known = []
        for param in self._set_up().parameters.values():
            param.update_rule = None
        self._refresh()
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
            The loss; None without `lossfun`.

        Raises
        ------
        RuntimeError
            If the optimizer is not set up, or another thread is updating it.
        TypeError
            If the loss carries no gradients; if a parameter or gradient has a dtype that cannot
            be stepped.
        ValueError
            If gradients are missing, superfluous or misshaped, or a parameter is read-only.
        FloatingPointError
            If a gradient is not finite and ``on_nonfinite`` is 'raise'.

        Notes
        -----
        The order is:

        1. loss and gradients, of a loss multiplied by `loss_scale` if it has a ``backward``;
        2. zeros for missing gradients; division by the loss scale, and a look at what is not
           finite, where asked for;
        3. 'pre' hooks, which see the true gradients;
        4. ``t += 1``; if a gradient is not finite, what `on_nonfinite` says;
        5. the update of every parameter whose rule is enabled;
        6. 'post' hooks, which see `last_update`; a new loss scale, if it is dynamic.

        Everything is checked before anything is written: a refused update has changed neither
        parameters nor state nor counts. A loss function or 'pre' hook that raises leaves these as
        they were, too. When a rule's hook or a 'post' hook raises, every parameter is wholly
        before or wholly after its step, and ``last_update.applied`` names those that are after.
        Ctrl-C waits until all parameters have made their step; a second one does not.
        """
        if lossfun is None and self._repeat():
            return None
        self._set_up()
        if lossfun is None:
            self._refresh()
            self._update()
            return None
        loss = lossfun(*args, **kwds)
        if isinstance(loss, tuple) and len(loss) == 2:
            loss, grads = loss
            if grads is not None and self._repeat(grads):
                return loss
            self._refresh()
            lend_gradients(self._set_up(), grads)
            self._update(lent=True)
            return loss
        self._refresh()
        arrays = isinstance(self._targets, ArrayTarget)
        if arrays or not callable(getattr(loss, "backward", None)):
            raise TypeError(
                f"the loss function returned {type(loss).__name__} without gradients; return the "
                "pair (loss, gradients), as value_and_grad does"
                + ("" if arrays else ", or a loss with backward()")
            )
        self._clear_gradients()
        loss.backward(loss_scale=self._loss_scale)
        if not self._repeat():
            self._refresh()
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
            a real floating dtype, or None for no gradient (which counts as zeros).
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
            refuse_no_number("a loss scale", loss_scale)
            if not 0 < loss_scale < float("inf"):
                raise ValueError(
                    f"a loss scale must be a finite number above 0, not {loss_scale!r}"
                )
        self._set_up()
        if grads is not None and self._repeat(grads, loss_scale):
            return
        self._refresh()
        lend_gradients(self._set_up(), grads, loss_scale)
        self._update(lent=True)

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

        The zeros still let the moments decay and the parameter move. To leave parameters without
        a gradient alone instead, override this method with one that does nothing.
        """
        for param in self._set_up().parameters.values():
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

    def _read(self, serializer: Any) -> list[Callable[[], None]]:
        """Read and check counts, states and the loss scale."""
        take_loss_scale = self._read_loss_scaling(serializer)
        return [*super()._read(serializer), take_loss_scale]

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
        known = self.hyperparam.get_dict()
        for name, value in values.items():
            alias = isinstance(getattr(type(self), name, None), HyperparameterProxy)
            if name not in known and not alias:
                raise TypeError(
                    f"{type(self).__name__} has no hyperparameter {name!r}; "
                    f"there are: {', '.join(known)}"
                )
            self._check_hyperparam(name, value)
        if not values:
            raise TypeError("set_hyperparam needs a hyperparameter to set, as name=value")
        parameters = self.parameters
        paths = parameters.matching(which)
        rules = [parameters[path].update_rule for path in paths]
        if None in rules:
            raise ValueError(f"parameter {paths[rules.index(None)]!r} has no update rule")
        for rule in rules:
            for name, value in values.items():
                setattr(rule.hyperparam, name, value)
        return paths

    def _check_hyperparam(self, name: str, value: Any) -> None:
        """Refuse a value that a hyperparameter cannot have; any is good here."""

    def _hooked_parameters(self) -> list[Any]:
        """Return the parameters whose rule is there and enabled."""
        return [
            param
            for param in super()._hooked_parameters()
            if (rule := getattr(param, "update_rule", None)) is not None
            and getattr(rule, "enabled", True)
        ]

    def _refresh(self) -> None:
        """Walk the target, and give rules to the parameters that are new."""
        super()._refresh()
        known = {id(param) for param in self._known}
        self._known = []
        for path, param in self._set_up().parameters.items():
            self._known.append(param)
            # a rule of None in a parameter that is known was set by hand, and stays
            if id(param) not in known and getattr(param, "update_rule", None) is None:
                rule = param.update_rule = self.create_update_rule()
                if isinstance(rule, UpdateRule):
                    rule.path = path
                if self._use_fp32_update:
                    rule.use_fp32_update()

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

    def _update(self, lent: bool = False) -> None:
        """Update from the gradients that are there; forget those that were lent."""
        targets = self._set_up()
        params = targets.parameters.values()
        if any(map(capturing, {device_of(p.array) for p in params} - {CPU})):
            refuse_capture(self)
        alone = isinstance(targets, ArrayTarget) and not lent
        if alone and all(peek_grad(param) is None for param in params):
            raise ValueError(
                "there are no gradients: call update(lossfun, ...) with a function that "
                "returns (loss, gradients), or apply_gradients(gradients)"
            )
        try:
            self.reallocate_cleared_grads()
            self._unscale_and_look()
            self.check_nan_in_grads()
            self.call_hooks("pre")
            self._refuse_nonfinite()
            self._update_parameters()
            self.reallocate_cleared_grads()
            self.call_hooks("post")
            self.update_loss_scale()
        finally:
            self._facts = None
            targets.finish()
            narrow_gradients(self._unscaled)
            self._unscaled = ()
            if lent:
                for param in params:
                    param.cleargrad()

    def _update_parameters(self) -> None:
        """Count the step, run the rules unless it is to be skipped, and report."""
        safe = self.is_safe_to_update()
        work = Dispatch(self._set_up().parameters if safe else {}, self._work)
        self._work = work if safe else None
        work.check()
        # Ctrl-C between two parameters, or between a count and its step, would break a state
        with DeferredInterrupt():
            self.t += 1
            try:
                work.run()
            except BaseException:
                # a step that no parameter has taken is not counted
                if not work.applied:
                    self.t -= 1
                else:
                    self._report(skipped=False, applied=work.applied)
                raise
            self._report(skipped=not safe, applied=work.applied)
        batch = work.only_batch if safe else None
        self._kept = repeatable(self, GradientMethod, batch, work.applied)

    def _report(self, skipped: bool, applied: tuple[str, ...]) -> None:
        """Set `last_update`."""
        facts = self._facts
        if isinstance(facts, PendingFacts):
            self._last = self.t, skipped, facts, self._loss_scale, applied
            return
        self._last = UpdateReport(
            t=self.t,
            skipped=skipped,
            nonfinite=None if facts is None else facts.nonfinite,
            grad_norm=None if facts is None else facts.norm,
            loss_scale=self._loss_scale,
            applied=applied,
        )

    def _repeat(self, grads: Any = None, loss_scale: float | None = None) -> bool:
        """Make the update of before again, with other gradients, if that is all there is to do."""
        return self._kept is not None and self._kept.run(self, grads, loss_scale)
