"""The formula in array operations: the specification that every kernel equals bit for bit.

Each operation is rounded once to the computing type, in the order written here: float64 for
float64, float32 for everything else. float32 steps flush subnormal numbers to zero of the same
sign: operands, and results, which are rounded as if the exponent had no lower bound first. So a
result is zero if it is below ``2**-126`` once it has 24 bits, even where float32 by itself would
round it up to ``2**-126``: there it has one bit less.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fastadam.algorithms.adam import ADAM, Coefficients
from fastadam.kernels.dtypes import computing_dtype

__all__ = ["adam_reference", "squares_reference", "tree_sum"]

Array = npt.NDArray[Any]


def adam_reference(
    p: Array, g: Array, m: Array, v: Array, vhat: Array | None, coefficients: Coefficients
) -> None:
    """Make one step of the Adam family in place, in plain NumPy operations.

    Parameters
    ----------
    p : numpy.ndarray
        The parameter: float16, bfloat16, float32 or float64. Written.
    m, v : numpy.ndarray
        The moments: the shape of ``p``, and the dtype in which its steps are computed. Written.
    g : numpy.ndarray
        The gradient: the same shape. Read, and rounded to the dtype of ``m``.
    vhat : numpy.ndarray or None
        The running maximum of ``v``; written with AMSGrad, not looked at without.
    coefficients : Coefficients
        The scalars of the step, in float64.
    """
    dtype = m.dtype.type
    with np.errstate(all="ignore"):
        alpha_t, one_minus_beta1, one_minus_beta2, eps, eta, one_minus_decay, lower, upper = (
            _flush(dtype(scalar)) for scalar in coefficients[: len(ADAM.scalars)]
        )
        p_, g_, m_, v_ = _flush(p.astype(dtype)), _flush(g.astype(dtype)), _flush(m), _flush(v)
        # m += (1 - beta1) * (g - m)
        m_ = _add(m_, _multiply(one_minus_beta1, _subtract(g_, m_)))
        # v += (1 - beta2) * (g*g - v)
        v_ = _add(v_, _multiply(one_minus_beta2, _subtract(_multiply(g_, g_), v_)))
        vhat_ = v_
        if coefficients.amsgrad:
            if vhat is None:
                raise ValueError("amsgrad needs vhat, the running maximum of v, and got None")
            # vhat = max(vhat, v)
            vhat_ = np.maximum(_flush(vhat), v_)
            vhat[...] = vhat_
        # step = alpha_t / (sqrt(vhat) + eps); no root is near the subnormal numbers
        step = _divide(alpha_t, _add(np.sqrt(vhat_), eps))
        if coefficients.adabound:
            # step = clip(step, lower, upper)
            step = np.minimum(np.maximum(step, lower), upper)
        # p = (1 - decay) * p - eta * (step * m)
        p_ = _subtract(_multiply(one_minus_decay, p_), _multiply(eta, _multiply(step, m_)))
    with np.errstate(over="ignore"):
        p[...] = p_.astype(p.dtype)
    m[...] = m_
    v[...] = v_


def squares_reference(g: Array, scale: float | None = None) -> float:
    """Return the sum of squares of a gradient, or of its quotient by a loss scale.

    The order of the additions is defined: chunks of 4096 elements in the order of memory; in a
    chunk, lane i of 256 adds the squares of the elements i, i + 256, ...; the lanes fold by
    halves; the sums of the chunks are added by `tree_sum`. Everything in float64, of elements in
    the computing type.

    Parameters
    ----------
    g : numpy.ndarray
        The gradient; one that is neither C- nor Fortran-contiguous counts in C order.
    scale : float, optional
        What it is divided by.
    """
    whole = g.flags.c_contiguous or g.flags.f_contiguous
    x = g.ravel("K" if whole else "C")
    with np.errstate(all="ignore"):
        x = _flush(x.astype(computing_dtype(g.dtype) or np.float64))
        if scale is not None:
            # rounded to float32 first, and then flushed: not in the mode in which steps are made
            x = _flush(x / x.dtype.type(scale))
        chunks = []
        for begin in range(0, x.size, 4096):
            lanes = np.zeros(256)
            for row in range(begin, min(begin + 4096, x.size), 256):
                elements = x[row : min(row + 256, begin + 4096)].astype(np.float64)
                lanes[: elements.size] += elements * elements
            while lanes.size > 1:
                lanes = lanes[: lanes.size // 2] + lanes[lanes.size // 2 :]
            chunks.append(lanes[0])
        return tree_sum(chunks)


def tree_sum(numbers: Sequence[float]) -> float:
    """Return the sum of numbers that are not negative, in float64, added in a defined order.

    They are the leaves of a binary tree: the nodes 2k and 2k + 1 of a level are added to node k of
    the next one. A last node without a neighbour moves up as it is, as if the tree were full and
    all that is missing were zeros. So a node is the same however many numbers follow, and whole
    subtrees may be made by different threads or machines.

    Parameters
    ----------
    numbers : sequence of float
        The sums of the chunks of an array, or those of arrays in their order.
    """
    nodes = np.array(numbers, np.float64)
    with np.errstate(all="ignore"):
        while nodes.size > 1:
            # a zero for the neighbour that is missing
            nodes = np.append(nodes, np.zeros(nodes.size % 2))
            nodes = nodes[0::2] + nodes[1::2]
    return float(nodes[0]) if nodes.size else 0.0


def _flush(x: Any) -> Any:
    """Zero, of the same sign, for subnormal float32; float64 is left as it is."""
    if x.dtype != np.float32:
        return x
    return np.where(np.abs(x) < np.finfo(np.float32).tiny, np.copysign(np.float32(0), x), x)


# Half-way between 2**-126 and the number of 24 bits before it: what is below is rounded below.
_EDGE = 2.0**-126 - 2.0**-151


def _operation(operation: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Make an operation of float32 that flushes after rounding; of float64, the plain one."""

    def flushing(a: Any, b: Any) -> Any:
        x = operation(a, b)
        if x.dtype != np.float32:
            return x
        # Exact where it is below the edge, but for quotients, and none of those is rounded across
        # it: a quotient of 24-bit numbers is the edge itself or 2**-49 of it away.
        wide = operation(np.asarray(a, np.float64), np.asarray(b, np.float64))
        return np.where(np.abs(wide) < _EDGE, np.copysign(np.float32(0), x), x)

    return flushing


_add, _subtract = _operation(operator.add), _operation(operator.sub)
_multiply, _divide = _operation(operator.mul), _operation(operator.truediv)
