# The steps of a table: their numbers, what is done to gradients, and the loops over them.

from fastadam.kernels._source cimport Source
from fastadam.kernels.cpu._tensors cimport Op, Tensor

# The loops of one instruction set, as _step.pyx's `loop` gives them.
ctypedef void (*Loop32)(const Tensor*, Py_ssize_t, const Op*, const float*, int) noexcept nogil
ctypedef void (*Loop64)(const Tensor*, Py_ssize_t, const Op*, const double*, int) noexcept nogil

cdef class Steps:
    cdef Source source
    cdef Tensor[::1] table
    cdef list sets
    cdef bint single
    cdef float[:, ::1] narrow
    cdef double[:, ::1] wide
    cdef Loop32 loop32
    cdef Loop64 loop64
    cdef Op[::1] ops

    cdef Py_ssize_t n_sets(self, list coefficients) noexcept
    cdef Py_ssize_t set_of(self, Py_ssize_t row) except -1
    cdef bint can_take(self, list coefficients) except -1
    cdef bint same_variants(self, list coefficients) except -1
    cdef int round(self, list coefficients) except -1
    cdef void call(self, const Tensor* rows, Py_ssize_t n, int n_threads) noexcept
    cdef int run(self, list coefficients, int n_threads, bint serial) except -1
