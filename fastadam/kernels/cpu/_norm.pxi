# The gradient pass: sums of squares in one defined order, which neither the number of threads nor
# the instruction set changes, and on the way the division by a loss scale.
#
# The order: a gradient is cut into chunks of 4096 elements; in a chunk, lane i of 256 adds the
# squares of the elements i, i + 256, ... in float64; the lanes fold by halves; whoever asked adds
# the chunks up, one after the other. reference.py spells the same in array operations.

cdef extern from *:
    """
    #define fastadam_prefetch(address) __builtin_prefetch(address)
    """
    void fastadam_prefetch(const void* address) noexcept nogil

cdef enum:
    CHUNK = 4096
    LANES = 256
    LINE = 64               # bytes that memory gives at once


cdef double chunk_squares(
    const real* g,         # IN
    real* out,             # OUT if write
    real scale,            # or its inverse
    Py_ssize_t n,          # at most CHUNK
    const bint unscale,
    const bint inverse,
    const bint write,
) noexcept nogil:
    """The sum of the squares of one chunk, of g or of g / scale."""
    cdef double lanes[LANES]
    cdef Py_ssize_t i, begin, width
    cdef const char* next_chunk
    cdef real g_i
    for i in range(LANES):
        lanes[i] = 0
    begin = 0
    while begin < n:
        # a core that only adds waits for memory: the same place in the next chunk is asked for
        next_chunk = <const char*> (g + begin + CHUNK)
        for i in range(LANES * <Py_ssize_t> sizeof(real) // LINE):
            fastadam_prefetch(next_chunk + i * LINE)
        for i in range(min(n - begin, <Py_ssize_t> LANES)):
            g_i = flushed(g[begin + i])
            if unscale:
                # the true gradient: g / scale
                g_i = flushed(g_i * scale if inverse else g_i / scale)
            if write:
                out[begin + i] = g_i
            # lane += g * g
            lanes[i] = lanes[i] + <double> g_i * <double> g_i
        begin += LANES
    width = LANES // 2
    while width:
        for i in range(width):
            lanes[i] = lanes[i] + lanes[i + width]
        width = width // 2
    return lanes[0]


cdef double typed_squares(
    const real* g, const Gradient* gradient, Py_ssize_t begin, Py_ssize_t n
) noexcept nogil:
    """One chunk of one gradient, which is given in the type of the computation."""
    cdef real* out = <real*> gradient.out + begin
    cdef real scale = <real> gradient.scale
    cdef real inverse = exact_inverse(scale)
    if not gradient.scale:
        return chunk_squares(g, out, scale, n, False, False, False)
    if inverse and gradient.out:
        return chunk_squares(g, out, inverse, n, True, True, True)
    if inverse:
        return chunk_squares(g, out, inverse, n, True, True, False)
    if gradient.out:
        return chunk_squares(g, out, scale, n, True, False, True)
    return chunk_squares(g, out, scale, n, True, False, False)


cdef double gradient_squares(
    const Gradient* gradients, Py_ssize_t n_gradients, Py_ssize_t k, real* computing
) noexcept nogil:
    """Chunk k of all gradients laid end to end."""
    cdef Py_ssize_t low = 0, high = n_gradients, middle, begin, n
    cdef const Gradient* gradient
    cdef float wide[CHUNK]
    # the last gradient that starts at or before chunk k
    while low + 1 < high:
        middle = (low + high) // 2
        if gradients[middle].start <= k:
            low = middle
        else:
            high = middle
    gradient = &gradients[low]
    begin = (k - gradient.start) * CHUNK
    n = min(gradient.n - begin, <Py_ssize_t> CHUNK)
    if real is float:
        if gradient.g_type != COMPUTING:
            widen(gradient.g_type, gradient.g + 2 * begin, wide, n)
            return typed_squares(<const float*> wide, gradient, begin, n)
    return typed_squares(<const real*> gradient.g + begin, gradient, begin, n)


cdef void squares_threads(
    const Gradient* gradients,
    Py_ssize_t n_gradients,
    double* sums,
    Py_ssize_t n_chunks,
    int n_threads,
    real* computing,
) noexcept nogil:
    """Every chunk's sum into its own place."""
    cdef Py_ssize_t k
    if n_threads == 1:
        for k in range(n_chunks):
            sums[k] = gradient_squares[real](gradients, n_gradients, k, computing)
        return
    for k in prange(n_chunks, num_threads=n_threads, schedule="static"):
        sums[k] = gradient_squares[real](gradients, n_gradients, k, computing)


cdef void add_chunks(const Gradient[::1] gradients, double[::1] sums, double[::1] totals) noexcept:
    """Add up the chunks of every gradient, one after the other."""
    cdef Py_ssize_t i, k, begin, end
    for i in range(gradients.shape[0]):
        begin = gradients[i].start
        end = gradients[i + 1].start if i + 1 < gradients.shape[0] else sums.shape[0]
        totals[i] = 0
        for k in range(begin, end):
            totals[i] += sums[k]


def squares_float32(
    const Gradient[::1] gradients, double[::1] sums, double[::1] totals, int n_threads
):
    """Sum the squares of gradients that are computed in float32: of every chunk, and of all."""
    if sums.shape[0]:
        with nogil:
            squares_threads[float](
                &gradients[0], gradients.shape[0], &sums[0], sums.shape[0], n_threads, <float*> NULL
            )
    add_chunks(gradients, sums, totals)


def squares_float64(
    const Gradient[::1] gradients, double[::1] sums, double[::1] totals, int n_threads
):
    """Sum the squares of float64 gradients: of every chunk, and of all."""
    if sums.shape[0]:
        with nogil:
            squares_threads[double](
                &gradients[0],
                gradients.shape[0],
                &sums[0],
                sums.shape[0],
                n_threads,
                <double*> NULL,
            )
    add_chunks(gradients, sums, totals)
