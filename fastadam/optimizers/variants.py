"""The named special cases of Adam: AdamW, AMSGrad, AdaBound and AMSBound."""

from __future__ import annotations

import contextlib
from typing import Any, ClassVar

from fastadam.algorithms.adam import EPS_MODES
from fastadam.algorithms.number import number
from fastadam.optimizers.adam import Adam
from fastadam.optimizers.adam_rule import DEFAULTS
from fastadam.optimizers.decay_advice import UNCHOSEN, warn_of_decay
from fastadam.optimizers.suggestions import explain_foreign_arguments
from fastadam.serializers.prepared import PreparedLoad
from fastadam.update.loss_scale import MISSING_GRADIENTS

__all__ = ["AMSBound", "AMSGrad", "AdaBound", "AdamW"]


class AdamW(Adam):
    """Adam under the name by which its decoupled weight decay is known; the default rate is 0.

    The trap first: `weight_decay_rate` is *not* multiplied by `alpha`, so PyTorch's
    ``weight_decay=0.01`` at ``lr=1e-3`` is ``weight_decay_rate=1e-5`` here; or keep 0.01 and pass
    ``decay_mode='alpha'``. And its default is 0: ``AdamW()`` is ``Adam()``. A rate that is not
    below `alpha`, without a `decay_mode`, is nearly always a mistake: a UserWarning says so, once.

    ``p = (1 - eta * weight_decay_rate) * p - eta * step * m``, with the step of
    :class:`fastadam.Adam`, whose constructor this is, without the flags.

    Parameters
    ----------
    alpha, beta1, beta2, eps, eta, weight_decay_rate, eps_mode, decay_mode, missing_gradients
        As for :class:`fastadam.Adam`.

    References
    ----------
    Loshchilov and Hutter, "Decoupled Weight Decay Regularization", arXiv:1711.05101.

    Examples
    --------
    >>> import numpy as np
    >>> import fastadam
    >>> w = np.array([1.0, -2.0])
    >>> opt = fastadam.AdamW(weight_decay_rate=0.1, decay_mode='eta').setup(w)
    >>> opt.apply_gradients(np.zeros(2))  # without a gradient, the decay alone
    >>> w
    array([ 0.9, -1.8])
    """

    # whether somebody has said what weight decay is multiplied by
    _decay_mode_chosen: bool = False

    @explain_foreign_arguments
    def __init__(
        self,
        alpha: float = DEFAULTS.alpha,
        beta1: float = DEFAULTS.beta1,
        beta2: float = DEFAULTS.beta2,
        eps: float = DEFAULTS.eps,
        eta: float = DEFAULTS.eta,
        weight_decay_rate: float = DEFAULTS.weight_decay_rate,
        *,
        eps_mode: str = EPS_MODES[0],
        decay_mode: str = UNCHOSEN,
        missing_gradients: str = MISSING_GRADIENTS[0],
    ) -> None:
        self._decay_mode_chosen = decay_mode is not UNCHOSEN
        super().__init__(
            alpha=alpha,
            beta1=beta1,
            beta2=beta2,
            eps=eps,
            eta=eta,
            weight_decay_rate=weight_decay_rate,
            eps_mode=eps_mode,
            decay_mode=decay_mode,
            missing_gradients=missing_gradients,
        )
        self._look_at_decay()

    def _before_first_update(self) -> None:
        """Look at what has been set since."""
        self._look_at_decay()

    def prepare_load(self, serializer: Any) -> PreparedLoad:
        """Read as every optimizer does; what is loaded was looked at when it was new."""
        prepared = super().prepare_load(serializer)
        prepared.attribute(self, "_decay_mode_chosen", True)
        return prepared

    def _look_at_decay(self) -> None:
        """Warn if weight decay is probably meant to be multiplied by alpha."""
        hp = self.hyperparam
        if self._decay_mode_chosen or "decay_mode" in hp.get_dict():
            return
        # what is no number is refused by the update
        with contextlib.suppress(AttributeError, TypeError, ValueError):
            alpha, rate = number(hp.alpha), number(hp.weight_decay_rate)
            warn_of_decay(type(self).__name__, alpha, rate)


