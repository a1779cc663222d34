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
template <typename T, typename P, typename G, bool AMSGRAD, bool ADABOUND>
__global__ void __launch_bounds__(THREADS, (resident<T, P, G, AMSGRAD>())) adam(
    const Tensor *tensors,           // IN: one row a tensor
    const size_t *gradients,         // IN: the address of each gradient; IN, OUT where WRITTEN
    const unsigned *blocks,          // IN: which tensor a block is for
    unsigned chunk,                  // a multiple of 16
    unsigned prepare,                // a Prepare
    const double *rate,              // IN: what prepared gradients are multiplied with; may be null
    const Scalars<T> *replayed,      // IN: rows in the place of the next one's, unless null
    GRID_CONSTANT const Scalars<T> scalars)
{
    constexpr int N = width<T, P, G>();
    const unsigned k = blocks[blockIdx.x];
    const Tensor tensor = tensors[k];
    const size_t first = (blockIdx.x - tensor.start) * chunk;
    const size_t n = tensor.n - first < chunk ? tensor.n - first : chunk;
    P *p = at<P>(tensor.p, first);
    G *g = at<G>(gradients[k], first);
    T *m = at<T>(tensor.m, first);
    T *v = at<T>(tensor.v, first);
    T *vhat = AMSGRAD ? at<T>(tensor.vhat, first) : nullptr;
    // only a float32 array is a master
    const size_t its_half = sizeof(P) == 4 ? tensor.half : 0;
    unsigned short *half = its_half ? at<unsigned short>(its_half, first) : nullptr;
    const Row<T> c = replayed ? replayed->rows[tensor.row] : scalars.rows[tensor.row];
    // a graph divides by what it was captured with
    const T scale = scalars.scale;
    const T clip = rate ? (T)*rate : (T)1;

    size_t head = 0;
    while (head < N && !(aligned<N>(p + head) && aligned<N>(g + head) && aligned<N>(m + head)
                         && aligned<N>(v + head) && (!AMSGRAD || aligned<N>(vhat + head))
                         && (!half || aligned<N>(half + head))))
        ++head;
    walk<N>(n, head < N ? head : n, [=](auto width, size_t i) {
        constexpr int M = decltype(width)::value;
        Pack<P, M> p_i = load<M>(p + i);
        Pack<G, M> g_i = load<M>(g + i);
        Pack<T, M> m_i = load<M>(m + i);
        Pack<T, M> v_i = load<M>(v + i);
        Pack<T, M> vhat_i;
        Pack<unsigned short, M> half_i;
        if (AMSGRAD)
            vhat_i = load<M>(vhat + i);
        if (half)
            half_i = load<M>(half + i);
#pragma unroll
        for (int j = 0; j < M; ++j) {
            T p_j = widen(p_i.x[j]);
            T g_j = widen(g_i.x[j]);
            if (half)
                follow_any(tensor.half_type, p_j, half_i.x[j]);
            if (prepare != AS_IT_IS)
                g_j = prepared(g_i.x[j], scale, clip);
            adam_element<T, AMSGRAD, ADABOUND>(
                p_j, g_j, m_i.x[j], v_i.x[j], vhat_i.x[j], c);
            narrow(p_j, p_i.x[j]);
            if (half)
                half_i.x[j] = rounded_any(tensor.half_type, p_j);
            if (prepare == WRITTEN)
                narrow(g_j, g_i.x[j]);
        }
        store<M>(p + i, p_i);
        store<M>(m + i, m_i);
        store<M>(v + i, v_i);
        if (AMSGRAD)
            store<M>(vhat + i, vhat_i);
        if (half)
            store<M>(half + i, half_i);
        if (prepare == WRITTEN)
            store<M>(g + i, g_i);
    });
}
"""
