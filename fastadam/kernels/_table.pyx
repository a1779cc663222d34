"""Reads arrays into the descriptor table, in C: pointers, sizes and the layouts they share."""

cimport numpy as cnp
from cpython.dict cimport PyDict_GetItem
from cpython.ref cimport PyObject

from fastadam.kernels._table cimport BFLOAT16, COMPUTING, FLOAT16, Tensor

cnp.import_array()


cdef bint dense(cnp.ndarray a) noexcept:
    """Whether the elements fill one block of memory in some order of the axes."""
    cdef int ndim = cnp.PyArray_NDIM(a)
    cdef cnp.npy_intp* shape = cnp.PyArray_DIMS(a)
    cdef cnp.npy_intp* strides = cnp.PyArray_STRIDES(a)
    cdef cnp.npy_intp expected = cnp.PyArray_ITEMSIZE(a)
    cdef int axis, found, left = ndim
    cdef unsigned long seen = 0
    if cnp.PyArray_SIZE(a) == 0:
        return True
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
    if cnp.PyArray_SIZE(p) == 0:
        return True
    for axis in range(ndim):
        if cnp.PyArray_DIM(p, axis) == 1:
            continue
        # in elements, since the sizes of their types may differ
        if (
            cnp.PyArray_STRIDE(a, axis) * cnp.PyArray_ITEMSIZE(p)
            != cnp.PyArray_STRIDE(p, axis) * cnp.PyArray_ITEMSIZE(a)
        ):
            return False
    return True


cdef size_t pointer(object array, int wanted, cnp.ndarray p, bint written) noexcept:
    """The address of an array that the loops can walk beside p, 0 for any other."""
    cdef cnp.ndarray a
    if not cnp.PyArray_Check(array):
        return 0
    a = <cnp.ndarray> array
    if cnp.PyArray_TYPE(a) != wanted:
        return 0
    if not (cnp.PyArray_ISBEHAVED(a) if written else cnp.PyArray_ISBEHAVED_RO(a)):
        return 0
    if not same_layout(a, p):
        return 0
    return <size_t> cnp.PyArray_DATA(a)


cdef Py_ssize_t stored(int type_number, int computing, int bfloat16) noexcept:
    """How an array of this type is stored, a Stored; -1 where there is no loop for it."""
    if type_number == computing:
        return COMPUTING
    if computing != cnp.NPY_FLOAT32:
        return -1
    if type_number == cnp.NPY_FLOAT16:
        return FLOAT16
    return BFLOAT16 if type_number == bfloat16 else -1


cdef size_t gradient(Tensor* tensor, object array, int computing, int bfloat16, cnp.ndarray p):
    """The address of a gradient and, in the row, how it is stored; 0 where there is no loop."""
    cdef int type_number
    if not cnp.PyArray_Check(array):
        return 0
    type_number = cnp.PyArray_TYPE(<cnp.ndarray> array)
    tensor.g_type = stored(type_number, computing, bfloat16)
    if tensor.g_type < 0:
        return 0
    # two different half types have no loop of their own
    if tensor.p_type != COMPUTING and tensor.g_type not in (COMPUTING, tensor.p_type):
        return 0
    return pointer(array, type_number, p, False)


def describe(list steps, Tensor[::1] table, int bfloat16):
    """Fill the rows of a table from steps ``(name, p, g, m, v, vhat, coefficients)``.

    The steps are computed in one type, float32 or float64; ``bfloat16`` is NumPy's number of that
    type, -1 if it is not there. Returns the indices of the steps whose arrays do not share one
    dense, aligned, native and writable layout. Their rows stay empty (``n == 0``): the loops pass
    over them.
    """
    cdef Py_ssize_t i, start = 0
    cdef size_t p_at, g_at, m_at, v_at, vhat_at
    cdef int p_number, computing
    cdef tuple step
    cdef cnp.ndarray p
    cdef object vhat
    cdef bint needs_vhat
    cdef list others = []
    for i in range(len(steps)):
        step = <tuple> steps[i]  # a named tuple, of which Cython need not know
        table[i].start = start
        table[i].n = 0
        table[i].g_type = COMPUTING
        table[i].p_type = COMPUTING
        if not cnp.PyArray_Check(step[1]):
            others.append(i)
            continue
        p = step[1]
        p_number = cnp.PyArray_TYPE(p)
        computing = cnp.NPY_FLOAT64 if p_number == cnp.NPY_FLOAT64 else cnp.NPY_FLOAT32
        table[i].p_type = stored(p_number, computing, bfloat16)
        if table[i].p_type < 0:
            others.append(i)
            continue
        vhat = step[5]
        p_at = pointer(p, p_number, p, True) if dense(p) else 0
        g_at = gradient(&table[i], step[2], computing, bfloat16, p)
        m_at = pointer(step[3], computing, p, True)
        v_at = pointer(step[4], computing, p, True)
        vhat_at = 0 if vhat is None else pointer(vhat, computing, p, True)
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