class AMSGrad(Adam):
    r"""Adam that divides by the running maximum of the second moment.

    :math:`\hat v \leftarrow \max(\hat v, v)`, and :math:`\hat v` takes the place of :math:`v` in
    the step of :class:`fastadam.Adam`: no step grows because :math:`v` falls. As in Chainer, the
    maximum is taken without bias correction.

    Parameters
    ----------
    alpha, beta1, beta2, eps, eta, eps_mode, missing_gradients
        As for :class:`fastadam.Adam`.

    References
    ----------
    Reddi, Kale and Kumar, "On the Convergence of Adam and Beyond", arXiv:1904.09237.

    Examples
    --------
    >>> import numpy as np
    >>> import fastadam
    >>> w = np.array([1.0, -2.0])
    >>> opt = fastadam.AMSGrad(alpha=0.1).setup(w)
    >>> for _ in range(500):
    ...     opt.apply_gradients(2 * w)  # the gradient of sum(w**2)
    >>> bool(np.all(np.abs(w) < 1e-3))
    True
    """

    _fixed: ClassVar[dict[str, Any]] = {"amsgrad": True}

    @explain_foreign_arguments
    def __init__(
        self,
        alpha: float = DEFAULTS.alpha,
        beta1: float = DEFAULTS.beta1,
        beta2: float = DEFAULTS.beta2,
        eps: float = DEFAULTS.eps,
        eta: float = DEFAULTS.eta,
        *,
        eps_mode: str = EPS_MODES[0],
        missing_gradients: str = MISSING_GRADIENTS[0],
    ) -> None:
        super().__init__(
            alpha=alpha,
            beta1=beta1,
            beta2=beta2,
            eps=eps,
            eta=eta,
            amsgrad=True,
            eps_mode=eps_mode,
            missing_gradients=missing_gradients,
        )


class _Bounded(Adam):
    """What is made with AdaBound's arguments, of which `eps` and `eta` are the last."""

    @explain_foreign_arguments
    def __init__(
        self,
        alpha: float = DEFAULTS.alpha,
        beta1: float = DEFAULTS.beta1,
        beta2: float = DEFAULTS.beta2,
        final_lr: float = DEFAULTS.final_lr,
        gamma: float = DEFAULTS.gamma,
        eps: float = DEFAULTS.eps,
        eta: float = DEFAULTS.eta,
        *,
        eps_mode: str = EPS_MODES[0],
        missing_gradients: str = MISSING_GRADIENTS[0],
    ) -> None:
        super().__init__(
            alpha=alpha,
            beta1=beta1,
            beta2=beta2,
            eps=eps,
            eta=eta,
            final_lr=final_lr,
            gamma=gamma,
            eps_mode=eps_mode,
            missing_gradients=missing_gradients,
            **self._fixed,
        )


class AdaBound(_Bounded):
    """Adam whose step size is clipped to bounds that close in on that of SGD.

    The step ``alpha_t / (sqrt(v) + eps)`` is clipped to ``[lower, upper]``, with
    ``lower = f * (1 - 1/(gamma*t + 1))``, ``upper = f * (1 + 1/(gamma*t))`` and
    ``f = final_lr * alpha / (the first alpha)``.

    Parameters
    ----------
    alpha, beta1, beta2, final_lr, gamma, eps, eta, eps_mode, missing_gradients
        As for :class:`fastadam.Adam`. Mind the order: `eps` and `eta` come last.

    Notes
    -----
    Departures from the paper, as in the authors' own code: the bounds grow and shrink with a
    schedule of `alpha`, and the clipped step is not divided by the square root of `t`.

    References
    ----------
    Luo, Xiong, Liu and Sun, "Adaptive Gradient Methods with Dynamic Bound of Learning Rate",
    arXiv:1902.09843.

    Examples
    --------
    >>> import numpy as np
    >>> import fastadam
    >>> w = np.array([1.0, -2.0])
    >>> opt = fastadam.AdaBound(alpha=0.01, final_lr=0.1).setup(w)
    >>> for _ in range(500):
    ...     opt.apply_gradients(2 * w)
    >>> bool(np.all(np.abs(w) < 1e-3))
    True
    """

    _fixed: ClassVar[dict[str, Any]] = {"adabound": True}


class AMSBound(_Bounded):
    """AdaBound on the running maximum of the second moment.

    The step of :class:`fastadam.AdaBound`, with the running maximum of :class:`fastadam.AMSGrad`
    in place of ``v``.

    Parameters
    ----------
    alpha, beta1, beta2, final_lr, gamma, eps, eta, eps_mode, missing_gradients
        As for :class:`fastadam.Adam`. Mind the order: `eps` and `eta` come last.

    References
    ----------
    Luo, Xiong, Liu and Sun, "Adaptive Gradient Methods with Dynamic Bound of Learning Rate",
    arXiv:1902.09843.

    Examples
    --------
    >>> import fastadam
    >>> fastadam.AMSBound(0.01, 0.9, 0.999, 0.5)
    <AMSBound(alpha=0.01, final_lr=0.5), not set up>
    """

    _fixed: ClassVar[dict[str, Any]] = {"amsgrad": True, "adabound": True}
