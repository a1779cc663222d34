"""The optimizer that needs one gradient: the order of an update."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Self, cast

import numpy as np

from fastadam.algorithms.number import GREATEST_SCALE, LEAST_SCALE
from fastadam.kernels.backend import CPU, device_of, wait_for, zeros_like
from fastadam.model._gradients import missing
from fastadam.model.parameter import peek_grad
from fastadam.serializers.prepared import PreparedLoad
from fastadam.serializers.protocol import is_deserializer
from fastadam.update.exclusive import exclusive
from fastadam.update.gradients import GradientStats, PendingStats
from fastadam.update.graph import Replay
from fastadam.update.hooks import Hook
from fastadam.update.loss_scale_files import prepare_loss_scale, write_loss_scale
from fastadam.update.lossfun import clear_gradients, no_pair, without_graph
from fastadam.update.making import make_update
from fastadam.update.overrides import others
from fastadam.update.plan import UpdatePlan
from fastadam.update.report import UpdateReport
from fastadam.update.rule import UpdateRule
from fastadam.update.ruled import RuledOptimizer
from fastadam.update.target import ArrayTarget

__all__ = ["GradientMethod"]


class GradientMethod(RuledOptimizer):
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
    _replay: Replay | None = None
    # all that have been captured: as long as a graph may be launched, what it reads must be there
    _graphs: tuple[Replay, ...] = ()
    # a report, or what one is to be made of
    _last: UpdateReport | tuple[Any, ...] | None = None

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

    def setup(self, link: Any) -> Self:
        """Set the target and give every parameter a new rule.

        Parameters
        ----------
        link : Link, object with ``params()``, module, array, or dict or list of arrays
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
            make_update(self, _has_own_parts)
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
            loss = without_graph(loss)
            make_update(self, _has_own_parts, grads, lent=True)
            return loss
        self._refresh()
        arrays = isinstance(self._targets, ArrayTarget)
        if arrays or not callable(getattr(loss, "backward", None)):
            raise TypeError(
                no_pair(loss) + ("" if arrays else "; or a loss with backward(), without them")
            )
        clear_gradients(self._set_up(), self.target, self._use_cleargrads)
        loss = self._set_up().backward(loss, self._loss_scale)
        make_update(self, _has_own_parts)
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
        # without a call for what nearly all of them are
        plain = type(loss_scale) is float and LEAST_SCALE <= loss_scale <= GREATEST_SCALE
        if loss_scale is not None and not plain:
            self._check_loss_scale(loss_scale)
        make_update(self, _has_own_parts, grads, loss_scale, lent=True)

    @exclusive
    def prepare_replay(self) -> None:
        """Get ready for the next launch of a CUDA graph in which an update was captured.

        Counts the step, and writes its scalars, such as the bias-corrected rate of the new ``t``,
        to where the graph reads them: on the current stream, which must be the one that the graph
        is launched on, or be waited for by it and wait for its launch before. A launch that was
        not prepared steps nothing.

        Raises
        ------
        RuntimeError
            If no update has been captured; if parameters, states, hooks or settings have changed
            since, except for hyperparameters of the whole optimizer, which may.

        Notes
        -----
        An update is captured by calling `update` or `apply_gradients` between
        ``stream.begin_capture()`` and ``stream.end_capture()``, after one such update. It is not
        made then, nor counted. `last_update` is that of the last replay; what it says of gradients
        is waited for, and is to be looked at after the launch. A graph divides gradients by the
        loss scale of its capture. The optimizer keeps what its graphs read, and must live as long
        as they. Where the host decides it cannot be captured: with dynamic loss scaling, and an
        `on_nonfinite` other than 'propagate'.

        Examples
        --------
        With CuPy's arrays on a GPU::

            stream = cupy.cuda.Stream(non_blocking=True)
            with stream:
                opt.apply_gradients(gradients)
                stream.begin_capture()
                compute(gradients)
                opt.apply_gradients(gradients)
                graph = stream.end_capture()
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

    def forget_graphs(self) -> None:
        """Let go of the memory that captured updates read: no graph of theirs is launched any more.

        Examples
        --------
        >>> import fastadam
        >>> fastadam.Adam().forget_graphs()
        """
        for captured in self._graphs:
            captured.forget()
        self._replay, self._graphs = None, ()

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
        # no floating-point setting of a caller's reaches into an update
        with np.errstate(all="ignore"):
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
            write_loss_scale(self, serializer)

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
        prepare_loss_scale(self, prepared, serializer)
        return prepared

    def _before_first_update(self) -> None:
        """Get ready for the first update; there is nothing to do here."""


# Whether an optimizer has made parts of an update its own: then they are called.
_has_own_parts = others(
    GradientMethod,
    "reallocate_cleared_grads",
    "call_hooks",
    "call_hook",
    "check_nan_in_grads",
    "is_safe_to_update",
)
