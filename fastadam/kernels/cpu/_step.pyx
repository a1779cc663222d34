"""The loops of the Adam family: one body, four variants, two types; and those before it.

This file is compiled once per instruction set (``_step_avx2.pyx`` and ``_step_avx512.pyx`` include
it) and gives the same bits in each: no contraction, no reassociation, one rounding per operation,
in the order in which ``reference.py`` spells it.
"""

from cpython.pycapsule cimport PyCapsule_New
from cython.parallel cimport prange
from libc.float cimport FLT_MIN
from libc.math cimport copysignf, fabsf, frexp, sqrt, sqrtf
from libc.stdlib cimport llabs
from libc.string cimport memcpy

from fastadam.kernels.cpu._tensors cimport (
    ADD,
    ADD_SIGN,
    ALPHA_T,
    BFLOAT16,
    CLIP,
    COMPUTING,
    DIVIDE,
    EPS,
    ETA,
    LOWER,
    MOST_AXES,
    MULTIPLY,
    N_COEFFICIENTS,
    N_WALKED,
    ONE_MINUS_BETA1,
    ONE_MINUS_BETA2,
    ONE_MINUS_DECAY,
    ROUND,
    UPPER,
    WALKED_G,
    WIDE,
    Gradient,
    Op,
    Tensor,
    Walk,
    program,
)

# Pointers that the C compiler may take as not overlapping, so that it can vectorize without
# run-time checks; void for functions that it must inline (or the flags of a loop are not known in
# it) and must not (or there are too many loops in one place to inline all).
cdef extern from *:
    """
    typedef float *__restrict float_restrict;
    typedef double *__restrict double_restrict;
    typedef short *__restrict float16_restrict;
    typedef unsigned short *__restrict bfloat16_restrict;
    #define inlined_void __attribute__((always_inline)) void
    #define called_void __attribute__((noinline)) void
    #define called_double __attribute__((noinline)) double
    #define fastadam_prefetch(address) __builtin_prefetch(address)
    """
    ctypedef float* float_restrict
    ctypedef double* double_restrict
    ctypedef short* float16_restrict
    ctypedef unsigned short* bfloat16_restrict
    ctypedef void inlined_void
    ctypedef void called_void
    ctypedef double called_double
    void fastadam_prefetch(const void* address) noexcept nogil

ctypedef fused real:
    float
    double

ctypedef fused real_restrict:
    float_restrict
    double_restrict

# Elements that more is done with than the step, at once: with what is read ahead they fit into the
# first cache.
cdef enum:
    BLOCK = 512
    HALF_BLOCK = 384        # where p, g or a master's half are converted
    LINE = 64               # bytes that memory gives at once

include "_cut.pxi"
include "_half.pxi"
include "_mode.pxi"
include "_ops.pxi"

# A maximum or minimum that keeps NaN, as NumPy's, is written as two selections, each of one
# comparison: GCC turns these into masks, but gives up on a loop that has an "or" in it.

cdef inline inlined_void adam_span(
    real_restrict p,           # IN, OUT
    real_restrict g,           # IN
    real_restrict m,           # IN, OUT
    real_restrict v,           # IN, OUT
    real_restrict vhat,        # IN, OUT with amsgrad; not touched without
    const real* c,             # IN: one row of coefficients
    Py_ssize_t n,
    const bint amsgrad,
    const bint adabound,
) noexcept nogil:
    """One step on n neighbouring elements; the flags are literals, so each call is one loop."""
    cdef Py_ssize_t i
    cdef real m_i, v_i, vhat_i, step, larger, smaller
    cdef real alpha_t = c[ALPHA_T]
    cdef real one_minus_beta1 = c[ONE_MINUS_BETA1]
    cdef real one_minus_beta2 = c[ONE_MINUS_BETA2]
    cdef real eps = c[EPS]
    cdef real eta = c[ETA]
    cdef real one_minus_decay = c[ONE_MINUS_DECAY]
    cdef real lower = c[LOWER]
    cdef real upper = c[UPPER]
    cdef real zero = 0
    for i in range(n):
        # m += (1 - beta1) * (g - m)
        m_i = m[i] + one_minus_beta1 * (g[i] - m[i])
        # v += (1 - beta2) * (g*g - v)
        v_i = v[i] + one_minus_beta2 * (g[i] * g[i] - v[i])
        m[i] = m_i
        v[i] = v_i
        vhat_i = v_i
        if amsgrad:
            # vhat = max(vhat, v); a NaN stays; adding 0 flushes a subnormal vhat as arithmetic does
            vhat_i = vhat[i] + zero
            larger = vhat_i if vhat_i >= v_i else v_i
            vhat_i = vhat_i if vhat_i != vhat_i else larger
            vhat[i] = vhat_i
        # step = alpha_t / (sqrt(vhat) + eps)
        if real is float:
            step = alpha_t / (sqrtf(vhat_i) + eps)
        else:
            step = alpha_t / (sqrt(vhat_i) + eps)
        if adabound:
            # step = clip(step, lower, upper); a NaN, of step or bounds, stays
            larger = step if step >= lower else lower
            step = step if step != step else larger
            smaller = step if step <= upper else upper
            step = step if step != step else smaller
        # p = (1 - decay) * p - eta * (step * m)
        p[i] = one_minus_decay * p[i] - eta * (step * m_i)