cdef object state_array(dict state, str key):
    """An array of a state by its name, None if it is not there."""
    cdef PyObject* found = PyDict_GetItem(state, key)
    return None if found == NULL else <object> found


cdef class Rows:
    """A described table that is kept, and read again at every step.

    Parameters
    ----------
    table : numpy.ndarray of batch.TENSOR
        Described and dense in every row.
    coefficients : numpy.ndarray of float32 or float64, shape (sets, 8)
        What the rows refer to.
    low, high : numpy.ndarray of uintp
        Where the memory of the parameters begins, ascending, and the greatest end so far.
    bfloat16 : int
        As for `describe`.
    """

    cdef Tensor[::1] table
    cdef bint single
    cdef float[:, ::1] narrow
    cdef double[:, ::1] wide
    cdef const size_t[::1] low, high
    cdef int bfloat16

    def __init__(
        self,
        Tensor[::1] table,
        cnp.ndarray coefficients,
        const size_t[::1] low,
        const size_t[::1] high,
        int bfloat16,
    ):
        self.table = table
        self.single = cnp.PyArray_TYPE(coefficients) == cnp.NPY_FLOAT32
        if self.single:
            self.narrow = coefficients
        else:
            self.wide = coefficients
        self.low = low
        self.high = high
        self.bfloat16 = bfloat16

    def __reduce__(self):
        raise TypeError("addresses cannot be copied")

    def follow(self, list params, list gradients, list states):
        """Take over the addresses of new gradients; False if anything else is not as it was.

        The arrays are given in the order of the rows, those of the states in dicts. Also False for a
        gradient that shares memory with a parameter.
        """
        cdef Py_ssize_t i
        for i in range(self.table.shape[0]):
            if not self.follow_row(&self.table[i], params[i], gradients[i], states[i]):
                return False
        return True

    def take(self, Py_ssize_t row, named_tuple):
        """Write one set of coefficients, each rounded once."""
        cdef tuple coefficients = <tuple> named_tuple  # of which Cython need not know
        cdef Py_ssize_t k
        if self.single:
            for k in range(self.narrow.shape[1]):
                self.narrow[row, k] = <float> <double> coefficients[k]
        else:
            for k in range(self.wide.shape[1]):
                self.wide[row, k] = <double> coefficients[k]

    cdef bint follow_row(self, Tensor* row, object param, object grad, dict state) except -1:
        """One row; the gradient's address is the only one that may have changed."""
        cdef cnp.ndarray p
        cdef int p_number, computing
        cdef size_t g_at
        cdef Py_ssize_t g_type = row.g_type
        if state is None or not cnp.PyArray_Check(param):
            return False
        p = <cnp.ndarray> param
        p_number = cnp.PyArray_TYPE(p)
        computing = cnp.NPY_FLOAT64 if p_number == cnp.NPY_FLOAT64 else cnp.NPY_FLOAT32
        if (
            cnp.PyArray_SIZE(p) != row.n
            or stored(p_number, computing, self.bfloat16) != row.p_type
            or not dense(p)
            or pointer(p, p_number, p, True) != row.p
            or pointer(state_array(state, "m"), computing, p, True) != row.m
            or pointer(state_array(state, "v"), computing, p, True) != row.v
            or (row.vhat and pointer(state_array(state, "vhat"), computing, p, True) != row.vhat)
        ):
            return False
        g_at = gradient(row, grad, computing, self.bfloat16, p)
        if row.g_type != g_type or not g_at:
            row.g_type = g_type
            return False
        if g_at != row.g:
            if self.overlaps(g_at, row.n * cnp.PyArray_ITEMSIZE(<cnp.ndarray> grad)):
                return False
            row.g = g_at
        return True

    cdef bint overlaps(self, size_t begin, size_t size) noexcept:
        """Whether memory is part of a parameter's."""
        cdef Py_ssize_t first = 0, last = self.low.shape[0], middle
        # the parameters that begin before its end
        while first < last:
            middle = (first + last) // 2
            if self.low[middle] < begin + size:
                first = middle + 1
            else:
                last = middle
        return first > 0 and self.high[first - 1] > begin
