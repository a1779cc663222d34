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
