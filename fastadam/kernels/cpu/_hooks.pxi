# What the hooks do to gradients, element by element. Subnormal numbers stay what they are: only the
# step flushes them.


cdef inline real sign(real x) noexcept nogil:
    """-1, 0 or 1; NaN stays."""
    cdef real one = 1, zero = 0
    cdef real rest = zero if x == 0 else x
    rest = one if x > 0 else rest
    return -one if x < 0 else rest


cdef inline inlined_void change_span(
    real_restrict p,           # IN; not touched by clip and multiply
    real_restrict g,           # IN, OUT
    real a,
    real b,
    Py_ssize_t n,
    const Py_ssize_t change,
) noexcept nogil:
    """One change of n neighbouring gradients; `change` is a literal, so each call is one loop."""
    cdef Py_ssize_t i
    cdef real g_i, larger
    for i in range(n):
        g_i = g[i]
        if change == ADD:
            # g = (g + a * p) * b
            g[i] = (g_i + a * p[i]) * b
        elif change == ADD_SIGN:
            # g = g + a * sign(p)
            g[i] = g_i + a * sign(p[i])
        elif change == CLIP:
            # g = min(max(g, a), b); a NaN stays
            larger = g_i if g_i > a else a
            larger = larger if larger < b else b
            g[i] = g_i if g_i != g_i else larger
        else:
            # g = g * b
            g[i] = g_i * b


cdef called_void change_typed(
    real_restrict p, real_restrict g, const real* c, Py_ssize_t n, Py_ssize_t change
) noexcept nogil:
    """Go to the loop of the change."""
    if change == ADD:
        change_span[real_restrict, real](p, g, c[0], c[1], n, ADD)
    elif change == ADD_SIGN:
        change_span[real_restrict, real](p, g, c[0], c[1], n, ADD_SIGN)
    elif change == CLIP:
        change_span[real_restrict, real](p, g, c[0], c[1], n, CLIP)
    else:
        change_span[real_restrict, real](p, g, c[0], c[1], n, MULTIPLY)


cdef void change_tensor(
    const Tensor* tensor, const real* coefficients, Py_ssize_t begin, Py_ssize_t end
) noexcept nogil:
    """The elements [begin, end) of one gradient; block by block, where half types are widened."""
    cdef real p_block[BLOCK]
    cdef real g_block[BLOCK]
    cdef real* p
    cdef real* g
    cdef const real* c = coefficients + tensor.row * N_COEFFICIENTS
    cdef Py_ssize_t n, first = begin
    while first < end:
        n = min(end - first, <Py_ssize_t> BLOCK)
        p = <real*> tensor.p + first
        g = <real*> tensor.g + first
        if real is float:
            if tensor.p_type != COMPUTING:
                p = p_block
                widen(tensor.p_type, tensor.p + 2 * first, p, n)
            if tensor.g_type != COMPUTING:
                g = g_block
                widen(tensor.g_type, tensor.g + 2 * first, g, n)
            change_typed[float_restrict, float](p, g, c, n, tensor.change)
            if tensor.g_type != COMPUTING:
                narrow(g, tensor.g_type, tensor.g + 2 * first, n)
        else:
            change_typed[double_restrict, double](p, g, c, n, tensor.change)
        first += n
