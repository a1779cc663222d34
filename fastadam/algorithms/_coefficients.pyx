# cython: cdivision=False
"""The scalars of one step, from numbers that are checked and the step count.

The only place where bias correction, the bounds of AdaBound and the paper's eps are computed;
always in float64. The kernels round each result once to their type.
"""

import math

from libc.math cimport INFINITY, isfinite, isinf, pow, sqrt

from fastadam.algorithms.adam import Coefficients

cdef object new_tuple = tuple.__new__


cdef double correction(double beta, double t) except? -1:
    """``1 - beta**t``"""
    cdef double power = pow(beta, t)
    if not isfinite(power):
        # an error, or infinite as beta is
        power = math.pow(beta, t)
    return 1.0 - power


cpdef double alpha_t(double alpha, double beta1, double beta2, object t) except? -1:
    """Return the bias-corrected learning rate of step ``t``.

    ``alpha_t = alpha * sqrt(1 - beta2**t) / (1 - beta1**t)``

    Raises
    ------
    RuntimeError
        If ``t`` is 0: no step has been made yet.
    ZeroDivisionError
        If ``beta1`` is 1: the first moment would never move away from 0.
    ValueError
        If ``beta2`` is so far above 1 that the root is of a negative number.
    """
    cdef double correction1, correction2
    if t == 0:
        raise RuntimeError(
            "alpha_t is defined from the first update on (t >= 1), and no update has been made yet"
        )
    correction1 = correction(beta1, t)
    correction2 = correction(beta2, t)
    if correction1 == 0:
        raise ZeroDivisionError(
            f"beta1 = {beta1} leaves 1 - beta1**t = 0 at t = {t}; beta1 must be below 1"
        )
    if correction2 < 0:
        raise ValueError(
            f"beta2 = {beta2} makes 1 - beta2**t negative at t = {t}; beta2 must be below 1"
        )
    return alpha * sqrt(correction2) / correction1


def bounds(double alpha, double final_lr, double gamma, double initial_alpha, t):
    """Return AdaBound's lower and upper bound of the step size at step ``t``.

    ``final = final_lr * alpha / initial_alpha``, so that a schedule of ``alpha`` moves the bounds
    too; ``lower = final * (1 - 1/(gamma*t + 1))`` and ``upper = final * (1 + 1/(gamma*t))``.
    ``gamma = 0`` is the limit: no bounds at all. An ``alpha`` that is still at an initial 0
    gives ``(0, 0)``: no step.

    Raises
    ------
    RuntimeError
        If ``t`` is 0: no step has been made yet.
    """
    cdef double final, lower, upper, reach
    if t == 0:
        raise RuntimeError(
            "the bounds are defined from the first update on (t >= 1), "
            "and no update has been made yet"
        )
    if initial_alpha == 0:
        return 0.0, 0.0
    final = final_lr * alpha / initial_alpha
    reach = gamma * <double> t
    lower = final * (1.0 - 1.0 / (reach + 1))
    upper = final * (1.0 + 1.0 / reach) if reach != 0 else INFINITY
    return lower, upper


def coefficients_at(c, t, initial_alpha=None):
    """Return the scalars of step ``t``.

    ``eps_mode='paper'`` turns eps into ``eps * sqrt(1 - beta2**t)``, which is the paper's (and
    PyTorch's) eps outside the bias-corrected root. ``initial_alpha`` is the alpha against which
    AdaBound measures schedules; None stands for the current one.

    Raises
    ------
    ValueError
        If ``beta2`` is above 1, or ``alpha`` so large that the step would be infinite.
    ZeroDivisionError
        If ``beta1`` is 1, or ``beta2`` is with ``eps_mode='paper'``, which divides by its
        correction.
    """
    cdef double alpha, beta1, beta2, eps, decay, step_alpha, correction2, start
    cdef double lower = 0.0, upper = INFINITY
    alpha, beta1, beta2, eps, eta, decay, amsgrad, adabound, final_lr, gamma, paper = <tuple> c
    step_alpha = alpha_t(alpha, beta1, beta2, t)
    if isinf(step_alpha):
        raise ValueError(
            f"alpha = {alpha} with beta1 = {beta1} makes alpha_t infinite at t = {t}; alpha is too "
            "large"
        )
    if paper:
        correction2 = correction(beta2, t)
        if correction2 == 0:
            raise ZeroDivisionError(
                f"beta2 = {beta2} leaves 1 - beta2**t = 0 at t = {t}, by which "
                "eps_mode='paper' divides; beta2 must be below 1"
            )
        eps *= sqrt(correction2)
    if adabound:
        start = alpha if initial_alpha is None else initial_alpha
        lower, upper = bounds(alpha, final_lr, gamma, start, t)
        if not isfinite(lower):
            raise ValueError(
                f"final_lr * alpha / initial_alpha = {final_lr} * {alpha} / {start} gives no "
                "finite bounds of the step"
            )
    # not by the named tuple's own constructor, which is written in Python
    return new_tuple(
        Coefficients,
        (
            step_alpha,
            1.0 - beta1,
            1.0 - beta2,
            eps,
            eta,
            1.0 - decay,
            lower,
            upper,
            amsgrad,
            adabound,
        ),
    )


def with_alpha(c, double alpha):
    """Return the same numbers with another alpha, which the decay must not depend on.

    Parameters
    ----------
    c : Constants
        Checked, with ``decay_mode='eta'`` or without decay.
    alpha : float
        A finite number.
    """
    # not by `_replace`, which takes ten times as long: schedules do this in every update
    return new_tuple(type(c), (alpha, *(<tuple> c)[1:]))
