# The gradient pass: sums of squares in one defined order, which neither the number of threads nor
# the instruction set changes, and on the way the division by a loss scale, or operations.
#
# The order: a gradient is cut into chunks of 4096 elements; in a chunk, lane i of 256 adds the
# squares of the elements i, i + 256, ... in float64; the lanes fold by halves; the chunks' sums are
# the leaves of a tree, in which the neighbours 2k and 2k + 1 of a level make number k of the next.
# reference.py spells the same in array operations.

cdef enum:
    CHUNK = 4096
    LANES = 256
    GROUP = 4               # chunks that a thread takes at a time; a power of 2: a tree of its own
    LEVELS = 64             # of a tree


cdef struct Tree:
    # the nodes that wait for their neighbour on the right, one a level at most: those of the levels
    # whose bits are set in the number of leaves
    double waiting[LEVELS]
    Py_ssize_t n_leaves


cdef inline void grow(Tree* tree, double node) noexcept nogil:
    """Add the next leaf to a tree."""
    cdef Py_ssize_t level = 0
    while tree.n_leaves >> level & 1:
        node = tree.waiting[level] + node
        level += 1
    tree.waiting[level] = node
    tree.n_leaves += 1


cdef inline double top(const Tree* tree) noexcept nogil:
    """The sum of all leaves; a node without a neighbour is its parent itself."""
    cdef double total = 0
    cdef Py_ssize_t level = 0
    while tree.n_leaves >> level:
        if tree.n_leaves >> level & 1:
            total = tree.waiting[level] + total
        level += 1
    return total


