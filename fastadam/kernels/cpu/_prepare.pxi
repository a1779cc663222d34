# True gradients: what a gradient is divided and multiplied by before the step. The numbers are
# those of a pass that divides by the loss scale, flushing subnormal float32 before and after as the
# step does, and of a hook that multiplies, as NumPy does, with the rate of clipping.


cdef inline real flushed(real x) noexcept nogil:
    """Zero of its sign for a subnormal float32, as in the step; float64 as it is; NaN stays."""
    if real is float:
        return copysignf(0, x) if fabsf(x) < FLT_MIN else x
    else:
        return x


cdef inline real exact_inverse(real scale) noexcept nogil:
    """The inverse of a power of 2, which gives the bits of the division in less time; else 0."""
    cdef int exponent
    if frexp(scale, &exponent) == 0.5 and -100 < exponent < 100:
        return 1 / scale
    return 0


cdef called_void prepare(
    const real* g,             # IN
    real* out,                 # OUT; may be g
    real scale,                # 0 for none
    real rate,
    Py_ssize_t n,
) noexcept nogil:
    """The gradients that the step is made with; for a mode that does not flush by itself."""
    cdef real inverse = exact_inverse(scale)
    cdef Py_ssize_t i
    # g / scale * rate: the true gradient, clipped
    if scale == 0:
        for i in range(n):
            out[i] = g[i] * rate
    elif inverse:
        for i in range(n):
            out[i] = flushed(flushed(g[i]) * inverse) * rate
    else:
        for i in range(n):
            out[i] = flushed(flushed(g[i]) / scale) * rate
