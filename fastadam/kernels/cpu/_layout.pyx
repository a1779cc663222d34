"""Which of NumPy's arrays the loops can walk together: their memory, and the layout they share."""

cimport numpy as cnp
from cpython.object cimport PyObject_TypeCheck, PyTypeObject

from fastadam.kernels.cpu._tensors cimport (
    BFLOAT16,
    COMPUTING,
    FIRST_STREAM,
    FLOAT16,
    N_STREAMS,
    WIDE,
    Tensor,
)

from numpy.ma import MaskedArray

from fastadam.algorithms.adam import ADAM

cnp.import_array()

cdef object MASKED = MaskedArray

# The flag without which each stream is not there, or None.
cdef tuple FLAGS = tuple([stream.when for stream in ADAM.streams])


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


cdef bint masked(object array) noexcept:
    """Whether an array is masked: what is behind the mask is no number to be used."""
    return not cnp.PyArray_CheckExact(array) and PyObject_TypeCheck(array, <PyTypeObject*> MASKED)


cdef size_t pointer(object array, int wanted, cnp.ndarray p, bint written) noexcept:
    """The address of an array that the loops can walk beside p, 0 for any other."""
    cdef cnp.ndarray a
    if not cnp.PyArray_Check(array) or masked(array):
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


cdef bint has_loop(Tensor* tensor, object array, int computing, int bfloat16) noexcept:
    """Whether there is a loop for a gradient of an array's type; in the row, how it is stored."""
    cdef int type_number
    if not cnp.PyArray_Check(array):
        return False
    type_number = cnp.PyArray_TYPE(<cnp.ndarray> array)
    tensor.g_type = stored(type_number, computing, bfloat16)
    if type_number == cnp.NPY_FLOAT64 and computing == cnp.NPY_FLOAT32:
        tensor.g_type = WIDE
    if tensor.g_type < 0:
        return False
    # two different half types have no loop of their own
    return tensor.p_type == COMPUTING or tensor.g_type in (COMPUTING, WIDE, tensor.p_type)


cdef size_t gradient(Tensor* tensor, object array, int computing, int bfloat16, cnp.ndarray p):
    """The address of a gradient and, in the row, how it is stored; 0 where there is no loop."""
    if not has_loop(tensor, array, computing, bfloat16):
        return 0
    return pointer(array, cnp.PyArray_TYPE(<cnp.ndarray> array), p, False)


cdef size_t half_pointer(object array, cnp.ndarray master, int bfloat16) noexcept:
    """The address of a half-precision parameter that can be walked beside its master, 0 if not."""
    cdef int number
    if not cnp.PyArray_Check(array):
        return 0
    number = cnp.PyArray_TYPE(<cnp.ndarray> array)
    if stored(number, cnp.NPY_FLOAT32, bfloat16) <= COMPUTING:
        return 0
    return pointer(array, number, master, True)


cdef size_t* streams(Tensor* row) noexcept:
    """Where the addresses of the streams stand in a row."""
    return <size_t*> row + FIRST_STREAM


cdef bint describe_state(
    Tensor* row, tuple state, object flags, int computing, cnp.ndarray p
) except -1:
    """Note where the streams are; False if one cannot be walked beside p, or one is missing."""
    cdef size_t* at = streams(row)
    cdef Py_ssize_t k
    for k in range(N_STREAMS):
        if state[k] is None:
            at[k] = 0
            if FLAGS[k] is None or getattr(flags, FLAGS[k]):
                return False
        else:
            at[k] = pointer(state[k], computing, p, True)
            if not at[k]:
                return False
    return True


cdef bint same_shape(cnp.ndarray a, cnp.ndarray p) noexcept:
    """Whether two arrays have the same shape, in whatever layout."""
    cdef int axis
    if cnp.PyArray_NDIM(a) != cnp.PyArray_NDIM(p):
        return False
    for axis in range(cnp.PyArray_NDIM(p)):
        if cnp.PyArray_DIM(a, axis) != cnp.PyArray_DIM(p, axis):
            return False
    return True


cdef bint convertible(object grad, cnp.ndarray p, int bfloat16) noexcept:
    """Whether a gradient has the shape of p and real floating numbers, in whatever layout."""
    cdef cnp.ndarray g
    if not cnp.PyArray_Check(grad) or masked(grad):
        return False
    g = <cnp.ndarray> grad
    # other libraries' floating types, too, as `dtypes.is_floating` says
    if (<cnp.dtype> cnp.PyArray_DESCR(g)).kind != c"f" and cnp.PyArray_TYPE(g) != bfloat16:
        return False
    return same_shape(g, p)
