"""The formula in array operations: the specification that every kernel equals bit for bit.

Each operation is rounded once to the parameter's type, in the order written here. float32 steps
flush subnormal numbers, operands and results, to zero of the same sign, as the kernels do.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastadam.kernels.coefficients import Coefficients

__all__ = ["adam_reference"]

Array = npt.NDArray[Any]


def adam_reference(
    p: Array, g: Array, m: Array, v: Array, vhat: Array | None, coefficients: Coefficients
) -> None:
    """Make one step of the Adam family in place, in plain NumPy operations.

    Parameters
    ----------
    p, m, v : numpy.ndarray
        Parameter and moments: one shape, one dtype (float32 or float64). Written.
    g : numpy.ndarray
        The gradient: the same shape. Read, and rounded to the dtype of ``p``.
    vhat : numpy.ndarray or None
        The running maximum of ``v``; written with AMSGrad, not looked at without.
    coefficients : Coefficients
        The scalars of the step, in float64.
    """
    dtype = p.dtype.type
    with np.errstate(all="ignore"):
        alpha_t, one_minus_beta1, one_minus_beta2, eps, eta, one_minus_decay, lower, upper = (
            _flush(dtype(scalar)) for scalar in coefficients[:8]
        )
        p_, g_, m_, v_ = _flush(p), _flush(g.astype(dtype)), _flush(m), _flush(v)
        # m += (1 - beta1) * (g - m)
        m_ = _flush(m_ + _flush(one_minus_beta1 * _flush(g_ - m_)))
        # v += (1 - beta2) * (g*g - v)
        v_ = _flush(v_ + _flush(one_minus_beta2 * _flush(_flush(g_ * g_) - v_)))
        vhat_ = v_
        if coefficients.amsgrad:
            if vhat is None:
                raise ValueError("amsgrad needs vhat, the running maximum of v, and got None")
            # vhat = max(vhat, v)
            vhat_ = np.maximum(_flush(vhat), v_)
            vhat[...] = vhat_
        # step = alpha_t / (sqrt(vhat) + eps)
        step = _flush(alpha_t / _flush(np.sqrt(vhat_) + eps))
        if coefficients.adabound:
            # step = clip(step, lower, upper)
            step = np.minimum(np.maximum(step, lower), upper)
        # p = (1 - decay) * p - eta * (step * m)
        p_ = _flush(_flush(one_minus_decay * p_) - _flush(eta * _flush(step * m_)))
    p[...] = p_
    m[...] = m_
    v[...] = v_


def _flush(x: Any) -> Any:
    """Zero, of the same sign, for subnormal float32; float64 is left as it is."""
    if x.dtype != np.float32:
        return x
    return np.where(np.abs(x) < np.finfo(np.float32).tiny, np.copysign(np.float32(0), x), x)
