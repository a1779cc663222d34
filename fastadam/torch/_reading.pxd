# How PyTorch's tensors are read in C.

from cpython.object cimport PyTypeObject
from cpython.ref cimport PyObject
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from fastadam.torch._views cimport View


# What DLPack 1 says of a tensor, as far as it is read here (dlpack.h).
cdef struct DLDevice:
    int32_t device_type
    int32_t device_id


cdef struct DLDataType:
    uint8_t code
    uint8_t bits
    uint16_t lanes


cdef struct DLTensor:
    void* data
    DLDevice device
    int32_t ndim
    DLDataType dtype
    int64_t* shape
    int64_t* strides      # in elements
    uint64_t byte_offset


cdef struct ExchangeHeader:
    uint32_t major
    uint32_t minor
    void* previous


cdef struct ExchangeApi:
    ExchangeHeader header
    void* allocate
    void* managed_from_object
    void* managed_to_object
    int (*tensor_from_object)(void*, DLTensor*) noexcept
    void* current_stream


cdef extern from "Python.h":
    ctypedef PyObject* (*getter)(PyObject*, void*)
    ctypedef int (*setter)(PyObject*, PyObject*, void*)


cdef extern from *:
    """
    #define fastadam_fetch(address) __builtin_prefetch((const void*) (address))
    """
    void fetch "fastadam_fetch"(size_t) noexcept


cdef inline void fetch_object(PyObject* tensor) noexcept:
    """Have a tensor's object fetched into the cache."""
    fetch(<size_t> tensor)


cdef class Reader:
    cdef ExchangeApi* api
    cdef getter get
    cdef setter set
    cdef void* closure
    cdef object tensor, parameter, dispatch, kept, described, on_gpu
    cdef object is_neg, is_conj, is_zero, increment
    cdef PyTypeObject* base
    cdef list dtypes
    cdef readonly bint fast
    # whether tensors have their addresses where they are expected; they are only fetched by them
    cdef readonly bint ahead
    # whether storages have their addresses and sizes where they are expected; these are read
    cdef readonly bint measures
    cdef bint increments_many
    # in which word a tensor's object has the tensor's address, and that the address of its storage,
    # and that the address of its memory and how many bytes this has
    cdef int tensor_at, storage_at, start_at, size_at

    cdef bint find_addresses(self, object tensor) except -1
    cdef bint find_sizes(self, list tensors) except -1
    cdef bint measured(self, object tensor) except -1
    cdef bint is_tensor(self, PyObject* found) noexcept
    cdef void fetch_tensor(self, PyObject* tensor) noexcept
    cdef void fetch_storage(self, PyObject* tensor) noexcept
    cdef bint is_plain(self, PyObject* tensor) except -1
    cdef bint read(self, PyObject* tensor, View* view) except -1
    cdef bint read_anywhere(self, PyObject* tensor, View* view) except -1
    cdef bint read_slowly(self, object tensor, View* view) except -1
    cdef bint has_memory(self, PyObject* tensor, View* view, int n_axes, int size) except -1
    cdef object array(self, View* view, object tensor)
    cdef object array_on_gpu(self, const View* view, object tensor)
    cdef object zeros_of(self, object tensor)
    cdef object gradient(self, PyObject* tensor)
    cpdef int raise_versions(self, list tensors) except -1
    cdef bint is_turned(self, object tensor, bint pairs) except -1
    cdef bint is_odd(self, object grad, const View* view) except -1
