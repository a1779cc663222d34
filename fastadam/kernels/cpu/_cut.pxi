# How the elements of all tensors laid end to end are cut into one contiguous range per thread.

# A thread's range begins at a multiple of this many elements: 64 bytes of a half type.
cdef enum:
    CUT = 32


cdef Py_ssize_t cut(Py_ssize_t total, int k, int n_threads) noexcept nogil:
    """Where thread k's range begins; free of overflow for any total."""
    cdef Py_ssize_t share = total // n_threads + 1
    return min(k * ((share + CUT - 1) // CUT) * CUT, total)
