"""The public in-place step on plain arrays."""

from __future__ import annotations

import inspect
from typing import Any, Never

import numpy as np
import numpy.typing as npt

from fastadam.algorithms.adam import ADAM, INITIAL_ALPHA
from fastadam.algorithms.coefficients import step_coefficients
from fastadam.algorithms.number import step_number
from fastadam.algorithms.suggestions import HYPERPARAMETERS, no_argument
from fastadam.kernels.arrays import check_arrays
from fastadam.kernels.cpu import _threads, engine
from fastadam.kernels.cpu._single import SingleSteps
from fastadam.kernels.dtypes import bfloat16_number
from fastadam.kernels.plain_steps import adam_batch
from fastadam.kernels.table import Step

__all__ = ["adam_step", "at_once"]

Array = npt.NDArray[Any]

# A step of arrays with nothing unusual about them; False if it is to be made the longer way.
at_once = SingleSteps(
    engine.loop(np.dtype(np.float32)),
    engine.loop(np.dtype(np.float64)),
    _threads.SERIAL_BELOW,
    bfloat16_number,
).step

_BEGIN_WITH_ZEROS = "give one of that {what}: zeros before the first step"
_CLIP = "clip the gradient before: it is used as it is given"
_AS_GIVEN = "look at the gradient before: it is used as it is given"
_ONE_STEP = "leave it out: one call is one step of one array"

# What other libraries' optimizers take, and the answer here.
_ANSWERS = {
    **HYPERPARAMETERS,
    "amsgrad": "to give vhat, the running maximum of v, is to ask for AMSGrad",
    "params": "the parameter is the first argument",
    "decay": "a schedule gives another alpha at each step; weight decay is weight_decay_rate",
    "clipnorm": _CLIP,
    "clipvalue": _CLIP,
    "global_clipnorm": _CLIP,
    "max_grad_norm": _CLIP,
    "on_nonfinite": _AS_GIVEN,
    "monitor": _AS_GIVEN,
    "loss_scale": "divide the gradient before: it is used as it is given",
    "foreach": _ONE_STEP,
    "fused": _ONE_STEP,
    "capturable": _ONE_STEP,
}


def adam_step(
    param: Array,
    grad: Array,
    m: Array,
    v: Array,
    vhat: Array | None = None,
    *,
    t: int,
    alpha: float = 0.001,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-08,
    eta: float = 1.0,
    weight_decay_rate: float = 0.0,
    adabound: bool = False,
    final_lr: float = 0.1,
    gamma: float = 0.001,
    initial_alpha: float | None = None,
    eps_mode: str = "hat",
    decay_mode: str = "eta",
    **unknown: Never,
) -> None:
    r"""Make one step of the Adam family in place, for people who keep their own state.

    .. math::

       m &\leftarrow m + (1 - \beta_1) (g - m) \\
       v &\leftarrow v + (1 - \beta_2) (g^2 - v) \\
       \hat v &\leftarrow \max(\hat v, v) \text{ with AMSGrad, else } v \\
       s &= \alpha_t / (\sqrt{\hat v} + \epsilon),
         \text{ clipped to the bounds with AdaBound} \\
       p &\leftarrow (1 - \eta \lambda)\, p - \eta\, s\, m

    with :math:`\alpha_t = \alpha \sqrt{1 - \beta_2^t} / (1 - \beta_1^t)` and the weight decay
    rate :math:`\lambda`. Everything is checked before anything is written.

    Parameters
    ----------
    param : array of float16, bfloat16, float32 or float64, any shape and layout
        The parameter. Written.
    grad : array of a real floating dtype, the shape of `param`
        The gradient. Only read; rounded to the dtype of `m`.
    m, v : array, shape of `param`, float64 if that is float64, float32 otherwise
        First and second moment, zeros before the first step. Written.
    vhat : array, shape of `param`, dtype of `m`, optional
        Running maximum of `v`, zeros before the first step. Written. To give it is to ask for
        AMSGrad.
    t : int
        Number of this step: 1 for the first.
    alpha, beta1, beta2, eps, eta, weight_decay_rate, adabound, final_lr, gamma
        As for :class:`fastadam.Adam`. The weight decay is *not* multiplied by `alpha`.
    initial_alpha : float, optional
        With AdaBound and a scheduled `alpha`: the alpha of the first step. The bounds scale with
        ``alpha / initial_alpha``. Default: `alpha`.
    eps_mode : {'hat', 'paper'}
        As for :class:`fastadam.Adam`.
    decay_mode : {'eta', 'alpha'}
        As for :class:`fastadam.Adam`.
    **unknown
        None is taken: a name of another library's is answered with the one that is meant.

    Raises
    ------
    TypeError
        If an array has a dtype or type that cannot be stepped; if there is no such argument, with
        the one that is meant.
    ValueError
        If shapes differ, an array to write is read-only, arrays to write share memory, `t` is no
        whole number or below 1, a number is out of its range, or `eps` would be 0 in the dtype
        of `m`.

    References
    ----------
    Kingma and Ba, "Adam: A Method for Stochastic Optimization", arXiv:1412.6980.

    Examples
    --------
    >>> import numpy as np
    >>> from fastadam import adam_step
    >>> w, m, v = np.ones(3), np.zeros(3), np.zeros(3)
    >>> for t in range(1, 1001):
    ...     adam_step(w, 2 * w, m, v, t=t, alpha=0.01)  # the gradient of sum(w**2) is 2*w
    >>> bool(np.all(np.abs(w) < 1e-2))
    True
    """
    if unknown:
        raise TypeError(_no_argument(next(iter(unknown))))
    state = (m, v, vhat)
    values = (
        alpha,
        beta1,
        beta2,
        eps,
        eta,
        weight_decay_rate,
        vhat is not None,
        adabound,
        final_lr,
        gamma,
        eps_mode,
        decay_mode,
    )
    if at_once(param, grad, state, t, values, initial_alpha):
        return
    number_of_step = step_number(t)
    check_arrays("param", param, grad, state, remedy=_BEGIN_WITH_ZEROS)
    coefficients = step_coefficients(
        {hyper.name: value for hyper, value in zip(ADAM.hypers, values, strict=True)},
        number_of_step,
        None if initial_alpha is None else INITIAL_ALPHA.check(initial_alpha, "adam_step"),
        "adam_step",
    )
    adam_batch([Step("param", param, grad, state, coefficients)])


def _no_argument(name: str) -> str:
    """Say what to do in the place of an argument that `adam_step` does not have."""
    takes = [each for each in inspect.signature(adam_step).parameters if each != "unknown"]
    return no_argument("adam_step", name, takes, _ANSWERS.get(name))
