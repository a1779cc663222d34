# The rows of a table that is kept: read from their owner, and run.

from cpython.ref cimport PyObject

from fastadam.kernels._source cimport Found, Source
from fastadam.kernels.cpu._tensors cimport Op, Tensor
from fastadam.kernels.cpu._written cimport Written

# The loops of one instruction set, as _step.pyx's `loop` gives them.
ctypedef void (*Loop32)(const Tensor*, Py_ssize_t, const Op*, const float*, int) noexcept nogil
ctypedef void (*Loop64)(const Tensor*, Py_ssize_t, const Op*, const double*, int) noexcept nogil

cdef class Rows:
    cdef Source source
    cdef list indices, sets, held, replaced, strided, numbers
    cdef Tensor[::1] table
    cdef list sizes
    cdef bint single
    cdef readonly bint moved
    cdef float[:, ::1] narrow
    cdef double[:, ::1] wide
    cdef Loop32 loop32
    cdef Loop64 loop64
    cdef const Op[::1] ops
    cdef int bfloat16
    cdef readonly Py_ssize_t total
    cdef readonly list without
    cdef readonly list to_round
    cdef bint begun, by_address
    cdef readonly bint converted, low_precision

    cdef bint hold(self, Py_ssize_t i, Py_ssize_t which, PyObject* found) except -1
    cdef bint read(self, object convert, bint by_address) except -1
    cdef int take_addresses(self, Py_ssize_t i, Tensor* row, Found* found) except -1
    cdef bint read_row(self, Py_ssize_t i, Tensor* row, Found* found, object convert) except -1
    cdef bint read_strided(self, Py_ssize_t i, Found* found) except -1
    cdef bint can_be_written(self, Py_ssize_t i, Found* found) except -1
    cdef int note_written(self, Written written) except -1
    cdef bint is_tangled(self, Written written) noexcept
    cdef int untangle(self, Written written, object convert) except -1
    cdef Py_ssize_t n_sets(self, list coefficients) noexcept
    cdef Py_ssize_t set_of(self, Py_ssize_t row) except -1
    cdef bint can_take(self, list coefficients) except -1
    cdef bint same_variants(self, list coefficients) except -1
    cdef int round(self, list coefficients) except -1
    cdef void call(self, const Tensor* rows, Py_ssize_t n, int n_threads) noexcept
    cdef int run(self, list coefficients, int n_threads, bint serial) except -1
