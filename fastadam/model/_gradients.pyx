"""The gradients of many parameters: read, lent, cleared and looked for, without a call for each."""

cimport numpy as cnp
from cpython.object cimport PyObject_GenericSetAttr

from fastadam.model.parameter import Parameter

cnp.import_array()

cdef object OURS = Parameter


def gradients_of(list params):
    """Return the gradients as they are, None where there is none; those of other libraries' too."""
    cdef object param
    cdef list found = []
    for param in params:
        found.append(param._grad if isinstance(param, OURS) else param.grad)
    return found


def missing(list params):
    """Tell whether a parameter that has an array has no gradient."""
    cdef object param
    for param in params:
        if isinstance(param, OURS):
            if param._grad is None and param._array is not None:
                return True
        elif param.grad is None and param.array is not None:
            return True
    return False


def lent_arrays(list params, list given, object convert):
    """Return a caller's gradients as arrays, as far as they are for parameters on the CPU.

    Parameters
    ----------
    params, given : list
        In one order; None is no gradient.
    convert : callable
        Called with parameter and gradient for what is no array; returns one that fits, or raises.
    """
    cdef Py_ssize_t i
    cdef object grad, param
    cdef list found = list(given)
    for i in range(len(found)):
        grad = found[i]
        if grad is None or cnp.PyArray_Check(grad):
            continue
        param = params[i]
        if isinstance(param, OURS) and cnp.PyArray_Check(param._array):
            found[i] = convert(param, grad)
    return found


def lend_all(list params, list arrays, object loss_scale):
    """Lend gradients that fit to parameters of this library, None for none.

    Parameters
    ----------
    params, arrays : list
        In one order.
    loss_scale : float or None
        What the loss was multiplied by.
    """
    cdef Py_ssize_t i
    cdef object param
    for i in range(len(params)):
        param = params[i]
        PyObject_GenericSetAttr(param, "_grad", arrays[i])
        PyObject_GenericSetAttr(param, "_grad_borrowed", arrays[i] is not None)
        PyObject_GenericSetAttr(param, "_loss_scale", loss_scale)


def any_lent(list params):
    """Tell whether a parameter's gradient is a caller's, which is never written."""
    cdef object param
    for param in params:
        if isinstance(param, OURS) and param._grad_borrowed:
            return True
    return False


def clear_all(list params):
    """Set all gradients to None."""
    cdef object param
    for param in params:
        if type(param) is OURS and param._array is not None:
            if param._grad is not None:
                PyObject_GenericSetAttr(param, "_grad", None)
                PyObject_GenericSetAttr(param, "_grad_borrowed", False)
            if param._loss_scale is not None:
                PyObject_GenericSetAttr(param, "_loss_scale", None)
        elif isinstance(param, OURS) or param.grad is not None:
            param.cleargrad()


def scales_of(list params):
    """Return the loss scales that backward passes have left; None if there is none."""
    cdef object param, scale
    cdef list found = []
    cdef bint scaled = False
    for param in params:
        scale = getattr(param, "_loss_scale", None)
        scaled |= scale is not None
        found.append(scale)
    return found if scaled else None


def absent(list params, list gradients):
    """Return where there is an array but no gradient.

    Parameters
    ----------
    params, gradients : list
        In one order; None is no gradient.
    """
    cdef Py_ssize_t i
    cdef object param
    cdef list found = []
    for i in range(len(gradients)):
        if gradients[i] is None:
            param = params[i]
            if (param._array if isinstance(param, OURS) else param.array) is not None:
                found.append(i)
    return found


def fits(list params, list arrays):
    """Tell whether gradients are such as parameters of this library are lent, as far as NumPy goes.

    Parameters
    ----------
    params, arrays : list
        In one order; None is no gradient, which always fits.

    Returns
    -------
    int
        0 if one does not fit; 2 if all parameters are this library's, with NumPy's arrays or none;
        otherwise 1: of the others it is not known.
    """
    cdef Py_ssize_t i
    cdef int axis, answer = 2
    cdef char kind
    cdef bint bfloat16
    cdef object param
    cdef cnp.ndarray p, g
    for i in range(len(params)):
        param = params[i]
        if not isinstance(param, OURS):
            answer = 1
            continue
        if arrays[i] is None:
            continue
        if not cnp.PyArray_Check(param._array):
            if param._array is None:
                return 0
            answer = 1
            continue
        if not cnp.PyArray_CheckExact(arrays[i]):
            return 0
        p, g = <cnp.ndarray> param._array, <cnp.ndarray> arrays[i]
        # of types that are not NumPy's, only bfloat16 says that it has no kind and two bytes
        kind = (<cnp.dtype> cnp.PyArray_DESCR(g)).kind
        bfloat16 = (
            cnp.PyTypeNum_ISUSERDEF(cnp.PyArray_TYPE(g))
            and kind == c"V"
            and cnp.PyArray_ITEMSIZE(g) == 2
        )
        if kind != c"f" and not bfloat16:
            return 0
        if cnp.PyArray_NDIM(g) != cnp.PyArray_NDIM(p):
            return 0
        for axis in range(cnp.PyArray_NDIM(p)):
            if cnp.PyArray_DIM(g, axis) != cnp.PyArray_DIM(p, axis):
                return 0
    return answer
