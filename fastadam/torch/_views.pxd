# Tensors as they were read: where they lie, in which types and layouts, and how two compare.

cimport numpy as cnp

from fastadam.kernels.cpu._tensors cimport BFLOAT16, COMPUTING, FLOAT16, WIDE


cdef enum:
    MOST_AXES = 32
    ON_CPU = -1


# One tensor as it was read.
cdef struct View:
    size_t data
    int ndim
    int kind              # a Kind; -1 for what is no floating number
    int device            # which GPU it is on; ON_CPU for the CPU
    bint pairs            # whether it is one of complex numbers
    cnp.npy_intp shape[MOST_AXES + 1]
    cnp.npy_intp strides[MOST_AXES + 1]   # in bytes


cdef enum Kind:
    FLOAT16_KIND
    FLOAT32_KIND
    FLOAT64_KIND
    BFLOAT16_KIND
    N_KINDS


cdef inline int bytes_of(int kind) noexcept:
    """Of an element."""
    return 8 if kind == FLOAT64_KIND else 4 if kind == FLOAT32_KIND else 2


cdef inline bint same_shape(const View* view, cnp.ndarray a) noexcept:
    """Whether a tensor has the shape of an array."""
    cdef int axis
    if view.ndim != cnp.PyArray_NDIM(a):
        return False
    for axis in range(view.ndim):
        if view.shape[axis] != cnp.PyArray_DIM(a, axis):
            return False
    return True


cdef inline bint same_order(const View* view, cnp.ndarray a) noexcept:
    """Whether the elements of a tensor of the same shape lie as those of a dense array do."""
    cdef cnp.npy_intp size = bytes_of(view.kind), item = cnp.PyArray_ITEMSIZE(a)
    cdef int axis
    for axis in range(view.ndim):
        if view.shape[axis] > 1 and view.strides[axis] * item != cnp.PyArray_STRIDE(a, axis) * size:
            return False
    return True


cdef inline bint same_layout(const View* one, const View* other) noexcept:
    """Whether two tensors are on one device, of one shape, with their elements in one order."""
    cdef cnp.npy_intp size = bytes_of(one.kind), item = bytes_of(other.kind)
    cdef int axis
    if one.device != other.device or one.ndim != other.ndim:
        return False
    for axis in range(one.ndim):
        if one.shape[axis] != other.shape[axis] or (
            one.shape[axis] > 1 and one.strides[axis] * item != other.strides[axis] * size
        ):
            return False
    return True


cdef inline bint is_dense(const View* view) noexcept:
    """Whether the elements of a tensor fill one block of memory, in some order of the axes."""
    cdef cnp.npy_intp expected = bytes_of(view.kind)
    cdef int axis, left = 0, before = -1
    for axis in range(view.ndim):
        if view.shape[axis] == 0:
            return True
        left += view.shape[axis] > 1
    while left and left != before:
        before = left
        for axis in range(view.ndim):
            if view.shape[axis] > 1 and view.strides[axis] == expected:
                expected *= view.shape[axis]
                left -= 1
    return left == 0


cdef inline Py_ssize_t stored(int kind, int p_kind) noexcept:
    """How the gradient of a parameter is stored, a Stored; -1 where there is no loop for it."""
    cdef int computing = FLOAT64_KIND if p_kind == FLOAT64_KIND else FLOAT32_KIND
    if kind == computing:
        return COMPUTING
    if p_kind == FLOAT64_KIND:
        return -1
    if kind == FLOAT64_KIND:
        return WIDE
    if p_kind != FLOAT32_KIND and kind != p_kind:
        return -1
    return FLOAT16 if kind == FLOAT16_KIND else BFLOAT16
