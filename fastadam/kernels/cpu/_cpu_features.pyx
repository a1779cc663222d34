"""Which machine the kernels were compiled for, which instruction sets, and which this CPU runs."""

cdef extern from *:
    """
    #if defined(__x86_64__)
    #define FASTADAM_MACHINE "x86_64"
    #include <cpuid.h>
    /* Not every compiler's __builtin_cpu_supports knows f16c. */
    static int fastadam_f16c(void) {
        unsigned int a, b, c, d;
        return __get_cpuid(1, &a, &b, &c, &d) && (c & (1u << 29));
    }
    /* These ask the operating system as well, whether it saves the wide registers. */
    static int fastadam_avx2(void) {
        __builtin_cpu_init();
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && fastadam_f16c();
    }
    static int fastadam_avx512(void) {
        return fastadam_avx2()
            && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq")
            && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
    }
    /* Vector byte manipulation 2 came with Ice Lake and Zen 4. */
    static int fastadam_avx512_at_full_speed(void) {
        return fastadam_avx512() && __builtin_cpu_supports("avx512vbmi2");
    }
    #else
    #if defined(__aarch64__)
    #define FASTADAM_MACHINE "aarch64"
    #else
    #define FASTADAM_MACHINE "unknown"
    #endif
    static int fastadam_avx2(void) { return 0; }
    static int fastadam_avx512(void) { return 0; }
    static int fastadam_avx512_at_full_speed(void) { return 0; }
    #endif
    """
    const char* FASTADAM_MACHINE
    const char* FASTADAM_BUILT
    int fastadam_avx2()
    int fastadam_avx512()
    int fastadam_avx512_at_full_speed()


def machine() -> str:
    """Return the machine that this build is for: 'x86_64', 'aarch64'."""
    return FASTADAM_MACHINE.decode("ascii")


def built() -> tuple[str, ...]:
    """Return the instruction sets for which this build has kernels, the plainest first."""
    return tuple(FASTADAM_BUILT.decode("ascii").split())


def supported() -> tuple[str, ...]:
    """Return the instruction sets that this CPU and its operating system run, plainest first."""
    names = ["baseline"]
    if fastadam_avx2():
        names.append("avx2")
    if fastadam_avx512():
        names.append("avx512")
    return tuple(names)


def avx512_at_full_speed() -> bool:
    """Tell whether this CPU is of a kind that hardly lowers its clock for AVX-512, if at all."""
    return bool(fastadam_avx512_at_full_speed())
