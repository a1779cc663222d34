# The switch that flushes subnormal numbers, of the thread that throws it. The inline assembly names
# memory as clobbered: no load or store of a loop can move across it.

cdef extern from *:
    """
    #if defined(__x86_64__)
    typedef unsigned int fastadam_mode;
    static inline fastadam_mode fastadam_flush_on(void) {
        fastadam_mode saved, flushing;
        __asm__ __volatile__("stmxcsr %0" : "=m"(saved) : : "memory");
        flushing = saved | 0x8040u;  /* FTZ: results, DAZ: operands */
        __asm__ __volatile__("ldmxcsr %0" : : "m"(flushing) : "memory");
        return saved;
    }
    static inline fastadam_mode fastadam_flush_off(void) {
        fastadam_mode saved, keeping;
        __asm__ __volatile__("stmxcsr %0" : "=m"(saved) : : "memory");
        keeping = saved & ~0x8040u;
        __asm__ __volatile__("ldmxcsr %0" : : "m"(keeping) : "memory");
        return saved;
    }
    static inline void fastadam_flush_restore(fastadam_mode saved) {
        __asm__ __volatile__("ldmxcsr %0" : : "m"(saved) : "memory");
    }
    #elif defined(__aarch64__)
    typedef unsigned long fastadam_mode;
    static inline fastadam_mode fastadam_flush_on(void) {
        fastadam_mode saved, flushing;
        __asm__ __volatile__("mrs %0, fpcr" : "=r"(saved) : : "memory");
        flushing = saved | (1ul << 24);  /* FZ: results and operands */
        __asm__ __volatile__("msr fpcr, %0" : : "r"(flushing) : "memory");
        return saved;
    }
    static inline fastadam_mode fastadam_flush_off(void) {
        fastadam_mode saved, keeping;
        __asm__ __volatile__("mrs %0, fpcr" : "=r"(saved) : : "memory");
        keeping = saved & ~(1ul << 24);
        __asm__ __volatile__("msr fpcr, %0" : : "r"(keeping) : "memory");
        return saved;
    }
    static inline void fastadam_flush_restore(fastadam_mode saved) {
        __asm__ __volatile__("msr fpcr, %0" : : "r"(saved) : "memory");
    }
    #else
    #error "fastadam knows how to flush subnormal numbers on x86-64 and on 64-bit Arm only"
    /* so that no other error follows from this one */
    typedef unsigned int fastadam_mode;
    static inline fastadam_mode fastadam_flush_on(void) { return 0; }
    static inline fastadam_mode fastadam_flush_off(void) { return 0; }
    static inline void fastadam_flush_restore(fastadam_mode saved) { (void) saved; }
    #endif
    """
    ctypedef unsigned long fastadam_mode
    fastadam_mode fastadam_flush_on() noexcept nogil
    fastadam_mode fastadam_flush_off() noexcept nogil
    void fastadam_flush_restore(fastadam_mode saved) noexcept nogil
