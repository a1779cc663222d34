# Where the arrays lie that a step on the CPU writes.

cdef struct Extent:
    size_t low
    size_t high           # once they are sorted, the greatest end so far


cdef class Written:
    cdef Extent* extents
    cdef Py_ssize_t n, room

    cdef int add(self, object array) except -1
    cdef bint sort(self) noexcept
    cdef bint has_part(self, object array) noexcept
    cdef bint reaches(self, size_t low, size_t high) noexcept
