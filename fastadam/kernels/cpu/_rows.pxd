# The rows of a table that is kept: read from their owner.

from cpython.ref cimport PyObject

from fastadam.kernels._source cimport Found
from fastadam.kernels.cpu._steps cimport Steps
from fastadam.kernels.cpu._tensors cimport Tensor
from fastadam.kernels.cpu._written cimport Written

cdef class Rows(Steps):
    cdef list indices, held, replaced, strided, numbers, sizes, rooms
    cdef readonly bint moved
    cdef int bfloat16
    cdef readonly Py_ssize_t total
    cdef readonly list without
    cdef readonly list to_round
    cdef bint begun, by_address
    cdef readonly bint converted, low_precision

    cdef bint hold(self, Py_ssize_t i, Py_ssize_t which, PyObject* found) except -1
    cdef bint read(self, object convert, bint by_address) except -1
    cdef int take_addresses(self, Py_ssize_t i, Tensor* row, Found* found) except -1
    cdef void note_type(self, const Tensor* row) noexcept
    cdef bint read_row(self, Py_ssize_t i, Tensor* row, Found* found, object convert) except -1
    cdef int take_gradient(self, Py_ssize_t i, object grad, object convert) except -1
    cdef int walk(self, Py_ssize_t i) except -1
    cdef bint read_strided(self, Py_ssize_t i, Found* found, object convert) except -1
    cdef bint can_be_written(self, Py_ssize_t i, Found* found) except -1
    cdef int note_written(self, Written written) except -1
    cdef bint is_tangled(self, Written written) noexcept
    cdef int untangle(self, Written written, object convert) except -1
    cdef int copy_gradient(self, Py_ssize_t i, object convert) except -1
