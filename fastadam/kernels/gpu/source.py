r"""The CUDA source of the GPU engine, and nothing else.

Same formulas, names and order as ``reference.py`` and ``_step.pyx``; same bits, as long as it is
compiled without contraction and with IEEE division and roots (see ``engine.OPTIONS``). It includes
no header, so that it needs none of the CUDA toolkit's. The arguments of each kernel are declared
for Python in ``engine.KERNELS``.
"""

from fastadam.algorithms.adam import ADAM

__all__ = ["SOURCE"]

_TYPES = r"""
// How many threads a block has, elements a chunk of the defined order of a norm, and rows the
// scalars.
constexpr unsigned THREADS = 256;
constexpr unsigned CHUNK = 4096;
constexpr unsigned SETS = 32;

// Architectures before sm_70 do not know what lets a parameter be read where it is.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 700
#define GRID_CONSTANT
#else
#define GRID_CONSTANT __grid_constant__
#endif

// Half-precision numbers as they are stored.
struct float16 { unsigned short bits; };
struct bfloat16 { unsigned short bits; };

// N neighbouring elements, read and written with accesses of 16 bytes.
template <typename X, int N>
struct alignas(sizeof(X) * N < 16 ? sizeof(X) * N : 16) Pack { X x[N]; };

// One parameter: where its arrays lie and which scalars drive its step. gpu/table.py makes the same
// for NumPy.
struct Tensor {
    size_t p;
    size_t STREAMS;    // 0 for one that is not there
    size_t half;       // the half-precision parameter that p is the float32 master of, or 0
    size_t half_type;  // a Stored
    size_t n;          // elements
    size_t start;      // blocks of the tensors before this one
    size_t row;        // this tensor's row of scalars
};

// One gradient whose squares are summed.
struct Span {
    size_t n;          // elements
    size_t start;      // chunks of the gradients before this one
    size_t place;      // of its total
};

// One gradient that a hook changes, and the numbers a and b of the change.
struct Change {
    size_t p, g, n, start;
    size_t place;      // of its rate
    double a, b;
};

// The scalars of one step, in the order of the algorithm.
template <typename T>
struct Row {
    T SCALARS;
};

// Those of all parameters of a launch, and what their gradients are divided by, 0 for nothing.
template <typename T>
struct Scalars { Row<T> rows[SETS]; T scale; };

// How a half-precision parameter is stored, as in _tensors.pxd; what is done to gradients before a
// step, as in gpu/table.py; and what a hook does to them, as in ops.py.
enum Stored { COMPUTING, FLOAT16, BFLOAT16 };
enum Prepare { AS_IT_IS, PREPARED, WRITTEN };
enum Kind { STEP, ADD, ADD_SIGN, CLIP, MULTIPLY };
"""
_TYPES = _TYPES.replace("STREAMS", ", ".join(ADAM.state))
_TYPES = _TYPES.replace("SCALARS", ", ".join(ADAM.scalars))

