# How arrays are walked together that share no dense layout.

from cpython.ref cimport PyObject

from fastadam.kernels.cpu._tensors cimport Walk

cdef class Room:
    cdef Walk walk

cdef bint find_walk(Walk* walk, PyObject** arrays) noexcept
