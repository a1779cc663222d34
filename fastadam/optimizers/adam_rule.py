"""The update rule of the Adam family: from a parameter and its state to the kernels."""

from __future__ import annotations

import math
import warnings
from collections.abc import Hashable, Sequence
from operator import attrgetter
from typing import Any

from fastadam.algorithms.adam import ADAM, BY_NAME, INITIAL_ALPHA
from fastadam.algorithms.algorithm import Hyper
from fastadam.algorithms.coefficients import alpha_t, bounds, step_coefficients
from fastadam.kernels._source import ArraySource
from fastadam.kernels.arrays import check_parameter
from fastadam.kernels.backend import is_array
from fastadam.kernels.dtypes import is_half
from fastadam.kernels.multi_tensor import MultiTensorStep
from fastadam.kernels.step import at_once
from fastadam.model.parameter import peek_grad
from fastadam.optimizers.adam_state import AdamState, widened
from fastadam.optimizers.gate import Gate, check_all
from fastadam.optimizers.suggestions import explain_foreign_arguments
from fastadam.serializers.prepared import PreparedLoad
from fastadam.serializers.protocol import is_deserializer, optional_number
from fastadam.update._scalars import stored_values
from fastadam.update.hyperparameter import Hyperparameter, guard
from fastadam.update.overrides import class_overrides, is_chainers, is_ours, overrides_any
from fastadam.update.rule_steps import RuleSteps

__all__ = ["DEFAULTS", "AdamRule"]

DEFAULTS = Hyperparameter()
for _hyper in ADAM.hypers:
    if not _hyper.modes:
        setattr(DEFAULTS, _hyper.name, _hyper.default)
guard(DEFAULTS, Gate("AdamRule", free=False))

# A rule for which one of these is its own business is updated by itself, not in a batch.
_OVERRIDABLE = (
    "update",
    "update_core",
    "update_core_cpu",
    "update_core_gpu",
    "alpha_t",
    "bounds",
    "init_state",
)

# With its own of these, a rule may make any step.
_OF_STEPS = ("update", "update_core", "update_core_cpu")

# The properties that a step's scalars are read from.
_SCALARS = attrgetter("alpha_t", "bounds")

# The names of the hyperparameters, and what those are that need not be there.
_NAMES = tuple(hyper.name for hyper in ADAM.hypers)
_UNLESS_GIVEN = tuple(hyper.default if hyper.modes else None for hyper in ADAM.hypers)

# A class with its own of these has batches of its own.
_OF_BATCHES = ("update_batch", "check_batch")