_HALF = r"""
// Conversions: exact when they widen, to the nearest, ties to even, when they narrow. The same
// whole-number arithmetic as in _half.pxi, except where the GPU converts by itself.
__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ double widen(double x) { return x; }

__device__ __forceinline__ float widen(bfloat16 x)
{
    return __uint_as_float((unsigned)x.bits << 16);
}

__device__ __forceinline__ float widen(float16 x)
{
#ifdef __CUDA_ARCH__
    float wide;
    asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(x.bits));
    return wide;
#else
    const unsigned sign = (x.bits & 0x8000u) << 16, magnitude = x.bits & 0x7fffu;
    const unsigned normal = (magnitude << 13) + (112u << 23);
    // infinity and NaN: the exponent of all ones again
    if (magnitude >= 0x7c00u)
        return __uint_as_float(sign | (normal + (112u << 23)) | (magnitude > 0x7c00u) << 22);
    // subnormal: a multiple of 2**-24, which is a normal float32
    if (magnitude < 0x400u)
        return __uint_as_float(sign | __float_as_uint((float)magnitude * 5.9604644775390625e-08f));
    return __uint_as_float(sign | normal);
#endif
}

__device__ __forceinline__ void narrow(float x, float &out) { out = x; }
__device__ __forceinline__ void narrow(double x, double &out) { out = x; }

__device__ __forceinline__ void narrow(float x, bfloat16 &out)
{
    const unsigned bits = __float_as_uint(x), sign = bits & 0x80000000u, magnitude = bits ^ sign;
    const unsigned rounded = magnitude + 0x7fffu + ((magnitude >> 16) & 1u);
    out.bits = (sign | (magnitude > 0x7f800000u ? 0x7fc00000u : rounded)) >> 16;
}

__device__ __forceinline__ void narrow(float x, float16 &out)
{
#ifdef __CUDA_ARCH__
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(out.bits) : "f"(x));
#else
    const unsigned bits = __float_as_uint(x), sign = bits >> 16 & 0x8000u;
    const unsigned magnitude = bits & 0x7fffffffu;
    // from 65536 on everything is infinity, and 65520 to 65536 round up to it
    const unsigned finite = magnitude < (143u << 23) ? magnitude : 143u << 23;
    unsigned rounded = (finite - (112u << 23) + 0xfffu + (finite >> 13 & 1u)) >> 13;
    // beside 0.5, the last bit of a float32 is worth 2**-24, as that of a subnormal float16
    if (magnitude < (113u << 23))
        rounded = __float_as_uint(__uint_as_float(magnitude) + 0.5f) - (126u << 23);
    if (magnitude > 0x7f800000u)
        rounded = 0x7e00u;
    out.bits = sign | rounded;
#endif
}

__device__ __forceinline__ float root(float x) { return sqrtf(x); }
__device__ __forceinline__ double root(double x) { return sqrt(x); }

template <typename X>
__device__ __forceinline__ X *at(size_t address, size_t first)
{
    return reinterpret_cast<X *>(address) + first;
}
"""

_WALK = r"""
// Elements that one thread takes at a time: as many as make 16 bytes of the narrowest array.
template <typename T, typename P, typename G>
__device__ constexpr int width()
{
    return 16 / (sizeof(P) < sizeof(T) || sizeof(G) < sizeof(T) ? 2 : sizeof(T));
}

// Blocks that a multiprocessor holds at a time, at the least: as many as no register has to be
// spilled for.
template <typename T, typename P, typename G, bool AMSGRAD>
__device__ constexpr int resident()
{
    return width<T, P, G>() == 4 && !AMSGRAD ? 3 : 2;
}

template <int N, typename X>
__device__ __forceinline__ Pack<X, N> load(const X *x)
{
    return *reinterpret_cast<const Pack<X, N> *>(x);
}

template <int N, typename X>
__device__ __forceinline__ void store(X *x, const Pack<X, N> &pack)
{
    *reinterpret_cast<Pack<X, N> *>(x) = pack;
}

// Whether N neighbouring elements may be read and written at once; an array that is not there may.
template <int N, typename X>
__device__ __forceinline__ bool aligned(const X *x)
{
    return (size_t)x % alignof(Pack<X, N>) == 0;
}

template <int N> struct Width { static constexpr int value = N; };

// Call f for all of n neighbouring elements: N at a time from the first one, `head`, at which all
// arrays are aligned (n, if there is none), and one at a time before and after.
template <int N, typename F>
__device__ __forceinline__ void walk(size_t n, size_t head, F f)
{
    head = head < n ? head : n;
    const size_t packs = (n - head) / N;
    for (size_t i = threadIdx.x; i < packs; i += THREADS)
        f(Width<N>(), head + i * N);
    for (size_t i = threadIdx.x; i < n - packs * N; i += THREADS)
        f(Width<1>(), i < head ? i : i + packs * N);
}
"""

_STEP = r"""
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

_NORM = r"""
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

_HOOKS = r"""
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
    constexpr int N = width<T, P, G>();
    const Change row = rows[blocks[blockIdx.x]];
    const size_t first = (blockIdx.x - row.start) * chunk;
    const size_t n = row.n - first < chunk ? row.n - first : chunk;
    const P *p = at<P>(row.p, first);
    G *g = at<G>(row.g, first);
    const bool reads = kind == ADD || kind == ADD_SIGN;
    const T a = (T)row.a, b = (T)(rates ? rates[row.place] : row.b);

    size_t head = 0;
    while (head < N && !(aligned<N>(g + head) && (!reads || aligned<N>(p + head))))
        ++head;
    walk<N>(n, head < N ? head : n, [=](auto width, size_t i) {
        constexpr int M = decltype(width)::value;
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

SOURCE = _TYPES + _HALF + _WALK + _STEP + _NORM + _HOOKS
