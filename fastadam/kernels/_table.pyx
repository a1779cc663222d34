"""Reads arrays into the descriptor table, in C: pointers, sizes and the layouts they share."""

cimport numpy as cnp

cnp.import_array()


cdef bint dense(cnp.ndarray a) noexcept:
    """Whether the elements fill one block of memory in some order of the axes."""
    cdef int ndim = cnp.PyArray_NDIM(a)
    cdef cnp.npy_intp* shape = cnp.PyArray_DIMS(a)
    cdef cnp.npy_intp* strides = cnp.PyArray_STRIDES(a)
    cdef cnp.npy_intp expected = cnp.PyArray_ITEMSIZE(a)
    cdef int axis, found, left = ndim
    cdef unsigned long seen = 0
    # find the axes by growing stride; each must step over all the smaller ones together
    while left:
        left -= 1
        found = -1
        for axis in range(ndim):
            if seen & (1ul << axis):
                continue
            if shape[axis] == 1 or strides[axis] == expected:
                found = axis
                break
        if found < 0:
            return False
        seen |= 1ul << found
        expected *= shape[found]
    return True


cdef bint same_layout(cnp.ndarray a, cnp.ndarray p) noexcept:
    """Whether a has the shape of p and lays its elements in the same order."""
    cdef int ndim = cnp.PyArray_NDIM(p)
    cdef int axis
    if cnp.PyArray_NDIM(a) != ndim:
        return False
    for axis in range(ndim):
        if cnp.PyArray_DIM(a, axis) != cnp.PyArray_DIM(p, axis):
            return False
        if cnp.PyArray_DIM(p, axis) == 1:
            continue
        if cnp.PyArray_STRIDE(a, axis) != cnp.PyArray_STRIDE(p, axis):
            return False
    return True


cdef size_t pointer(object array, cnp.ndarray p, bint written) noexcept:
    """The address of an array that the loops can walk beside p, 0 for any other."""
    cdef cnp.ndarray a
    if not cnp.PyArray_Check(array):
        return 0
    a = <cnp.ndarray> array
    if cnp.PyArray_TYPE(a) != cnp.PyArray_TYPE(p):
        return 0
    if not (cnp.PyArray_ISBEHAVED(a) if written else cnp.PyArray_ISBEHAVED_RO(a)):
        return 0
    if not same_layout(a, p):
        return 0
    return <size_t> cnp.PyArray_DATA(a)


def describe(list steps, Tensor[::1] table):
    """Fill the rows of a table from steps ``(name, p, g, m, v, vhat, coefficients)`` of one dtype.

    Returns the indices of the steps whose arrays do not share one dense, aligned, native and
    writable layout. Their rows stay empty (``n == 0``): the loops pass over them.
    """
    cdef Py_ssize_t i, start = 0
    cdef size_t p_at, g_at, m_at, v_at, vhat_at
    cdef tuple step
    cdef cnp.ndarray p
    cdef object vhat
    cdef bint needs_vhat
    cdef list others = []
    for i in range(len(steps)):
        step = <tuple> steps[i]  # a named tuple, of which Cython need not know
        table[i].start = start
        table[i].n = 0
        if not cnp.PyArray_Check(step[1]):
            others.append(i)
            continue
        p = step[1]
        if cnp.PyArray_TYPE(p) not in (cnp.NPY_FLOAT32, cnp.NPY_FLOAT64):
            others.append(i)
            continue
        vhat = step[5]
        p_at = pointer(p, p, True) if dense(p) else 0
        g_at = pointer(step[2], p, False)
        m_at = pointer(step[3], p, True)
        v_at = pointer(step[4], p, True)
        vhat_at = 0 if vhat is None else pointer(vhat, p, True)
        needs_vhat = vhat is not None or step[6].amsgrad
        if not (p_at and g_at and m_at and v_at) or (needs_vhat and not vhat_at):
            others.append(i)
            continue
        table[i].p = p_at
        table[i].g = g_at
        table[i].m = m_at
        table[i].v = v_at
        table[i].vhat = vhat_at
        table[i].n = cnp.PyArray_SIZE(p)
        start += table[i].n
    return others