cdef called_void adam_variant(
    real_restrict p,
    real_restrict g,
    real_restrict m,
    real_restrict v,
    real_restrict vhat,
    const real* c,
    Py_ssize_t n,
    bint amsgrad,
    bint adabound,
) noexcept nogil:
    """Go to the loop of the variant."""
    if amsgrad:
        if adabound:
            adam_span[real_restrict, real](p, g, m, v, vhat, c, n, True, True)
        else:
            adam_span[real_restrict, real](p, g, m, v, vhat, c, n, True, False)
    elif adabound:
        adam_span[real_restrict, real](p, g, m, v, vhat, c, n, False, True)
    else:
        adam_span[real_restrict, real](p, g, m, v, vhat, c, n, False, False)


cdef void adam_arrays(
    real_restrict p,
    real_restrict g,
    const Tensor* tensor,
    const real* c,
    Py_ssize_t first,
    Py_ssize_t n,
) noexcept nogil:
    """The step of n elements of a tensor from `first` on, whose p and g are given."""
    adam_variant[real_restrict, real](
        p,
        g,
        <real_restrict> tensor.m + first,
        <real_restrict> tensor.v + first,
        <real_restrict> tensor.vhat + (first if tensor.amsgrad else 0),
        c + tensor.row * N_COEFFICIENTS,
        n,
        tensor.amsgrad,
        tensor.adabound,
    )


cdef void adam_part(
    real* p, real* g, const Tensor* tensor, const real* c, Py_ssize_t first, Py_ssize_t n
) noexcept nogil:
    """The same, for pointers of either type."""
    if real is float:
        adam_arrays[float_restrict, float](p, g, tensor, c, first, n)
    else:
        adam_arrays[double_restrict, double](p, g, tensor, c, first, n)


cdef void adam_blocks(
    const Tensor* tensor,
    const Op* ops,
    const real* coefficients,
    Py_ssize_t begin,
    Py_ssize_t end,
) noexcept nogil:
    """The elements [begin, end) of one tensor, block by block, with what is done around its step.

    Half-precision numbers are widened and rounded, masters follow, and the tensor's program of
    operations makes the gradient.
    """
    cdef real p_block[BLOCK]
    cdef real g_room[BLOCK + LINE]
    cdef real* g_block = whole_lines(g_room)
    cdef real* p
    cdef real* seen            # by operations: the half-precision parameter, where p is its master
    cdef real* g
    cdef real* out
    cdef fastadam_mode flushing
    cdef Py_ssize_t n, first = begin
    cdef bint half = tensor.p_type != COMPUTING or tensor.g_type != COMPUTING or tensor.half
    cdef Py_ssize_t block = HALF_BLOCK if half else BLOCK
    while first < end:
        n = min(end - first, block)
        p = <real*> tensor.p + first
        g = <real*> tensor.g + first
        seen = p
        out = g_block
        if tensor.out and tensor.g_type == COMPUTING:
            out = <real*> tensor.out + first
        if real is float:
            if tensor.half:
                seen = p_block
                narrow(p, tensor.half_type, <size_t> p_block, n)
                widen(tensor.half_type, <size_t> p_block, g_block, n)
                widen(tensor.half_type, tensor.half + 2 * first, p_block, n)
                if tensor.step:
                    follow(p, g_block, p_block, n)
            if tensor.p_type != COMPUTING:
                p = seen = p_block
                widen(tensor.p_type, tensor.p + 2 * first, p, n)
            if tensor.g_type == WIDE:
                g = g_block
                round_wide(tensor.g + 8 * first, g, n)
            elif tensor.g_type != COMPUTING:
                g = g_block
                widen(tensor.g_type, tensor.g + 2 * first, g, n)
        if tensor.n_ops:
            flushing = fastadam_flush_off()
            apply(ops + tensor.first_op, tensor.n_ops, seen, g, out, tensor.g_type, n)
            fastadam_flush_restore(flushing)
            g = out
            if real is float:
                if tensor.out and tensor.g_type != COMPUTING:
                    narrow(g, tensor.g_type, tensor.out + 2 * first, n)
        if tensor.step:
            adam_part[real](p, g, tensor, coefficients, first, n)
            if real is float:
                if tensor.p_type != COMPUTING:
                    narrow(p, tensor.p_type, tensor.p + 2 * first, n)
                if tensor.half:
                    narrow(p, tensor.half_type, tensor.half + 2 * first, n)
        first += n


