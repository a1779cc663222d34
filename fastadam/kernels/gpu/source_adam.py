"""CUDA: the formula of Adam, and the kernel that steps all tensors."""

__all__ = ["SOURCE"]

SOURCE = r"""
// One step of one element.
template <typename T, bool AMSGRAD, bool ADABOUND>
__device__ __forceinline__ void adam_element(T &p, T g, T &m, T &v, T &vhat, const Row<T> &c)
{
    // m += (1 - beta1) * (g - m)
    m = m + c.one_minus_beta1 * (g - m);
    // v += (1 - beta2) * (g*g - v)
    v = v + c.one_minus_beta2 * (g * g - v);
    T larger, smaller, vhat_i = v;
    if (AMSGRAD) {
        // vhat = max(vhat, v); a NaN stays; adding 0 flushes a subnormal vhat as arithmetic does
        vhat_i = vhat + (T)0;
        larger = vhat_i >= v ? vhat_i : v;
        vhat_i = vhat_i != vhat_i ? vhat_i : larger;
        vhat = vhat_i;
    }
    // step = alpha_t / (sqrt(vhat) + eps)
    T step = c.alpha_t / (root(vhat_i) + c.eps);
    if (ADABOUND) {
        // step = clip(step, lower, upper); a NaN, of step or bounds, stays
        larger = step >= c.lower ? step : c.lower;
        step = step != step ? step : larger;
        smaller = step <= c.upper ? step : c.upper;
        step = step != step ? step : smaller;
    }
    // p = (1 - decay) * p - eta * (step * m)
    p = c.one_minus_decay * p - c.eta * (step * m);
}

// The gradient that the step is made with: g / scale * rate, as a pass that divides by the loss
// scale and a hook that clips would leave it: a half-precision gradient that is not divided is
// clipped in its own type.
template <typename T, typename G>
__device__ __forceinline__ T prepared(G g, T scale, T rate)
{
    if (scale != 0)
        return widen(g) / scale * rate;
    G clipped;
    narrow(widen(g) * rate, clipped);
    return widen(clipped);
}

// A float32 master takes over what has been written to its half-precision parameter: an element
// that is not its master's, rounded, was written from outside.
template <typename H>
__device__ __forceinline__ void follow(float &p, unsigned short written)
{
    H rounded;
    narrow(p, rounded);
    if (rounded.bits != written)
        p = widen(H{written});
}

template <typename H>
__device__ __forceinline__ unsigned short rounded(float p)
{
    H half;
    narrow(p, half);
    return half.bits;
}

// float64 parameters are nobody's masters.
__device__ __forceinline__ void follow_any(size_t, double &, unsigned short) {}
__device__ __forceinline__ unsigned short rounded_any(size_t, double) { return 0; }

__device__ __forceinline__ void follow_any(size_t half_type, float &p, unsigned short written)
{
    half_type == FLOAT16 ? follow<float16>(p, written) : follow<bfloat16>(p, written);
}

__device__ __forceinline__ unsigned short rounded_any(size_t half_type, float p)
{
    return half_type == FLOAT16 ? rounded<float16>(p) : rounded<bfloat16>(p);
}

// One step of all elements of all tensors, a block for every `chunk` elements. Computed in T;
// parameters are stored as P, gradients as G.
template <typename T, typename P, typename G, bool AMSGRAD, bool ADABOUND, Prepare PREPARE,
          bool MASTERS>
__global__ void __launch_bounds__(THREADS, (resident<T, AMSGRAD, PREPARE == WRITTEN>())) adam(
    const Tensor *tensors,           // IN: one row a tensor
    const size_t *gradients,         // IN: the address of each gradient; IN, OUT where WRITTEN
    const unsigned *blocks,          // IN: which tensor a block is for
    unsigned chunk,                  // a multiple of 16
    const double *rate,              // IN: what prepared gradients are multiplied with; may be null
    const Scalars<T> *replayed,      // IN: rows in the place of the next one's, unless null
    GRID_CONSTANT const Scalars<T> scalars)
{
    constexpr int N = width<T>();
    if (replayed && replayed->due == 0)
        return;
    const unsigned k = blocks[blockIdx.x];
    const Tensor tensor = tensors[k];
    const size_t first = (blockIdx.x - tensor.start) * chunk;
    const unsigned n = tensor.n - first < chunk ? tensor.n - first : chunk;
    P *p = at<P>(tensor.p, first);
    G *g = at<G>(gradients[k], first);
    T *m = at<T>(tensor.m, first);
    T *v = at<T>(tensor.v, first);
    T *vhat = at<T>(tensor.vhat, first);
    const bool master = MASTERS && tensor.half;
    unsigned short *half = at<unsigned short>(tensor.half, first);
    Row<T> c = scalars.rows[tensor.row];
    if (replayed)
        c = replayed->rows[tensor.row];
    // a graph divides by what it was captured with
    const T scale = scalars.scale;
    const T clip = rate ? (T)*rate : (T)1;

    unsigned head = 0;
    while (head < N && !(aligned<N>(p + head) && aligned<N>(g + head) && aligned<N>(m + head)
                         && aligned<N>(v + head) && (!AMSGRAD || aligned<N>(vhat + head))
                         && (!master || aligned<N>(half + head))))
        ++head;
    walk<N, at_once<T, P, G>()>(n, head < N ? head : n, [=](auto taken, unsigned i, unsigned left) {
        constexpr int M = decltype(taken)::N, U = decltype(taken)::U;
        Pack<P, M> p_i[U];
        Pack<G, M> g_i[U];
        Pack<T, M> m_i[U], v_i[U], vhat_i[U];
        Pack<unsigned short, M> half_i[U];
#pragma unroll
        for (unsigned u = 0; u < U; ++u) {
            // where there is none, the first one again, which is not stored
            const unsigned at = u < left ? i + u * M * THREADS : i;
            p_i[u] = load<M>(p + at);
            g_i[u] = load<M>(g + at);
            m_i[u] = load<M>(m + at);
            v_i[u] = load<M>(v + at);
            if (AMSGRAD)
                vhat_i[u] = load<M>(vhat + at);
            if (master)
                half_i[u] = load<M>(half + at);
        }
#pragma unroll
        for (unsigned u = 0; u < U && u < left; ++u) {
#pragma unroll
            for (int j = 0; j < M; ++j) {
                T p_j = widen(p_i[u].x[j]);
                T g_j = widen(g_i[u].x[j]);
                if (master)
                    follow_any(tensor.half_type, p_j, half_i[u].x[j]);
                if (PREPARE != AS_IT_IS)
                    g_j = prepared(g_i[u].x[j], scale, clip);
                adam_element<T, AMSGRAD, ADABOUND>(
                    p_j, g_j, m_i[u].x[j], v_i[u].x[j], vhat_i[u].x[j], c);
                narrow(p_j, p_i[u].x[j]);
                if (master)
                    half_i[u].x[j] = rounded_any(tensor.half_type, p_j);
                if (PREPARE == WRITTEN)
                    narrow(g_j, g_i[u].x[j]);
            }
            const unsigned at = i + u * M * THREADS;
            store<M>(p + at, p_i[u]);
            store<M>(m + at, m_i[u]);
            store<M>(v + at, v_i[u]);
            if (AMSGRAD)
                store<M>(vhat + at, vhat_i[u]);
            if (master)
                store<M>(half + at, half_i[u]);
            if (PREPARE == WRITTEN)
                store<M>(g + at, g_i[u]);
        }
    });
}
"""
