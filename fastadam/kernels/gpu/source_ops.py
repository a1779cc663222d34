"""CUDA: what the hooks do to gradients."""

__all__ = ["SOURCE"]

SOURCE = r"""
// What the hooks do to gradients, element by element.
template <typename T>
__device__ __forceinline__ T sign(T x)
{
    // -1, 0 or 1; NaN stays
    return x > 0 ? (T)1 : x < 0 ? (T)-1 : x == 0 ? (T)0 : x;
}

template <typename T>
__device__ __forceinline__ T changed(unsigned kind, T p, T g, T a, T b)
{
    if (kind == ADD)
        // g = (g + a * p) * b
        return (g + a * p) * b;
    if (kind == ADD_SIGN)
        // g = g + a * sign(p)
        return g + a * sign(p);
    if (kind == CLIP) {
        // g = min(max(g, a), b); a NaN stays
        T larger = g > a ? g : a;
        larger = larger < b ? larger : b;
        return g != g ? g : larger;
    }
    // g = g * b
    return g * b;
}

template <typename T, typename P, typename G>
__global__ void __launch_bounds__(THREADS) change(
    const Change *rows,              // IN: one row a gradient
    const unsigned *blocks,          // IN: which gradient a block is for
    unsigned chunk,                  // a multiple of 16
    unsigned kind,                   // a Kind
    const double *rates)             // IN: in the place of every b, unless null
{
    constexpr int N = width<T>();
    const Change row = rows[blocks[blockIdx.x]];
    const size_t first = (blockIdx.x - row.start) * chunk;
    const unsigned n = row.n - first < chunk ? row.n - first : chunk;
    const P *p = at<P>(row.p, first);
    G *g = at<G>(row.g, first);
    const bool reads = kind == ADD || kind == ADD_SIGN;
    const T a = (T)row.a, b = (T)(rates ? rates[row.place] : row.b);

    unsigned head = 0;
    while (head < N && !(aligned<N>(g + head) && (!reads || aligned<N>(p + head))))
        ++head;
    walk<N, 1>(n, head < N ? head : n, [=](auto taken, unsigned i, unsigned) {
        constexpr int M = decltype(taken)::N;
        Pack<G, M> g_i = load<M>(g + i);
        Pack<P, M> p_i;
        if (reads)
            p_i = load<M>(p + i);
#pragma unroll
        for (int j = 0; j < M; ++j) {
            const T p_j = reads ? widen(p_i.x[j]) : (T)0;
            narrow(changed(kind, p_j, widen(g_i.x[j]), a, b), g_i.x[j]);
        }
        store<M>(g + i, g_i);
    });
}

// The rates of layer-wise adaptive rate scaling, a thread for each gradient.
__global__ void __launch_bounds__(THREADS) lars_rates(
    const double *p_squares,         // IN: one a gradient
    const double *g_squares,         // IN
    size_t n,                        // gradients
    double threshold,
    double weight_decay,
    double eps,
    double *rates)                   // OUT: one a gradient
{
    const size_t k = (size_t)blockIdx.x * THREADS + threadIdx.x;
    if (k >= n)
        return;
    const double p_norm = sqrt(p_squares[k]), g_norm = sqrt(g_squares[k]);
    // r = |p| / (eps + |g| + weight_decay * |p|)
    const double size = eps + g_norm + weight_decay * p_norm;
    rates[k] = p_norm > threshold && size != 0 ? p_norm / size : 1.0;
}
"""
