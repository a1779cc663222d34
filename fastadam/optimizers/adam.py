"""Adam: the optimizer whose flags make all the others of the family."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, ClassVar

from fastadam.algorithms.adam import ADAM, DECAY_MODES, EPS_MODES
from fastadam.algorithms.coefficients import alpha_t
from fastadam.kernels.backend import CPU, device_of
from fastadam.optimizers.adam_rule import DEFAULTS, AdamRule
from fastadam.optimizers.gate import Gate, check_all
from fastadam.optimizers.suggestions import (
    explain_foreign_arguments,
    no_attribute,
    no_hyperparameter,
    refused_attribute,
)
from fastadam.update.gradient_method import GradientMethod
from fastadam.update.hyperparameter import HyperparameterProxy, guard, plain
from fastadam.update.loss_scale import MISSING_GRADIENTS
from fastadam.update.overrides import is_ours, stores_plainly

__all__ = ["Adam", "AdamRule"]

_MODES = {hyper.name: hyper.modes for hyper in ADAM.hypers if hyper.modes}


class _Mode(HyperparameterProxy):
    """A mode: a hyperparameter that is there only where somebody has set it.

    So the bag of hyperparameters holds what Chainer's does, numbers alone.
    """

    def __get__(self, obj: Any, owner: type | None = None) -> Any:
        if obj is None:
            return self
        name = self._attr_name
        return obj.hyperparam.get_dict().get(name, _MODES[name][0])

    def __set__(self, obj: Any, value: Any) -> None:
        self.store(obj.hyperparam, self._attr_name, value)
        # the default is not stored, but it has been chosen
        vars(obj)[f"_{self._attr_name}_chosen"] = True

    @staticmethod
    def store(bag: Any, name: str, value: Any) -> None:
        """Set a mode, or delete what says another than the default."""
        setattr(bag, name, value)
        if value == _MODES[name][0]:
            delattr(bag, name)


class Adam(GradientMethod):
    r"""Adam, with decoupled weight decay, and AMSGrad and AdaBound as flags.

    With gradient :math:`g` at step :math:`t = 1, 2, \ldots`:

    .. math::

       m &\leftarrow m + (1 - \beta_1) (g - m) \\
       v &\leftarrow v + (1 - \beta_2) (g^2 - v) \\
       \hat v &\leftarrow \max(\hat v, v) \text{ if amsgrad, else } v \\
       \alpha_t &= \alpha \sqrt{1 - \beta_2^t} / (1 - \beta_1^t) \\
       s &= \alpha_t / (\sqrt{\hat v} + \epsilon),
         \text{ clipped to [lower, upper] if adabound} \\
       p &\leftarrow (1 - \eta \lambda)\, p - \eta\, s\, m

    where :math:`\lambda` is `weight_decay_rate`. State is kept in the parameter's dtype, in float32
    for float16 and bfloat16. Each line is rounded once per operation, and float32 and float64
    results equal Chainer's bit for bit on the CPU.

    Parameters
    ----------
    alpha : float
        Learning rate :math:`\alpha`.
    beta1, beta2 : float in [0, 1)
        Decay rates :math:`\beta_1, \beta_2` of the first and second moment.
    eps : float
        :math:`\epsilon`, which keeps the division finite; 0 is allowed.
    eta : float
        Schedule multiplier :math:`\eta`, of the step and of the decay alike.
    weight_decay_rate : float
        The trap first: it is *not* multiplied by `alpha`. PyTorch's ``weight_decay=0.01`` at
        ``lr=1e-3`` is ``weight_decay_rate=1e-5`` here; or keep 0.01 and pass
        ``decay_mode='alpha'``. The parameter shrinks by the fraction ``eta *
        weight_decay_rate`` at every step, independently of the gradient.
    amsgrad : bool
        Whether to divide by the running maximum of :math:`v`.
    adabound : bool
        Whether to clip the step size to bounds that close in on `final_lr`.
    final_lr : float
        With AdaBound, the step size (that of SGD) at the end.
    gamma : float
        With AdaBound, how fast the bounds close: ``lower = f * (1 - 1/(gamma*t + 1))``,
        ``upper = f * (1 + 1/(gamma*t))``, with ``f = final_lr * alpha / (the first alpha)``.
    eps_mode : {'hat', 'paper'}, keyword-only
        Where eps is added. 'hat', Chainer's, adds it to the uncorrected root, as in the
        formula. 'paper' adds it to the bias-corrected root, as the paper's Algorithm 1 and
        PyTorch do: `eps` is multiplied by :math:`\sqrt{1 - \beta_2^t}`.
    decay_mode : {'eta', 'alpha'}, keyword-only
        What multiplies the weight decay. 'eta', Chainer's: ``eta * weight_decay_rate``.
        'alpha', PyTorch's and Keras's: ``eta * alpha * weight_decay_rate``.
    missing_gradients : {'zeros', 'skip'}, keyword-only
        What an update does with a parameter whose gradient is None. 'zeros', Chainer's: it is
        updated as with zeros. 'skip', PyTorch's: it is left alone, with its state and its count.

    Attributes
    ----------
    hyperparam : Hyperparameter
        All of the above; each is also an attribute of the optimizer, to get and to set.
    target : object
        What was given to `setup`.
    t, epoch : int
        Updates made, epochs begun.

    Notes
    -----
    Departures from the paper: eps stands where the paper's remark at the end of section 2 puts it
    (``eps_mode='hat'``); and with ``amsgrad``, :math:`\hat v` is not bias-corrected.

    References
    ----------
    * Kingma and Ba, "Adam: A Method for Stochastic Optimization", arXiv:1412.6980.
    * Loshchilov and Hutter, "Decoupled Weight Decay Regularization", arXiv:1711.05101.
    * Reddi, Kale and Kumar, "On the Convergence of Adam and Beyond", arXiv:1904.09237.
    * Luo, Xiong, Liu and Sun, "Adaptive Gradient Methods with Dynamic Bound of Learning Rate",
      arXiv:1902.09843.

    Examples
    --------
    >>> import numpy as np
    >>> import fastadam
    >>> X = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 7.0]])
    >>> y = X @ np.array([2.0, -1.0])
    >>> params = {'w': np.zeros(2)}
    >>> def loss(params):
    ...     residual = X @ params['w'] - y
    ...     return residual @ residual, {'w': 2 * X.T @ residual}
    >>> opt = fastadam.Adam(alpha=0.1).setup(params)
    >>> for _ in range(2000):
    ...     value = opt.update(loss, params)
    >>> params['w'].round(3)
    array([ 2., -1.])
    """

    # The flags that a subclass is made of; they are no news in its repr.
    _fixed: ClassVar[dict[str, Any]] = {}
    _optional_hyperparams = frozenset(_MODES)

    alpha = HyperparameterProxy("alpha")
    beta1 = HyperparameterProxy("beta1")
    beta2 = HyperparameterProxy("beta2")
    eps = HyperparameterProxy("eps")
    eta = HyperparameterProxy("eta")
    weight_decay_rate = HyperparameterProxy("weight_decay_rate")
    amsgrad = HyperparameterProxy("amsgrad")
    adabound = HyperparameterProxy("adabound")
    final_lr = HyperparameterProxy("final_lr")
    gamma = HyperparameterProxy("gamma")
    eps_mode = _Mode("eps_mode")
    decay_mode = _Mode("decay_mode")

    @explain_foreign_arguments
    def __init__(
        self,
        alpha: float = DEFAULTS.alpha,
        beta1: float = DEFAULTS.beta1,
        beta2: float = DEFAULTS.beta2,
        eps: float = DEFAULTS.eps,
        eta: float = DEFAULTS.eta,
        weight_decay_rate: float = DEFAULTS.weight_decay_rate,
        amsgrad: bool = DEFAULTS.amsgrad,
        adabound: bool = DEFAULTS.adabound,
        final_lr: float = DEFAULTS.final_lr,
        gamma: float = DEFAULTS.gamma,
        *,
        eps_mode: str = EPS_MODES[0],
        decay_mode: str = DECAY_MODES[0],
        missing_gradients: str = MISSING_GRADIENTS[0],
    ) -> None:
        super().__init__()
        kind = type(self)
        self.missing_gradients = missing_gradients
        numbers = (alpha, beta1, beta2, eps, eta, weight_decay_rate, amsgrad, adabound, final_lr)
        given = dict(zip(DEFAULTS.get_dict(), (*numbers, gamma), strict=True))
        modes = {"eps_mode": eps_mode, "decay_mode": decay_mode}
        check_all(kind.__name__, {**given, **modes}, {})
        for name, value in given.items():
            setattr(self.hyperparam, name, value)
        for name, mode in modes.items():
            _Mode.store(self.hyperparam, name, mode)
        guard(self.hyperparam, Gate(kind.__name__, free=not is_ours(kind)))

    def create_update_rule(self) -> AdamRule:
        """Return a new :class:`fastadam.AdamRule` that follows this optimizer."""
        return AdamRule(self.hyperparam)

    @property
    def alpha_t(self) -> float:
        """The bias-corrected learning rate of the last update; RuntimeError before the first."""
        hp = self.hyperparam
        return alpha_t(float(hp.alpha), float(hp.beta1), float(hp.beta2), self.t)

    @property
    def lr(self) -> float:
        """Alias of `alpha_t` (deprecated)."""
        warnings.warn(
            f"{type(self).__name__}.lr is deprecated: read alpha_t",
            DeprecationWarning,
            stacklevel=2,
        )
        return self.alpha_t

    def _check_hyperparam(
        self, name: str, value: Any, door: str = "", others: Mapping[str, Any] | None = None
    ) -> None:
        """Refuse a name that no hyperparameter has, and a value that it cannot have."""
        kind = type(self)
        gate = Gate(kind.__name__, free=not is_ours(kind))
        gate.check(name, value, door or kind.__name__, {} if others is None else others)

    def _no_hyperparam(self, name: str) -> str:
        """Say which hyperparameter is meant by one that is not there."""
        return no_hyperparameter(type(self).__name__, name)

    def __repr__(self) -> str:
        usual = {**DEFAULTS.get_dict(), **self._fixed}
        values = self.hyperparam.get_dict()
        shown = {name: plain(value) for name, value in values.items()}
        changed = [f"{k}={v!r}" for k, v in shown.items() if k not in usual or v != usual[k]]
        if self._missing_gradients != MISSING_GRADIENTS[0]:
            changed.append(f"missing_gradients={self._missing_gradients!r}")
        head = f"{type(self).__name__}({', '.join(changed)})"
        if self.target is None:
            return f"<{head}, not set up>"
        parameters = {} if self._targets is None else self._targets.parameters
        arrays = [param.array for param in parameters.values()]
        ready = [array for array in arrays if array is not None]
        facts = [
            f"{len(arrays)} parameter{'' if len(arrays) == 1 else 's'}",
            f"{sum(array.size for array in ready):,} elements",
            "/".join(sorted({str(array.dtype) for array in ready})) or "uninitialised",
            _places(ready),
        ]
        return f"<{head} t={self.t} epoch={self.epoch}: {', '.join(facts)}>"

    def __getattr__(self, name: str) -> Any:
        # only called when the normal lookup has failed
        raise AttributeError(no_attribute(type(self), name))

    @stores_plainly
    def __setattr__(self, name: str, value: Any) -> None:
        kind = type(self)
        if not hasattr(kind, name) and name not in self.__dict__:
            # a subclass of somebody else's may have attributes of any name
            refused = refused_attribute(kind, name) if is_ours(kind) else None
            if refused is not None:
                raise AttributeError(refused)
        elif name == "lr" and kind.lr is Adam.lr:
            raise AttributeError(f"{kind.__name__}.lr cannot be set: set alpha")
        super().__setattr__(name, value)


def _places(arrays: list[Any]) -> str:
    """Name the devices that arrays are on; the CPU as long as there are none."""
    numbers = sorted({device_of(array) for array in arrays}) or [CPU]
    return "/".join("CPU" if number == CPU else f"GPU {number}" for number in numbers)
