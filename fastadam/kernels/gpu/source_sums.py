"""CUDA: sums of squares in the defined order, and the norm that gradients are clipped to."""

__all__ = ["SOURCE"]

SOURCE = r"""
// Sums of squares, in one defined order: chunks of 4096 elements; in a chunk, lane i of 256 adds
// the squares of the elements i, i + 256, ... in float64; the lanes fold by halves; the chunks,
// then the tensors, are the leaves of a tree, in which the nodes 2k and 2k + 1 of a level make
// node k of the next.

// The sum of every chunk of gradients, or of their quotients by a loss scale, which are written
// where `quotients` says.
template <typename T, typename G>
__global__ void __launch_bounds__(THREADS) squares(
    const Span *spans,               // IN: one row a gradient
    const size_t *gradients,         // IN: the address of each
    const size_t *quotients,         // IN: where each is written, divided; may be null
    const unsigned *chunks,          // IN: which gradient a chunk is of
    double scale,                    // 0 for none
    double *sums)                    // OUT: one a chunk
{
    __shared__ double lanes[THREADS];
    const unsigned k = chunks[blockIdx.x];
    const size_t first = (blockIdx.x - spans[k].start) * CHUNK;
    const size_t left = spans[k].n - first, n = left < CHUNK ? left : CHUNK;
    const G *g = at<G>(gradients[k], first);
    T *out = quotients ? at<T>(quotients[k], first) : nullptr;
    const T divisor = (T)scale;
    double lane = 0;
#pragma unroll 4
    for (size_t i = threadIdx.x; i < n; i += THREADS) {
        // adding 0 flushes a subnormal gradient as arithmetic does
        T g_i = widen(g[i]) + (T)0;
        if (scale != 0)
            // the true gradient: g / scale
            g_i = g_i / divisor;
        if (out)
            out[i] = g_i;
        // lane += g * g
        lane = lane + (double)g_i * (double)g_i;
    }
    lanes[threadIdx.x] = lane;
    for (unsigned half = THREADS / 2; half; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half)
            lanes[threadIdx.x] = lanes[threadIdx.x] + lanes[threadIdx.x + half];
    }
    if (threadIdx.x == 0)
        sums[blockIdx.x] = lanes[0];
}

// How many neighbouring numbers a thread adds by itself.
constexpr unsigned AT_ONCE = 16;

// The sum of AT_ONCE numbers from `first` on, in their tree; zeros for those that are missing.
__device__ __forceinline__ double sum_at_once(const double *numbers, size_t first, size_t n)
{
    double nodes[AT_ONCE];
#pragma unroll
    for (unsigned i = 0; i < AT_ONCE; ++i)
        nodes[i] = first + i < n ? numbers[first + i] : 0;
#pragma unroll
    for (unsigned width = 1; width < AT_ONCE; width *= 2)
#pragma unroll
        for (unsigned i = 0; i < AT_ONCE; i += 2 * width)
            nodes[i] = nodes[i] + nodes[i + width];
    return nodes[0];
}

// The sum of numbers that are not negative, in their tree: the threads of the block make subtrees
// of THREADS * AT_ONCE leaves together, and the first one, which alone returns it, what is above.
__device__ __forceinline__ double tree_sum(const double *numbers, size_t n)
{
    __shared__ double nodes[THREADS];
    // the subtrees that wait for their neighbour on the right, one a level
    __shared__ double waiting[64];
    size_t subtrees = 0;
    for (size_t first = 0; first < n; first += THREADS * AT_ONCE) {
        nodes[threadIdx.x] = sum_at_once(numbers, first + threadIdx.x * AT_ONCE, n);
        for (unsigned width = 1; width < THREADS; width *= 2) {
            __syncthreads();
            if (threadIdx.x % (2 * width) == 0)
                nodes[threadIdx.x] = nodes[threadIdx.x] + nodes[threadIdx.x + width];
        }
        if (threadIdx.x == 0) {
            double node = nodes[0];
            unsigned level = 0;
            for (; subtrees >> level & 1; ++level)
                node = waiting[level] + node;
            waiting[level] = node;
        }
        ++subtrees;
        __syncthreads();
    }
    double total = 0;
    if (threadIdx.x == 0)
        for (unsigned level = 0; subtrees >> level; ++level)
            if (subtrees >> level & 1)
                total = waiting[level] + total;
    return total;
}

// The total of every gradient, a block for each.
__global__ void __launch_bounds__(THREADS) add_chunks(
    const Span *spans,               // IN: one row a gradient
    const double *sums,              // IN: one a chunk
    double *totals)                  // OUT: one a gradient, in its place
{
    const Span span = spans[blockIdx.x];
    const double total = tree_sum(sums + span.start, (span.n + CHUNK - 1) / CHUNK);
    if (threadIdx.x == 0)
        totals[span.place] = total;
}

// The norm of all gradients together, and what they are multiplied with to be clipped to it.
__global__ void __launch_bounds__(THREADS) clip_rate(
    const double *totals,            // IN: one a gradient
    size_t n,                        // gradients
    double threshold,                // the largest norm
    double *rate)                    // OUT
{
    const double norm = sqrt(tree_sum(totals, n));
    if (threadIdx.x == 0)
        // min(1, threshold / n); a norm that is not finite leaves the gradients as they are
        *rate = threshold < norm && norm < 1.0 / 0.0 ? threshold / norm : 1.0;
}
"""
