# Half-precision numbers as the 16-bit patterns they are stored as: to float32, which is exact, and
# back, rounded to the nearest, ties to even. Whole numbers only, and selections in place of
# branches, so that the loops around them become vectors on any machine; the mode that flushes
# subnormal float32 changes nothing here. Where the machine converts float16 itself, several numbers
# at once, it does so; the bits are the same, those of NaN included: quiet, with the upper payload.

cdef extern from *:
    """
    #include <string.h>
    static inline int fastadam_bits(float x) {
        int bits;
        memcpy(&bits, &x, sizeof bits);
        return bits;
    }
    static inline float fastadam_float(int bits) {
        float x;
        memcpy(&x, &bits, sizeof x);
        return x;
    }

    #if defined(__AVX512F__)
    #include <immintrin.h>
    #define FASTADAM_TOGETHER 16
    static inline void fastadam_widen(const short *half, float *x) {
        _mm512_storeu_ps(x, _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *) half)));
    }
    static inline void fastadam_narrow(const float *x, short *half) {
        __m256i rounded = _mm512_cvtps_ph(_mm512_loadu_ps(x), _MM_FROUND_TO_NEAREST_INT);
        _mm256_storeu_si256((__m256i *) half, rounded);
    }
    #elif defined(__F16C__)
    #include <immintrin.h>
    #define FASTADAM_TOGETHER 8
    static inline void fastadam_widen(const short *half, float *x) {
        _mm256_storeu_ps(x, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *) half)));
    }
    static inline void fastadam_narrow(const float *x, short *half) {
        __m128i rounded = _mm256_cvtps_ph(_mm256_loadu_ps(x), _MM_FROUND_TO_NEAREST_INT);
        _mm_storeu_si128((__m128i *) half, rounded);
    }
    #else
    #define FASTADAM_TOGETHER 1
    static inline void fastadam_widen(const short *half, float *x) { (void) half; (void) x; }
    static inline void fastadam_narrow(const float *x, short *half) { (void) x; (void) half; }
    #endif
    """
    int fastadam_bits(float x) noexcept nogil
    float fastadam_float(int bits) noexcept nogil
    const Py_ssize_t FASTADAM_TOGETHER  # numbers that the machine converts at once
    void fastadam_widen(const short* half, float* x) noexcept nogil
    void fastadam_narrow(const float* x, short* half) noexcept nogil

cdef enum:
    REBIAS = 112 << 23              # from the bias of float16's exponent, 15, to float32's, 127
    HALF = 126 << 23                # 0.5
    INFINITE = 255 << 23
    FLOAT16_NORMAL = 113 << 23      # 2**-14, the least normal float16
    FLOAT16_INFINITE = 143 << 23    # 65536, as a float16 infinity
    QUIET = 1 << 22                 # what tells a quiet NaN from a signalling one


cdef inline int choose(bint condition, int yes, int no) noexcept nogil:
    """A selection that the C compiler cannot turn into a branch."""
    return no ^ ((yes ^ no) & -<int> condition)


cdef inline float from_float16(short x) noexcept nogil:
    """Widen a float16."""
    cdef int sign = <int> (<unsigned int> (x & 0x8000) << 16)
    cdef int magnitude = x & 0x7fff
    cdef int normal = (magnitude << 13) + REBIAS
    # infinity and NaN: the exponent of all ones again
    cdef int special = (normal + REBIAS) | (QUIET & -<int> (magnitude > 0x7c00))
    # subnormal: a multiple of 2**-24, which is a normal float32
    cdef int subnormal = fastadam_bits(<float> magnitude * <float> 5.9604644775390625e-08)
    cdef int bits = choose(magnitude >= 0x7c00, special, normal)
    bits = choose(magnitude < 0x400, subnormal, bits)
    return fastadam_float(sign | bits)


