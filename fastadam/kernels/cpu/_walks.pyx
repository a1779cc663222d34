"""How arrays are walked together that share no dense layout: strided, misaligned, in other orders.

The loops bring what is apart together, chunk by chunk (``_walk.pxi``); here is found out along
which axes.
"""

cimport numpy as cnp
from cpython.ref cimport PyObject

from fastadam.kernels.cpu._tensors cimport MOST_AXES, N_WALKED, Walk

cnp.import_array()


cdef class Room:
    """Room for the walk of one row."""

    def __reduce__(self):
        raise TypeError("addresses cannot be copied")


cdef int sort_axes(cnp.ndarray p, int* order) noexcept:
    """Put the axes that are longer than 1 in the order in which p lies; return how many."""
    cdef int axis, place, n = 0
    cdef Py_ssize_t stride
    for axis in range(cnp.PyArray_NDIM(p)):
        if cnp.PyArray_DIM(p, axis) == 1:
            continue
        stride = abs(cnp.PyArray_STRIDE(p, axis))
        place = n
        while place and abs(cnp.PyArray_STRIDE(p, order[place - 1])) < stride:
            order[place] = order[place - 1]
            place -= 1
        order[place] = axis
        n += 1
    return n


cdef bint joins(const Walk* walk, PyObject** arrays, int axis) noexcept:
    """Whether an axis goes on, in every array, inside the steps of the last one so far."""
    cdef int k
    cdef cnp.ndarray array
    for k in range(N_WALKED):
        if arrays[k] != NULL:
            array = <cnp.ndarray> arrays[k]
            if walk.strides[k][walk.ndim - 1] != (
                cnp.PyArray_STRIDE(array, axis) * cnp.PyArray_DIM(array, axis)
            ):
                return False
    return True


cdef bint follows(const Walk* walk, int k) noexcept:
    """Whether the elements of an array follow one another as they are walked."""
    cdef Py_ssize_t axis, expected = walk.size[k]
    for axis in range(walk.ndim - 1, -1, -1):
        if walk.strides[k][axis] != expected:
            return False
        expected *= walk.shape[axis]
    return True


cdef bint find_walk(Walk* walk, PyObject** arrays) noexcept:
    """Find out how arrays of one shape are walked; whether any is apart.

    They are p, g and the streams, NULL for none, native and of numbers of 2, 4 or 8 bytes.
    """
    cdef int order[MOST_AXES]
    cdef int k, axis, place, n = sort_axes(<cnp.ndarray> arrays[0], order)
    cdef cnp.ndarray array
    cdef bint any_apart = False
    walk.ndim = 0
    for place in range(n):
        axis = order[place]
        if walk.ndim and joins(walk, arrays, axis):
            walk.shape[walk.ndim - 1] *= cnp.PyArray_DIM(<cnp.ndarray> arrays[0], axis)
        else:
            walk.shape[walk.ndim] = cnp.PyArray_DIM(<cnp.ndarray> arrays[0], axis)
            walk.ndim += 1
        for k in range(N_WALKED):
            if arrays[k] != NULL:
                array = <cnp.ndarray> arrays[k]
                walk.strides[k][walk.ndim - 1] = cnp.PyArray_STRIDE(array, axis)
    if not walk.ndim:
        # one element
        walk.ndim = walk.shape[0] = 1
        for k in range(N_WALKED):
            if arrays[k] != NULL:
                walk.strides[k][0] = cnp.PyArray_ITEMSIZE(<cnp.ndarray> arrays[k])
    for k in range(N_WALKED):
        walk.size[k] = walk.apart[k] = 0
        if arrays[k] != NULL:
            array = <cnp.ndarray> arrays[k]
            walk.size[k] = cnp.PyArray_ITEMSIZE(array)
            walk.apart[k] = not (follows(walk, k) and cnp.PyArray_ISALIGNED(array))
            any_apart |= walk.apart[k]
    return any_apart