cdef inlined_void add_row(
    double* lanes,         # IN, OUT
    const real* g,         # IN
    const real* ahead,     # what is read a chunk later
    real* out,             # OUT if write
    real scale,            # or its inverse
    Py_ssize_t n,          # at most LANES
    const bint unscale,
    const bint inverse,
    const bint write,
) noexcept nogil:
    """Add the squares of neighbours, of g or of g / scale, each to its lane."""
    cdef Py_ssize_t i
    cdef real g_i
    # a core that only adds waits for memory: the same place in the next chunk is asked for
    for i in range(LANES * <Py_ssize_t> sizeof(real) // LINE):
        fastadam_prefetch(<const char*> ahead + i * LINE)
    for i in range(n):
        g_i = g[i]
        if unscale:
            # the true gradient: g / scale; a product with an inverse grows nothing, so that what
            # is subnormal is so afterwards
            g_i = flushed(g_i * scale) if inverse else flushed(flushed(g_i) / scale)
        if write:
            out[i] = g_i
        # lane += g * g
        lanes[i] = lanes[i] + <double> g_i * <double> g_i


cdef inline double folded(double* lanes) noexcept nogil:
    """The sum of all lanes, by halves."""
    cdef Py_ssize_t i, width = LANES // 2
    while width:
        for i in range(width):
            lanes[i] = lanes[i] + lanes[i + width]
        width = width // 2
    return lanes[0]


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
    cdef Py_ssize_t i, begin = 0
    for i in range(LANES):
        lanes[i] = 0
    while begin + LANES <= n:
        add_row(
            lanes, g + begin, g + begin + CHUNK, out + begin,
            scale, LANES, unscale, inverse, write,
        )
        begin += LANES
    if begin < n:
        add_row(
            lanes, g + begin, g + begin + CHUNK, out + begin,
            scale, n - begin, unscale, inverse, write,
        )
    return folded(lanes)


cdef called_double plain_squares(const real* g, Py_ssize_t n) noexcept nogil:
    """One chunk, in the mode that flushes subnormal numbers when they become float64."""
    return chunk_squares(g, <real*> NULL, <real> 1, n, False, False, False)


cdef double typed_squares(
    const real* g, const Gradient* gradient, Py_ssize_t begin, Py_ssize_t n
) noexcept nogil:
    """One chunk of one gradient, which is given in the type of the computation."""
    cdef real* out = <real*> gradient.out + begin
    cdef real scale = <real> gradient.scale
    cdef real inverse = exact_inverse(scale)
    if not gradient.scale:
        return plain_squares(g, n)
    if inverse and gradient.out:
        return chunk_squares(g, out, inverse, n, True, True, True)
    if inverse:
        return chunk_squares(g, out, inverse, n, True, True, False)
    if gradient.out:
        return chunk_squares(g, out, scale, n, True, False, True)
    return chunk_squares(g, out, scale, n, True, False, False)


cdef called_void add_rows(
    double* lanes, const real* g, const real* ahead, Py_ssize_t n
) noexcept nogil:
    """Add the squares of neighbours, the first of which belongs to the first lane."""
    cdef Py_ssize_t begin = 0
    while begin < n:
        add_row(
            lanes,
            g + begin,
            ahead + begin,
            <real*> NULL,
            <real> 1,
            min(n - begin, <Py_ssize_t> LANES),
            False,
            False,
            False,
        )
        begin += LANES


cdef double program_squares(
    const Gradient* gradient,
    const Op* ops,
    const real* g,         # IN: the chunk, in the type of the computation
    Py_ssize_t begin,
    Py_ssize_t n,
) noexcept nogil:
    """One chunk of what operations leave of a gradient, block by block of whole rows."""
    cdef double lanes[LANES]
    cdef real p_block[BLOCK]
    cdef real g_room[BLOCK + LINE]
    cdef real* g_block = whole_lines(g_room)
    cdef real* p
    cdef fastadam_mode flushing
    cdef Py_ssize_t i, some, first = 0
    for i in range(LANES):
        lanes[i] = 0
    while first < n:
        some = min(n - first, <Py_ssize_t> BLOCK)
        p = <real*> gradient.p + begin + first
        if real is float:
            if gradient.p_type != COMPUTING:
                p = p_block
                widen(gradient.p_type, gradient.p + 2 * (begin + first), p, some)
        flushing = fastadam_flush_off()
        apply(
            ops + gradient.first_op,
            gradient.n_ops,
            p,
            <real*> g + first,
            g_block,
            gradient.g_type,
            some,
        )
        fastadam_flush_restore(flushing)
        add_rows(lanes, g_block, g + first + CHUNK, some)
        first += some
    return folded(lanes)


cdef double group_squares(
    const Gradient* gradients,
    Py_ssize_t n_gradients,
    const Op* ops,
    Py_ssize_t k,
    real* computing,
) noexcept nogil:
    """Group k of the chunks of all gradients laid end to end."""
    cdef Py_ssize_t low = 0, high = n_gradients, middle, begin, end, n
    cdef const Gradient* gradient
    cdef const real* g
    cdef float wide[CHUNK]
    cdef Tree tree
    cdef fastadam_mode saved = 0
    # the last gradient that starts at or before group k
    while low + 1 < high:
        middle = (low + high) // 2
        if gradients[middle].start <= k:
            low = middle
        else:
            high = middle
    gradient = &gradients[low]
    begin = (k - gradient.start) * GROUP * CHUNK
    end = min(gradient.n, begin + GROUP * CHUNK)
    tree.n_leaves = 0
    if real is float:
        # quotients are flushed after they have been rounded, which is not what the mode does
        if not gradient.scale:
            saved = fastadam_flush_on()
    while begin < end:
        n = min(end - begin, <Py_ssize_t> CHUNK)
        g = <const real*> gradient.g + begin
        if real is float:
            if gradient.g_type == WIDE:
                round_wide(gradient.g + 8 * begin, wide, n)
                g = wide
            elif gradient.g_type != COMPUTING:
                widen(gradient.g_type, gradient.g + 2 * begin, wide, n)
                g = wide
        if gradient.n_ops:
            grow(&tree, program_squares(gradient, ops, g, begin, n))
        else:
            grow(&tree, typed_squares(g, gradient, begin, n))
        begin += CHUNK
    if real is float:
        if not gradient.scale:
            fastadam_flush_restore(saved)
    return top(&tree)


cdef void squares_threads(
    const Gradient* gradients,
    Py_ssize_t n_gradients,
    const Op* ops,
    double* sums,
    Py_ssize_t n_groups,
    int n_threads,
    real* computing,
) noexcept nogil:
    """Every group's sum into its own place."""
    cdef Py_ssize_t k
    if n_threads == 1:
        for k in range(n_groups):
            sums[k] = group_squares[real](gradients, n_gradients, ops, k, computing)
        return
    for k in prange(n_groups, num_threads=n_threads, schedule="static"):
        sums[k] = group_squares[real](gradients, n_gradients, ops, k, computing)


cdef void all_squares(
    const Gradient* gradients,
    Py_ssize_t n_gradients,
    const Op* ops,
    double* sums,
    Py_ssize_t n_groups,
    double* totals,
    int n_threads,
    real* computing,
) noexcept nogil:
    """The sums of all groups, and of them, in the upper levels of its tree, every gradient's."""
    cdef Py_ssize_t i, k = 0, end
    cdef Tree tree
    squares_threads[real](gradients, n_gradients, ops, sums, n_groups, n_threads, computing)
    for i in range(n_gradients):
        end = gradients[i + 1].start if i + 1 < n_gradients else n_groups
        tree.n_leaves = 0
        while k < end:
            grow(&tree, sums[k])
            k += 1
        totals[i] = top(&tree)


cdef void squares32(
    const Gradient* gradients,
    Py_ssize_t n_gradients,
    const Op* ops,
    double* sums,
    Py_ssize_t n_groups,
    double* totals,
    int n_threads,
) noexcept nogil:
    """Gradients that are computed in float32."""
    all_squares[float](
        gradients, n_gradients, ops, sums, n_groups, totals, n_threads, <float*> NULL
    )


cdef void squares64(
    const Gradient* gradients,
    Py_ssize_t n_gradients,
    const Op* ops,
    double* sums,
    Py_ssize_t n_groups,
    double* totals,
    int n_threads,
) noexcept nogil:
    """Gradients that are computed in float64."""
    all_squares[double](
        gradients, n_gradients, ops, sums, n_groups, totals, n_threads, <double*> NULL
    )


def squares_loop(bint single):
    """Return the address of the loops of the gradient pass, for ``_tensors.Squares``."""
    if single:
        return PyCapsule_New(<void*> squares32, "squares", NULL)
    return PyCapsule_New(<void*> squares64, "squares", NULL)


def tree_sum(numbers):
    """Add numbers, none of which is negative, in the tree in which chunks' sums are added."""
    cdef Tree tree
    tree.n_leaves = 0
    for number in numbers:
        grow(&tree, number)
    return top(&tree)