cdef inline short to_float16(float x) noexcept nogil:
    """Round to float16."""
    cdef int bits = fastadam_bits(x)
    cdef int sign = (bits >> 16) & 0x8000
    cdef int magnitude = bits & 0x7fffffff
    # from 65536 on everything is infinity, and 65520 to 65536 round up to it
    cdef int finite = min(magnitude, <int> FLOAT16_INFINITE)
    cdef int normal = (finite - REBIAS + 0xfff + ((finite >> 13) & 1)) >> 13
    # beside 0.5, the last bit of a float32 is worth 2**-24, as that of a subnormal float16
    cdef int subnormal = fastadam_bits(fastadam_float(magnitude) + <float> 0.5) - HALF
    cdef int rounded = choose(magnitude < FLOAT16_NORMAL, subnormal, normal)
    # NaN: infinity with bits in the mantissa
    rounded = choose(magnitude > INFINITE, 0x7c00 | ((magnitude | QUIET) >> 13 & 0x3ff), rounded)
    return <short> (sign | rounded)


cdef inline float from_bfloat16(unsigned short x) noexcept nogil:
    """Widen a bfloat16: the upper half of a float32."""
    return fastadam_float(<int> (<unsigned int> x << 16))


cdef inline unsigned short to_bfloat16(float x) noexcept nogil:
    """Round to bfloat16."""
    cdef int bits = fastadam_bits(x)
    cdef int magnitude = bits & 0x7fffffff
    cdef int sign = (bits >> 16) & 0x8000
    cdef unsigned int up = <unsigned int> magnitude + 0x7fff + ((magnitude >> 16) & 1)
    cdef int rounded = <int> (up >> 16)
    rounded = choose(magnitude > INFINITE, 0x7fc0, rounded)
    return <unsigned short> (sign | rounded)


cdef void widen(Py_ssize_t stored, size_t address, float_restrict x, Py_ssize_t n) noexcept nogil:
    """Widen n neighbouring numbers of a half type."""
    cdef float16_restrict float16 = <float16_restrict> address
    cdef bfloat16_restrict bfloat16 = <bfloat16_restrict> address
    cdef Py_ssize_t i, together = 0
    if stored == BFLOAT16:
        for i in range(n):
            x[i] = from_bfloat16(bfloat16[i])
        return
    if FASTADAM_TOGETHER > 1:
        together = n - n % FASTADAM_TOGETHER
        i = 0
        while i < together:
            fastadam_widen(float16 + i, x + i)
            i += FASTADAM_TOGETHER
    for i in range(together, n):
        x[i] = from_float16(float16[i])


cdef void round_wide(size_t address, float_restrict x, Py_ssize_t n) noexcept nogil:
    """Round n neighbouring float64, as NumPy does: where the mode does not flush."""
    cdef double_restrict wide = <double_restrict> address
    cdef Py_ssize_t i
    cdef fastadam_mode flushing = fastadam_flush_off()
    for i in range(n):
        x[i] = <float> wide[i]
    fastadam_flush_restore(flushing)


cdef void narrow(float_restrict x, Py_ssize_t stored, size_t address, Py_ssize_t n) noexcept nogil:
    """Round n neighbouring numbers to a half type."""
    cdef float16_restrict float16 = <float16_restrict> address
    cdef bfloat16_restrict bfloat16 = <bfloat16_restrict> address
    cdef Py_ssize_t i, together = 0
    if stored == BFLOAT16:
        for i in range(n):
            bfloat16[i] = to_bfloat16(x[i])
        return
    if FASTADAM_TOGETHER > 1:
        together = n - n % FASTADAM_TOGETHER
        i = 0
        while i < together:
            fastadam_narrow(x + i, float16 + i)
            i += FASTADAM_TOGETHER
    for i in range(together, n):
        float16[i] = to_float16(x[i])


cdef called_void follow(
    float_restrict p,          # IN, OUT
    float_restrict rounded,    # IN: p, rounded to the half type and widened again
    float_restrict half,       # IN: the half-precision parameter, widened
    Py_ssize_t n,
) noexcept nogil:
    """Float32 masters take over what has been written to their half-precision parameter."""
    cdef Py_ssize_t i
    cdef int written
    for i in range(n):
        # an element that is not its master's, rounded, was written from outside
        written = fastadam_bits(half[i])
        p[i] = fastadam_float(
            choose(written == fastadam_bits(rounded[i]), fastadam_bits(p[i]), written)
        )
