"""Where arrays lie: those that a step on the CPU writes, and what reaches into them."""

cimport numpy as cnp
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from libc.stdlib cimport qsort

cnp.import_array()


cdef int by_low(const void* a, const void* b) noexcept nogil:
    """Compare where two extents begin."""
    cdef size_t first = (<const Extent*> a).low
    cdef size_t second = (<const Extent*> b).low
    return (first > second) - (first < second)


cdef void reach_of(cnp.ndarray a, size_t* low, size_t* high) noexcept:
    """The first byte of an array in any layout, and one past the last; equal of an empty one."""
    cdef int axis
    cdef cnp.npy_intp reach
    low[0] = high[0] = <size_t> cnp.PyArray_DATA(a)
    if cnp.PyArray_SIZE(a) == 0:
        return
    for axis in range(cnp.PyArray_NDIM(a)):
        reach = cnp.PyArray_STRIDE(a, axis) * (cnp.PyArray_DIM(a, axis) - 1)
        if reach < 0:
            low[0] += reach
        else:
            high[0] += reach
    high[0] += cnp.PyArray_ITEMSIZE(a)


cdef class Written:
    """Where the arrays lie that a step on the CPU writes."""

    def __cinit__(self):
        self.extents = NULL
        self.n = self.room = 0

    def __dealloc__(self):
        PyMem_Free(self.extents)

    def __reduce__(self):
        raise TypeError("addresses cannot be copied")

    cdef int add(self, object array) except -1:
        """Note one array."""
        cdef size_t low, high
        cdef Extent* more
        reach_of(<cnp.ndarray> array, &low, &high)
        if low == high:
            return 0
        if self.n == self.room:
            more = <Extent*> PyMem_Realloc(self.extents, (2 * self.room + 16) * sizeof(Extent))
            if more == NULL:
                raise MemoryError
            self.extents = more
            self.room = 2 * self.room + 16
        self.extents[self.n].low = low
        self.extents[self.n].high = high
        self.n += 1
        return 0

    cdef bint sort(self) noexcept:
        """Put them in order; whether no two reach into one another."""
        cdef Py_ssize_t i
        cdef bint apart = True
        qsort(self.extents, self.n, sizeof(Extent), by_low)
        for i in range(1, self.n):
            if self.extents[i - 1].high > self.extents[i].low:
                apart = False
                self.extents[i].high = max(self.extents[i].high, self.extents[i - 1].high)
        return apart

    cdef bint has_part(self, object array) noexcept:
        """Whether an array reaches into one of them."""
        cdef size_t low, high
        reach_of(<cnp.ndarray> array, &low, &high)
        return self.reaches(low, high)

    cdef bint reaches(self, size_t low, size_t high) noexcept:
        """Whether memory reaches into one of them."""
        cdef Py_ssize_t first = 0, last = self.n, middle
        if low == high:
            return False
        # those that begin before its end
        while first < last:
            middle = (first + last) // 2
            if self.extents[middle].low < high:
                first = middle + 1
            else:
                last = middle
        return first > 0 and self.extents[first - 1].high > low


def extents(list arrays, size_t[::1] low, size_t[::1] high):
    """Note the first byte and the last byte plus one of NumPy's arrays; 0 of what is none."""
    cdef Py_ssize_t i
    for i in range(len(arrays)):
        low[i] = high[i] = 0
        if cnp.PyArray_Check(arrays[i]):
            reach_of(<cnp.ndarray> arrays[i], &low[i], &high[i])
            if low[i] == high[i]:
                low[i] = high[i] = 0


def reach_into_another(list arrays):
    """Tell whether one of NumPy's arrays begins before another, that begins before it, ends."""
    cdef Written found = Written()
    for array in arrays:
        if cnp.PyArray_Check(array):
            found.add(array)
    return not found.sort()
