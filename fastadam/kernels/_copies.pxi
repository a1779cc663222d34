# Arrays as the memory that they lie in: where it begins and ends, and copies that cannot fail.
# For _commit.pyx alone.

cdef struct Extent:
    char* low
    char* high
    Py_ssize_t effect
    bint target

# The most axes that an array has, in any version of NumPy.
cdef enum:
    MAX_AXES = 64


cdef int by_low(const void* a, const void* b) noexcept nogil:
    """Compare where two extents begin."""
    cdef char* first = (<const Extent*> a).low
    cdef char* second = (<const Extent*> b).low
    return (first > second) - (first < second)


cdef void span(cnp.ndarray array, Extent* found) noexcept:
    """Find the first byte of an array and the last one plus one."""
    cdef int axis
    cdef cnp.npy_intp reach
    found.low = found.high = <char*> cnp.PyArray_DATA(array)
    if cnp.PyArray_SIZE(array) == 0:
        return
    for axis in range(cnp.PyArray_NDIM(array)):
        reach = cnp.PyArray_STRIDE(array, axis) * (cnp.PyArray_DIM(array, axis) - 1)
        if reach < 0:
            found.low += reach
        else:
            found.high += reach
    found.high += cnp.PyArray_ITEMSIZE(array)


cdef bint same_shape(cnp.ndarray a, cnp.ndarray b) noexcept:
    """Whether two arrays have the same shape, and elements of the same size."""
    cdef int axis
    if cnp.PyArray_NDIM(a) != cnp.PyArray_NDIM(b):
        return False
    for axis in range(cnp.PyArray_NDIM(a)):
        if cnp.PyArray_DIM(a, axis) != cnp.PyArray_DIM(b, axis):
            return False
    return cnp.PyArray_ITEMSIZE(a) == cnp.PyArray_ITEMSIZE(b)


cdef void copy_row(
    char* to, const char* source, Py_ssize_t n, Py_ssize_t step, Py_ssize_t source_step,
    Py_ssize_t size,
) noexcept:
    """Copy n elements that lie at equal distances."""
    cdef Py_ssize_t i
    if step == size and source_step == size:
        memcpy(to, source, n * size)
    elif size == 4:
        # a constant size becomes one instruction, wherever the elements lie
        for i in range(n):
            memcpy(to + i * step, source + i * source_step, 4)
    elif size == 8:
        for i in range(n):
            memcpy(to + i * step, source + i * source_step, 8)
    elif size == 2:
        for i in range(n):
            memcpy(to + i * step, source + i * source_step, 2)
    else:
        for i in range(n):
            memcpy(to + i * step, source + i * source_step, size)


cdef void copy_elements(cnp.ndarray target, cnp.ndarray source) noexcept:
    """Copy the bytes of all elements, in whatever layout both arrays are; nothing can fail."""
    cdef int ndim = cnp.PyArray_NDIM(target)
    cdef cnp.npy_intp size = cnp.PyArray_ITEMSIZE(target)
    cdef char* to = <char*> cnp.PyArray_DATA(target)
    cdef char* read = <char*> cnp.PyArray_DATA(source)
    cdef int[MAX_AXES] axes
    cdef cnp.npy_intp[MAX_AXES] at
    cdef int i, axis, k
    cdef cnp.npy_intp stride, other
    if cnp.PyArray_SIZE(target) == 0 or size == 0:
        return
    if ndim == 0 or (
        cnp.PyArray_IS_C_CONTIGUOUS(target) and cnp.PyArray_IS_C_CONTIGUOUS(source)
    ):
        memcpy(to, read, cnp.PyArray_SIZE(target) * size)
        return
    # the axis along which the target's elements are closest together comes last
    for i in range(ndim):
        stride = cnp.PyArray_STRIDE(target, i)
        k = i
        while k > 0:
            other = cnp.PyArray_STRIDE(target, axes[k - 1])
            if (other if other >= 0 else -other) >= (stride if stride >= 0 else -stride):
                break
            axes[k] = axes[k - 1]
            k -= 1
        axes[k] = i
        at[i] = 0
    axis = axes[ndim - 1]
    while True:
        copy_row(
            to, read, cnp.PyArray_DIM(target, axis), cnp.PyArray_STRIDE(target, axis),
            cnp.PyArray_STRIDE(source, axis), size,
        )
        # the next row, as an odometer counts
        k = ndim - 2
        while k >= 0:
            i = axes[k]
            at[i] += 1
            to += cnp.PyArray_STRIDE(target, i)
            read += cnp.PyArray_STRIDE(source, i)
            if at[i] < cnp.PyArray_DIM(target, i):
                break
            to -= at[i] * cnp.PyArray_STRIDE(target, i)
            read -= at[i] * cnp.PyArray_STRIDE(source, i)
            at[i] = 0
            k -= 1
        if k < 0:
            return


cdef bint overlaps_itself(object array):
    """Whether two indices may reach one element: an axis fails to step over the smaller ones."""
    reach = array.itemsize
    steps = ((abs(s), n) for s, n in zip(array.strides, array.shape, strict=True) if n > 1)
    for stride, n in sorted(steps):
        if stride < reach:
            return array.size > 0
        reach += stride * (n - 1)
    return False
