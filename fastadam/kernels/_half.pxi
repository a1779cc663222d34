# Half-precision numbers as the 16-bit patterns they are stored as: to float32, which is exact, and
# back, rounded to the nearest, ties to even. Whole numbers only, and selections in place of
# branches, so that the loops around them become vectors on any machine; the mode that flushes
# subnormal float32 changes nothing here.

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
    """
    int fastadam_bits(float x) noexcept nogil
    float fastadam_float(int bits) noexcept nogil

cdef enum:
    REBIAS = 112 << 23              # from the bias of float16's exponent, 15, to float32's, 127
    HALF = 126 << 23                # 0.5
    INFINITE = 255 << 23
    FLOAT16_NORMAL = 113 << 23      # 2**-14, the least normal float16
    FLOAT16_INFINITE = 143 << 23    # 65536, as a float16 infinity


cdef inline int choose(bint condition, int yes, int no) noexcept nogil:
    """A selection that the C compiler cannot turn into a branch."""
    return no ^ ((yes ^ no) & -<int> condition)


cdef inline float from_float16(short x) noexcept nogil:
    """Widen a float16."""
    cdef int sign = <int> (<unsigned int> (x & 0x8000) << 16)
    cdef int magnitude = x & 0x7fff
    cdef int normal = (magnitude << 13) + REBIAS
    # infinity and NaN: the exponent of all ones again
    cdef int special = normal + REBIAS
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
    # infinity with a bit in the mantissa is NaN
    rounded = rounded | (<int> (magnitude > INFINITE) << 9)
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
