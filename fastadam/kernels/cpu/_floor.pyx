"""The memory floor of a step: the reads and writes of Adam, with next to no arithmetic.

Every element of p, g, m and v (with AMSGrad vhat too) is read once, and every element of p, m and v
(vhat) written once, in the order and with the cut over threads of the loops in ``_step.pyx``. The
arithmetic is one exclusive or per write, whose result needs the old value and the gradient: no
read and no write can be left out, and no pattern of bits is slower than another.
"""

from cython.parallel cimport prange

from fastadam.kernels.cpu._tensors cimport COMPUTING, Tensor

include "_cut.pxi"

# Unsigned integers of the widths of the floating types, that the C compiler may take as not
# overlapping.
cdef extern from *:
    """
    #include <stdint.h>
    typedef uint16_t *__restrict two_restrict;
    typedef uint32_t *__restrict four_restrict;
    typedef uint64_t *__restrict eight_restrict;
    #define floor_void __attribute__((noinline)) void
    """
    ctypedef unsigned short* two_restrict
    ctypedef unsigned int* four_restrict
    ctypedef unsigned long* eight_restrict
    ctypedef void floor_void

# Of the state: that of float32, and that of float64.
ctypedef fused state_restrict:
    four_restrict
    eight_restrict

ctypedef fused p_restrict:
    two_restrict
    four_restrict
    eight_restrict

ctypedef fused g_restrict:
    two_restrict
    four_restrict
    eight_restrict


cdef floor_void pass_over(
    p_restrict p,              # IN, OUT
    g_restrict g,              # IN
    state_restrict m,          # IN, OUT
    state_restrict v,          # IN, OUT
    state_restrict vhat,       # IN, OUT with amsgrad; not touched without
    Py_ssize_t n,
    bint amsgrad,
) noexcept nogil:
    """Read and write n neighbouring elements of every array once."""
    cdef Py_ssize_t i
    if amsgrad:
        for i in range(n):
            p[i] ^= g[i]
            m[i] ^= g[i]
            v[i] ^= g[i]
            vhat[i] ^= g[i]
    else:
        for i in range(n):
            p[i] ^= g[i]
            m[i] ^= g[i]
            v[i] ^= g[i]


cdef void pass_over_part(
    state_restrict state,      # only its type matters: the pointers are the tensor's
    const Tensor* tensor,
    Py_ssize_t begin,
    Py_ssize_t end,
) noexcept nogil:
    """The elements [begin, end) of one tensor: go to the loop of its widths."""
    cdef state_restrict m = <state_restrict> tensor.m + begin
    cdef state_restrict v = <state_restrict> tensor.v + begin
    cdef state_restrict vhat = <state_restrict> tensor.vhat + (begin if tensor.amsgrad else 0)
    cdef Py_ssize_t n = end - begin
    cdef bint amsgrad = tensor.amsgrad
    if state_restrict is eight_restrict:
        pass_over[eight_restrict, eight_restrict, eight_restrict](
            <eight_restrict> tensor.p + begin,
            <eight_restrict> tensor.g + begin,
            m, v, vhat, n, amsgrad,
        )
    elif tensor.p_type == COMPUTING:
        if tensor.g_type == COMPUTING:
            pass_over[four_restrict, four_restrict, four_restrict](
                <four_restrict> tensor.p + begin,
                <four_restrict> tensor.g + begin,
                m, v, vhat, n, amsgrad,
            )
        else:
            pass_over[four_restrict, two_restrict, four_restrict](
                <four_restrict> tensor.p + begin,
                <two_restrict> tensor.g + begin,
                m, v, vhat, n, amsgrad,
            )
    elif tensor.g_type == COMPUTING:
        pass_over[two_restrict, four_restrict, four_restrict](
            <two_restrict> tensor.p + begin,
            <four_restrict> tensor.g + begin,
            m, v, vhat, n, amsgrad,
        )
    else:
        pass_over[two_restrict, two_restrict, four_restrict](
            <two_restrict> tensor.p + begin,
            <two_restrict> tensor.g + begin,
            m, v, vhat, n, amsgrad,
        )


cdef void pass_over_range(
    state_restrict state,
    const Tensor* tensors,
    Py_ssize_t n_tensors,
    Py_ssize_t begin,
    Py_ssize_t end,
) noexcept nogil:
    """The elements [begin, end) of all tensors laid end to end: one thread's share."""
    cdef Py_ssize_t low = 0, high = n_tensors, middle
    # the last tensor that starts at or before begin
    while low + 1 < high:
        middle = (low + high) // 2
        if tensors[middle].start <= begin:
            low = middle
        else:
            high = middle
    while low < n_tensors and tensors[low].start < end:
        pass_over_part[state_restrict](
            state,
            &tensors[low],
            max(begin - tensors[low].start, 0),
            min(end - tensors[low].start, tensors[low].n),
        )
        low += 1


cdef void pass_over_threads(
    state_restrict state, const Tensor* tensors, Py_ssize_t n_tensors, int n_threads
) noexcept nogil:
    """Cut the concatenated elements into one contiguous range per thread and run them."""
    cdef Py_ssize_t total = tensors[n_tensors - 1].start + tensors[n_tensors - 1].n
    cdef int k
    if n_threads == 1:
        pass_over_range[state_restrict](state, tensors, n_tensors, 0, total)
        return
    for k in prange(n_threads, num_threads=n_threads, schedule="static", chunksize=1):
        pass_over_range[state_restrict](
            state,
            tensors,
            n_tensors,
            cut(total, k, n_threads),
            cut(total, k + 1, n_threads),
        )


def floor_float32(const Tensor[::1] tensors, int n_threads):
    """Pass once over a table of tensors with float32 state; the caller has checked every row."""
    if tensors.shape[0] == 0:
        return
    with nogil:
        pass_over_threads[four_restrict](NULL, &tensors[0], tensors.shape[0], n_threads)


def floor_float64(const Tensor[::1] tensors, int n_threads):
    """Pass once over a table of float64 tensors; the caller has checked every row."""
    if tensors.shape[0] == 0:
        return
    with nogil:
        pass_over_threads[eight_restrict](NULL, &tensors[0], tensors.shape[0], n_threads)
