"""CUDA: half precision widened and narrowed, and the way through the elements of an array."""

__all__ = ["SOURCE"]

SOURCE = r"""
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

// Elements that one thread takes at a time: 16 bytes of what is computed in, so that the accesses
// of a warp are to one piece of memory, and 8 of the half types.
template <typename T>
__device__ constexpr int width()
{
    return 16 / sizeof(T);
}

// How many of these are on their way at once: twice as many of what is stored in 16 bits.
template <typename T, typename P, typename G>
__device__ constexpr int at_once()
{
    return sizeof(P) < sizeof(T) || sizeof(G) < sizeof(T) ? 2 : 1;
}

// Blocks that a multiprocessor holds at a time, at the least: as many as no register has to be
// spilled for. What takes registers: float64, a third moment, gradients that are to be written.
template <typename T, bool AMSGRAD, bool WRITES>
__device__ constexpr int resident()
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 750
    constexpr int OLD = 1;
#else
    constexpr int OLD = 0;
#endif
    constexpr int BLOCKS = 4 - (sizeof(T) > 4) - AMSGRAD - WRITES - OLD;
    return BLOCKS < 2 ? 2 : BLOCKS;
}

// Reading and writing of a pack, in one access of up to 16 bytes. Of an address out of a table the
// compiler does not know that it is global, and would make every access one that asks.
template <int N, typename X>
union Words
{
    Pack<X, N> pack;
    unsigned u[sizeof(X) * N < 4 ? 1 : sizeof(X) * N / 4];
    unsigned short h;
};

template <int N, typename X>
__device__ __forceinline__ Pack<X, N> load(const X *x)
{
#ifdef __CUDA_ARCH__
    Words<N, X> w;
    constexpr int BYTES = sizeof(X) * N;
    if constexpr (BYTES == 16)
        asm volatile("ld.global.v4.u32 {%0, %1, %2, %3}, [%4];"
                     : "=r"(w.u[0]), "=r"(w.u[1]), "=r"(w.u[2]), "=r"(w.u[3]) : "l"(x));
    else if constexpr (BYTES == 8)
        asm volatile("ld.global.v2.u32 {%0, %1}, [%2];" : "=r"(w.u[0]), "=r"(w.u[1]) : "l"(x));
    else if constexpr (BYTES == 4)
        asm volatile("ld.global.u32 %0, [%1];" : "=r"(w.u[0]) : "l"(x));
    else
        asm volatile("ld.global.u16 %0, [%1];" : "=h"(w.h) : "l"(x));
    return w.pack;
#else
    return *reinterpret_cast<const Pack<X, N> *>(x);
#endif
}

template <int N, typename X>
__device__ __forceinline__ void store(X *x, const Pack<X, N> &pack)
{
#ifdef __CUDA_ARCH__
    Words<N, X> w;
    w.pack = pack;
    constexpr int BYTES = sizeof(X) * N;
    if constexpr (BYTES == 16)
        asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};"
                     : : "l"(x), "r"(w.u[0]), "r"(w.u[1]), "r"(w.u[2]), "r"(w.u[3]));
    else if constexpr (BYTES == 8)
        asm volatile("st.global.v2.u32 [%0], {%1, %2};" : : "l"(x), "r"(w.u[0]), "r"(w.u[1]));
    else if constexpr (BYTES == 4)
        asm volatile("st.global.u32 [%0], %1;" : : "l"(x), "r"(w.u[0]));
    else
        asm volatile("st.global.u16 [%0], %1;" : : "l"(x), "h"(w.h));
#else
    *reinterpret_cast<Pack<X, N> *>(x) = pack;
#endif
}

// Whether N neighbouring elements may be read and written at once; an array that is not there may.
template <int N, typename X>
__device__ __forceinline__ bool aligned(const X *x)
{
    return (size_t)x % alignof(Pack<X, N>) == 0;
}

// What is taken at a time: up to U packs of N elements each, at distances of N * THREADS.
template <int N_, int U_> struct Taken { static constexpr int N = N_, U = U_; };

// Call f for all of n neighbouring elements: for up to U packs of N at a time from the first one,
// `head`, at which all arrays are aligned (n, if there is none), with how many are left; and for
// one element at a time before and after.
template <int N, int U, typename F>
__device__ __forceinline__ void walk(unsigned n, unsigned head, F f)
{
    head = head < n ? head : n;
    const unsigned packs = (n - head) / N;
#pragma unroll 1
    for (unsigned i = threadIdx.x; i < packs; i += U * THREADS)
        f(Taken<N, U>(), head + i * N, (packs - i + THREADS - 1) / THREADS);
#pragma unroll 1
    for (unsigned i = threadIdx.x; i < n - packs * N; i += THREADS)
        f(Taken<1, 1>(), i < head ? i : i + packs * N, 1);
}
"""
