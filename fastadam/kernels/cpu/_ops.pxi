# What is done to a gradient before the step: a program of operations, one after the other on
# neighbours that are in the first cache. Each has the bits of a pass of its own: a division those
# of the gradient pass, which flushes subnormal float32 before and after as the step does, all
# others those of NumPy. So they run in the mode that does not flush.

# A division by a power of 2 from 1 on, as the loops know it: a product with its inverse.
cdef enum:
    BY_INVERSE = -1


cdef inline real* whole_lines(real* room) noexcept nogil:
    """The first address in a room that begins a line of the cache."""
    return <real*> ((<size_t> room + LINE - 1) // LINE * LINE)


cdef inline real flushed(real x) noexcept nogil:
    """Zero of its sign for a subnormal float32, as in the step; float64 as it is; NaN stays."""
    if real is float:
        return copysignf(0, x) if fabsf(x) < FLT_MIN else x
    else:
        return x


cdef inline real exact_inverse(real scale) noexcept nogil:
    """The inverse of a power of 2 from 1 on, which gives the bits of the division; else 0."""
    cdef int exponent
    if frexp(scale, &exponent) == 0.5 and exponent > 0:
        return 1 / scale
    return 0


cdef inline real sign(real x) noexcept nogil:
    """-1, 0 or 1; NaN stays."""
    cdef real one = 1, zero = 0
    cdef real rest = zero if x == 0 else x
    rest = one if x > 0 else rest
    return -one if x < 0 else rest


cdef inline inlined_void op_span(
    real_restrict p,           # IN; not touched by an operation without p
    real_restrict g,           # IN, where it lies apart from out
    real_restrict out,         # OUT; IN, too, where it is g
    real a,
    real b,
    Py_ssize_t n,
    const Py_ssize_t kind,
    const bint apart,
) noexcept nogil:
    """One operation on n neighbours; kind and apart are literals, so each call is one loop."""
    cdef Py_ssize_t i
    cdef real g_i, larger
    for i in range(n):
        if apart:
            g_i = g[i]
        else:
            g_i = out[i]
        if kind == DIVIDE:
            # the true gradient, clipped: g / scale * rate
            out[i] = flushed(flushed(g_i) / a) * b
        elif kind == BY_INVERSE:
            # nothing grows, so what is subnormal is so afterwards
            out[i] = flushed(g_i * a) * b
        elif kind == ADD:
            # g = (g + a * p) * b
            out[i] = (g_i + a * p[i]) * b
        elif kind == ADD_SIGN:
            # g = g + a * sign(p)
            out[i] = g_i + a * sign(p[i])
        elif kind == CLIP:
            # g = min(max(g, a), b); a NaN stays
            larger = g_i if g_i > a else a
            larger = larger if larger < b else b
            out[i] = g_i if g_i != g_i else larger
        else:
            # g = g * b
            out[i] = g_i * b


cdef inline inlined_void op_placed(
    real_restrict p,
    real_restrict g,
    real_restrict out,
    real a,
    real b,
    Py_ssize_t n,
    const Py_ssize_t kind,
) noexcept nogil:
    """Go to the loop that reads g, or to the one that reads out."""
    if g == out:
        op_span[real_restrict, real](p, g, out, a, b, n, kind, False)
    else:
        op_span[real_restrict, real](p, g, out, a, b, n, kind, True)


cdef called_void op_typed(
    real_restrict p,
    real_restrict g,
    real_restrict out,
    real a,
    real b,
    Py_ssize_t n,
    Py_ssize_t kind,
) noexcept nogil:
    """Go to the loop of the operation."""
    cdef real inverse
    if kind == DIVIDE:
        inverse = exact_inverse(a)
        if inverse:
            op_placed[real_restrict, real](p, g, out, inverse, b, n, BY_INVERSE)
        else:
            op_placed[real_restrict, real](p, g, out, a, b, n, DIVIDE)
    elif kind == ADD:
        op_placed[real_restrict, real](p, g, out, a, b, n, ADD)
    elif kind == ADD_SIGN:
        op_placed[real_restrict, real](p, g, out, a, b, n, ADD_SIGN)
    elif kind == CLIP:
        op_placed[real_restrict, real](p, g, out, a, b, n, CLIP)
    else:
        op_placed[real_restrict, real](p, g, out, a, b, n, MULTIPLY)


cdef void round_to(Py_ssize_t stored, float* x, Py_ssize_t n) noexcept nogil:
    """Round neighbours to a half type, and widen them again."""
    cdef unsigned short rounded[HALF_BLOCK]
    cdef Py_ssize_t some, first = 0
    while first < n:
        some = min(n - first, <Py_ssize_t> HALF_BLOCK)
        narrow(x + first, stored, <size_t> rounded, some)
        widen(stored, <size_t> rounded, x + first, some)
        first += some


cdef void apply(
    const Op* ops,
    Py_ssize_t n_ops,
    real* p,                   # IN: the parameter as hooks see it
    real* g,                   # IN; may be out
    real* out,                 # OUT: what the operations leave
    Py_ssize_t g_type,         # how the gradient is stored that was widened into g
    Py_ssize_t n,
) noexcept nogil:
    """A program on n neighbouring gradients, in the mode that does not flush."""
    cdef Py_ssize_t kind, k = 0
    cdef real a, b
    while k < n_ops:
        kind = ops[k].kind
        a = <real> ops[k].a
        # a division has no factor of its own
        b = 1 if kind == DIVIDE else <real> ops[k].b
        k += 1
        if kind == ROUND:
            if real is float:
                # what lies apart still has been widened from that type
                if g_type != COMPUTING and g == out:
                    round_to(g_type, out, n)
            continue
        if (kind == DIVIDE or (kind == ADD and b == 1)) and k < n_ops:
            # the product that follows is made in the same loop
            if ops[k].kind == MULTIPLY:
                b = <real> ops[k].b
                k += 1
        if real is float:
            op_typed[float_restrict, float](p, g, out, a, b, n, kind)
        else:
            op_typed[double_restrict, double](p, g, out, a, b, n, kind)
        g = out
    if g != out:
        memcpy(out, g, n * sizeof(real))