class AdamRule(AdamState):
    """The update rule that :class:`fastadam.Adam` and its variants give to each parameter.

    Parameters
    ----------
    parent_hyperparam : Hyperparameter, optional
        Where hyperparameters are looked up that are not given here: usually the optimizer's.
        Default: the defaults of :class:`fastadam.Adam`.
    alpha, beta1, beta2, eps, eta, weight_decay_rate, amsgrad, adabound, final_lr, gamma, \
eps_mode, decay_mode : optional
        As for :class:`fastadam.Adam`. None means the parent's.

    Attributes
    ----------
    initial_alpha : float
        With AdaBound: the alpha against which `bounds` measures schedules of alpha.

    Examples
    --------
    >>> import numpy as np
    >>> from fastadam import Parameter, AdamRule
    >>> param = Parameter(np.array([1.0]))
    >>> param.grad = np.array([2.0])
    >>> rule = AdamRule(alpha=0.5)
    >>> rule.update(param)
    >>> param.array.round(6)
    array([0.5])
    """

    is_elementwise = True

    @explain_foreign_arguments
    def __init__(
        self,
        parent_hyperparam: Hyperparameter | None = None,
        alpha: float | None = None,
        beta1: float | None = None,
        beta2: float | None = None,
        eps: float | None = None,
        eta: float | None = None,
        weight_decay_rate: float | None = None,
        amsgrad: bool | None = None,
        adabound: bool | None = None,
        final_lr: float | None = None,
        gamma: float | None = None,
        *,
        eps_mode: str | None = None,
        decay_mode: str | None = None,
    ) -> None:
        super().__init__(parent_hyperparam or DEFAULTS)
        kind = type(self)
        numbers = (alpha, beta1, beta2, eps, eta, weight_decay_rate, amsgrad, adabound, final_lr)
        given = zip(_NAMES, (*numbers, gamma, eps_mode, decay_mode), strict=True)
        own = {name: value for name, value in given if value is not None}
        if own:
            check_all(kind.__name__, own, self.hyperparam.get_dict())
        for name, value in own.items():
            setattr(self.hyperparam, name, value)
        guard(self.hyperparam, Gate(kind.__name__, free=not is_ours(kind)))
        if self.hyperparam.adabound:
            self.initial_alpha = self.hyperparam.alpha

    @property
    def alpha_t(self) -> float:
        """The bias-corrected learning rate of the last update; RuntimeError before the first."""
        hp = self.hyperparam
        return alpha_t(float(hp.alpha), float(hp.beta1), float(hp.beta2), self.t)

    @property
    def lr(self) -> float:
        """Alias of `alpha_t` (deprecated)."""
        warnings.warn("AdamRule.lr is deprecated: read alpha_t", DeprecationWarning, stacklevel=2)
        return self.alpha_t

    @property
    def bounds(self) -> tuple[float, float]:
        """AdaBound's lower and upper bound of the last update; RuntimeError before the first."""
        hp = self.hyperparam
        return bounds(
            float(hp.alpha), float(hp.final_lr), float(hp.gamma), self._start_alpha(), self.t
        )

    def serialize(self, serializer: Any) -> None:
        """Write or read `t`, the state and, with AdaBound, a first alpha that is not today's.

        Parameters
        ----------
        serializer : Serializer or Deserializer
            fastadam's or another library's, such as Chainer's.
        """
        super().serialize(serializer)
        start = self.__dict__.get("initial_alpha")
        # a schedule has moved alpha since: without this, setup would take today's for the first
        if not is_deserializer(serializer) and start and start != self.hyperparam.alpha:
            serializer("initial_alpha", float(start))

    def prepare_load(self, serializer: Any, param: Any = None) -> PreparedLoad:
        """Read and check `t`, the state and the first alpha; nothing changes yet.

        Parameters
        ----------
        serializer : Deserializer
            Where to read. Nothing is read from it later.
        param : Parameter, optional
            The rule's parameter, for shapes and dtypes.

        Returns
        -------
        PreparedLoad
            What its ``commit()`` is going to change.
        """
        prepared = super().prepare_load(serializer, param)
        start = optional_number(serializer, "initial_alpha")
        if start is not None:
            prepared.attribute(self, "initial_alpha", start)
        return prepared

    def update_core_cpu(self, param: Any) -> None:
        """Make the step of one parameter; ``t`` already counts it.

        Parameters
        ----------
        param : Parameter
            The parameter. If its gradient is None, there is no step: what state is missing is
            made, and that is all.
        """
        own, state = self.__dict__, self._state
        # the scalars go through properties, which a subclass may override
        if type(state) is dict and _SCALARS(type(self)) == _OF_ADAM:
            values = stored_values(self.hyperparam)
            if values is not None:
                start = None if values.get("adabound") is False else self._start_alpha()
                if at_once(
                    param.array,
                    peek_grad(param),
                    tuple(map(state.get, ADAM.state)),
                    self.t,
                    tuple(map(values.get, _NAMES, _UNLESS_GIVEN)),
                    start,
                    own,
                    {"_stepped_at": self.t},
                ):
                    return
        hp = self.hyperparam.get_dict()
        coefficients = step_coefficients(hp, self.t, self._start_alpha(), self._door())
        coefficients = coefficients._replace(alpha_t=float(self.alpha_t))
        if coefficients.adabound:
            lower, upper = self.bounds
            coefficients = coefficients._replace(lower=float(lower), upper=float(upper))
        state = self._ready_state(param, coefficients)
        if peek_grad(param) is None:
            self._state = state
            return
        if any(is_half(value.dtype) for value in state.values() if is_array(value)):
            state = {key: widened(value) for key, value in state.items()}

        step = self._step(param, peek_grad(param), state, coefficients)
        source = ArraySource([step], [])
        kernel_step = MultiTensorStep(source, [step])
        kernel_step.read([coefficients])
        kernel_step.step(self.__dict__, {"_state": state, "_stepped_at": self.t}, ())

    def update_core_gpu(self, param: Any) -> None:
        """Make the step of one parameter on a GPU, as `update_core_cpu`.

        Parameters
        ----------
        param : Parameter
            The parameter.
        """
        # the kernels look for themselves where the arrays are
        AdamRule.update_core_cpu(self, param)

    def batch_key(self) -> Hashable | None:
        """Tell whether this rule is a plain AdamRule without hooks, to be updated in a batch."""
        if self._hooks or not self._keeps(self, *_OVERRIDABLE):
            return None
        kind: type[Any] = type(self)
        # the count is written in C, past what a class may make of that
        if class_overrides(kind, ("__setattr__",), object) or hasattr(kind, "t"):
            return None
        return (kind if class_overrides(kind, _OF_BATCHES, AdamRule) else AdamRule,)

    @classmethod
    def check_batch(cls, rules: Sequence[Any], params: Sequence[Any]) -> None:
        """Raise what `update_batch` would refuse, and change nothing.

        Rules that overriding methods make something else than Adam are not checked.

        Parameters
        ----------
        rules, params : sequence
            As for `update_batch`.
        """
        if all(cls._keeps(rule, *_OF_STEPS) for rule in rules):
            _steps_of(rules, params, trial=True)

    @classmethod
    def update_batch(cls, rules: Sequence[Any], params: Sequence[Any]) -> None:
        """Update many parameters in one call of the kernels, with the bits of `update`.

        Parameters
        ----------
        rules : sequence of AdamRule
            Enabled rules of one `batch_key`.
        params : sequence of Parameter
            Their parameters, in the same order.
        """
        steps = _steps_of(rules, params)
        if steps is not None:
            steps.step({}, {})

    def _steps_with_others(self) -> bool:
        """Tell whether this is a plain AdamRule without hooks."""
        return self._keeps(self, "batch_key") and self.batch_key() == (AdamRule,)

    def _check_single(self, param: Any) -> RuleSteps | None:
        """Raise what an update would refuse; return the step that was described for it."""
        if not self._keeps(self, "check_batch"):
            return super()._check_single(param)  # type: ignore[no-any-return]
        keeps = self._keeps(self, *_OF_STEPS)
        return _steps_of([self], [param], trial=True) if keeps else None

    def _is_known_to_write_state(self) -> bool:
        """Tell whether nobody else makes the state."""
        return self._keeps(self, *_OF_STEPS)

    @staticmethod
    def _keeps(rule: Any, *names: str) -> bool:
        """Tell whether a rule has AdamRule's own methods under these names."""
        return not overrides_any(rule, names, AdamRule)

    def _check_parameter(self, path: str, param: Any) -> None:
        """Refuse what the kernels cannot step, unless overriding methods make something else."""
        array = param.array
        if not is_array(array) or not self._keeps(self, *_OVERRIDABLE[:4]):
            return
        # Chainer's links may hold numbers that count; who disables their rules may train the rest
        if array.dtype.kind not in "biu" or not is_chainers(param):
            check_parameter(path, array)

    def _number(self, hyper: Hyper, value: Any) -> float:
        """Return a hyperparameter as a float."""
        if type(value) is float and math.isfinite(value):
            return value
        return float(hyper.check(value, self._door()))

    def _start_alpha(self) -> float:
        """Return the alpha against which AdaBound measures schedules: the first that is not 0."""
        hp = self.hyperparam
        adabound = hp.adabound
        if adabound is not True and adabound is not False:
            adabound = BY_NAME["adabound"].check(adabound, self._door())
        if not adabound:
            return self._number(BY_NAME["alpha"], hp.alpha)
        if not self.__dict__.get("initial_alpha"):
            self.initial_alpha = hp.alpha
        return self._number(INITIAL_ALPHA, self.initial_alpha)


_OF_ADAM = _SCALARS(AdamRule)


def _steps_of(rules: Sequence[Any], params: Sequence[Any], trial: bool = False) -> RuleSteps | None:
    """Describe the next step of rules whose parameters are there; None if none is."""
    pairs = [
        (rule, param) for rule, param in zip(rules, params, strict=True) if param.array is not None
    ]
    if not pairs:
        return None
    rules, params = map(list, zip(*pairs, strict=True))
    steps = RuleSteps(rules, params, trial=trial)
    steps.read([peek_grad(param) for param in params])
    return steps