include "_walk.pxi"


cdef void adam_tensor(
    const Tensor* tensor,
    const Op* ops,
    const real* coefficients,
    Py_ssize_t begin,
    Py_ssize_t end,
) noexcept nogil:
    """The elements [begin, end) of one tensor."""
    cdef real* p = <real*> tensor.p + begin
    cdef real* g = <real*> tensor.g + begin
    cdef bint half = tensor.p_type != COMPUTING or tensor.g_type != COMPUTING or tensor.half
    if tensor.walk:
        adam_walked[real](tensor, ops, coefficients, begin, end)
    elif tensor.step and not tensor.n_ops and not half:
        adam_part[real](p, g, tensor, coefficients, begin, end - begin)
    else:
        adam_blocks[real](tensor, ops, coefficients, begin, end)


cdef void adam_range(
    const Tensor* tensors,
    Py_ssize_t n_tensors,
    const Op* ops,
    const real* coefficients,
    Py_ssize_t begin,
    Py_ssize_t end,
) noexcept nogil:
    """The elements [begin, end) of all tensors laid end to end: one thread's share."""
    cdef Py_ssize_t low = 0, high = n_tensors, middle, k, first, last
    cdef fastadam_mode saved = 0
    # the last tensor that starts at or before begin
    while low + 1 < high:
        middle = (low + high) // 2
        if tensors[middle].start <= begin:
            low = middle
        else:
            high = middle
    if real is float:
        saved = fastadam_flush_on()
    k = low
    while k < n_tensors and tensors[k].start < end:
        first = max(begin - tensors[k].start, 0)
        last = min(end - tensors[k].start, tensors[k].n)
        adam_tensor(&tensors[k], ops, coefficients, first, last)
        k += 1
    if real is float:
        fastadam_flush_restore(saved)


cdef void adam_threads(
    const Tensor* tensors,
    Py_ssize_t n_tensors,
    const Op* ops,
    const real* coefficients,
    int n_threads,
) noexcept nogil:
    """Cut the concatenated elements into one contiguous range per thread and run them."""
    cdef Py_ssize_t total = tensors[n_tensors - 1].start + tensors[n_tensors - 1].n
    cdef int k
    if n_threads == 1:
        adam_range(tensors, n_tensors, ops, coefficients, 0, total)
        return
    for k in prange(n_threads, num_threads=n_threads, schedule="static", chunksize=1):
        adam_range(
            tensors,
            n_tensors,
            ops,
            coefficients,
            cut(total, k, n_threads),
            cut(total, k + 1, n_threads),
        )


def adam_float32(
    const Tensor[::1] tensors,
    const float[:, ::1] coefficients,
    int n_threads,
    const Op[::1] ops=None,
):
    """Run one step over a table of float32 tensors; the caller has checked every row."""
    cdef const Op* first = program(ops)
    if tensors.shape[0] == 0:
        return
    with nogil:
        adam_threads(&tensors[0], tensors.shape[0], first, &coefficients[0, 0], n_threads)


def adam_float64(
    const Tensor[::1] tensors,
    const double[:, ::1] coefficients,
    int n_threads,
    const Op[::1] ops=None,
):
    """Run one step over a table of float64 tensors; the caller has checked every row."""
    cdef const Op* first = program(ops)
    if tensors.shape[0] == 0:
        return
    with nogil:
        adam_threads(&tensors[0], tensors.shape[0], first, &coefficients[0, 0], n_threads)


def loop(bint single):
    """Return the address of the loops, for a table that is kept and need not be looked at again."""
    if single:
        return PyCapsule_New(<void*> adam_threads[float], "adam_float32", NULL)
    return PyCapsule_New(<void*> adam_threads[double], "adam_float64", NULL)


include "_norm.pxi"
