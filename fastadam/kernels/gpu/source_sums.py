"""CUDA: sums of squares in the defined order, and the norm that gradients are clipped to."""

__all__ = ["SOURCE"]

SOURCE = r"""
// Sums of squares, in one defined order: chunks of 4096 elements; in a chunk, lane i of 256 adds
// the squares of the elements i, i + 256, ... in float64; the lanes fold by halves; the chunks,
// then the tensors, are the leaves of a tree, in which the nodes 2k and 2k + 1 of a level make
// node k of the next.

// Threads of a warp, which sums a chunk, and lanes that each of them holds.
constexpr unsigned WARP = 32;
constexpr unsigned HELD = 8;

// lane + g * g. The square of a float32 is exact in float64: to round once is as good as twice.
__device__ __forceinline__ double add_square(double lane, float g)
{
    return __fma_rn((double)g, (double)g, lane);
}

__device__ __forceinline__ double add_square(double lane, double g) { return lane + g * g; }

// Add the squares of a pack to neighbouring lanes, or those of its quotients, which may be written.
template <bool SCALED, bool WRITTEN, int N, typename T, typename G>
__device__ __forceinline__ void add_squares(
    const Pack<G, N> &g, T divisor, T *out, double *lanes)
{
    Pack<T, N> quotients;
#pragma unroll
    for (int j = 0; j < N; ++j) {
        T g_j = widen(g.x[j]);
        if (SCALED)
            // the true gradient: g / scale
            g_j = g_j / divisor;
        quotients.x[j] = g_j;
        // lane += g * g, in which a subnormal float32 is 0
        lanes[j] = add_square(lanes[j], g_j);
    }
    if (WRITTEN)
        store<N>(out, quotients);
}

// Add the squares of every 32nd pack from one on to the lanes of a thread: those of HELD packs, all
// of which are on their way at once, or of those that there are.
template <bool ALL, bool SCALED, bool WRITTEN, int N, typename T, typename G>
__device__ __forceinline__ void add_packs(
    const G *g, T *out, T divisor, unsigned pack, unsigned packs, double *lanes)
{
    Pack<G, N> read[HELD];
#pragma unroll
    for (unsigned u = 0; u < HELD; ++u)
        read[u] = load<N>(g + (ALL || pack + u * WARP < packs ? pack + u * WARP : pack) * N);
#pragma unroll
    for (unsigned u = 0; u < HELD; ++u)
        if (ALL || pack + u * WARP < packs)
            add_squares<SCALED, WRITTEN>(
                read[u], divisor, out + (pack + u * WARP) * N, lanes + u * N % HELD);
}

// The sum of a chunk of n elements by a warp, whose packs of N begin at `head`. A thread holds the
// lanes of N neighbouring places, and of those 32 N further on. The element i is of the place
// (i - head) % 256: the same lanes are added as if all were of the place i % 256.
template <int N, bool SCALED, bool WRITTEN, typename T, typename G>
__device__ __forceinline__ double sum_chunk(
    const G *g, T *out, T divisor, unsigned head, unsigned n)
{
    const auto add_one = add_squares<SCALED, WRITTEN, 1, T, G>;
    const unsigned thread = threadIdx.x % WARP, packs = (n - head) / N, tail = (n - head) % N;
    double lanes[HELD] = {};
    // the elements before `head` are of the last places
#pragma unroll
    for (unsigned j = 1; j < N; ++j)
        if (thread == WARP - 1 && N - j <= head) {
            const unsigned i = head - (N - j);
            add_one(load<1>(g + i), divisor, out + i, lanes + (HELD - N + j));
        }
    const auto all = add_packs<true, SCALED, WRITTEN, N, T, G>;
    const auto some = add_packs<false, SCALED, WRITTEN, N, T, G>;
    unsigned pack = thread;
#pragma unroll 1
    for (; pack + (HELD - 1) * WARP < packs; pack += HELD * WARP)
        all(g + head, out + head, divisor, pack, packs, lanes);
    if (pack < packs)
        some(g + head, out + head, divisor, pack, packs, lanes);
    // the elements after the packs are of the next places
    const unsigned next = packs / WARP * N % HELD;
#pragma unroll
    for (unsigned j = 0; j < HELD; ++j)
        if (thread == packs % WARP && j / N * N == next && j % N < tail) {
            const unsigned i = n - tail + j % N;
            add_one(load<1>(g + i), divisor, out + i, lanes + j);
        }
    // lanes = lanes[:half] + lanes[half:]: a thread's own, those of other threads, its neighbours
#pragma unroll
    for (unsigned half = HELD / 2; half >= N; half /= 2)
#pragma unroll
        for (unsigned j = 0; j < half; ++j)
            lanes[j] = lanes[j] + lanes[j + half];
#pragma unroll
    for (unsigned half = WARP / 2; half; half /= 2)
#pragma unroll
        for (unsigned j = 0; j < N; ++j)
            lanes[j] = lanes[j] + __shfl_down_sync(0xffffffffu, lanes[j], half);
#pragma unroll
    for (unsigned half = N / 2; half; half /= 2)
#pragma unroll
        for (unsigned j = 0; j < half; ++j)
            lanes[j] = lanes[j] + lanes[j + half];
    return lanes[0];
}

// The sum of every chunk of gradients, a warp for each, or of their quotients by a loss scale,
// which are written where `quotients` says. Three blocks a multiprocessor, or two, leave registers
// for all that is on its way, and for divisions.
template <typename T, typename G, bool SCALED, bool WRITTEN>
__global__ void __launch_bounds__(THREADS, WRITTEN || (SCALED && sizeof(T) > 4) ? 2 : 3) squares(
    const Span *spans,               // IN: one row a gradient
    const size_t *gradients,         // IN: the address of each
    const size_t *quotients,         // IN: where each is written, divided, if it is
    const unsigned *chunks,          // IN: which gradient a chunk is of
    unsigned n_chunks,
    double scale,                    // what is divided by, if anything is
    double *sums)                    // OUT: one a chunk
{
    // 16 bytes of what is read, or written
    constexpr int N = 16 / (WRITTEN ? sizeof(T) : sizeof(G));
    const unsigned chunk = blockIdx.x * (THREADS / WARP) + threadIdx.x / WARP;
    if (chunk >= n_chunks)
        return;
    const unsigned k = chunks[chunk];
    const size_t first = (chunk - spans[k].start) * CHUNK;
    const size_t left = spans[k].n - first;
    const unsigned n = left < CHUNK ? left : CHUNK;
    const G *g = at<G>(gradients[k], first);
    T *out = WRITTEN ? at<T>(quotients[k], first) : nullptr;
    const T divisor = (T)scale;
    unsigned head = 0;
    while (head < N && !(aligned<N>(g + head) && (!WRITTEN || aligned<N>(out + head))))
        ++head;
    double sum;
    if (WRITTEN && head == N)
        // never aligned together
        sum = sum_chunk<1, SCALED, WRITTEN>(g, out, divisor, 0, n);
    else
        sum = sum_chunk<N, SCALED, WRITTEN>(g, out, divisor, head < n ? head : n, n);
    if (threadIdx.x % WARP == 0)
        sums[chunk] = sum;
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

// The same as PyTorch's clip_grad_norm_ multiplies gradients with.
__global__ void __launch_bounds__(THREADS) bound_rate(
    const double *totals,            // IN: one a gradient
    size_t n,                        // gradients
    double bound,                    // the largest norm
    double *rate)                    // OUT
{
    const double factor = bound / (sqrt(tree_sum(totals, n)) + 1e-6);
    if (threadIdx.x == 0)
        // min(1, bound / (norm + 1e-6)); a NaN is not at least 1, and stays
        *rate = factor >= 1 ? 1.0 : factor;
}
"""
