"""How PyTorch's tensors are read in C: where they lie, and in which types and layouts.

They are read through DLPack's C exchange API, which PyTorch has from about 2.10 on, or else through
their Python attributes. NumPy arrays stand over their memory; nothing is copied, and nothing here
is built against PyTorch.
"""

cimport numpy as cnp
from cpython.exc cimport PyErr_Clear
from cpython.object cimport PyTypeObject
from cpython.pycapsule cimport PyCapsule_GetPointer
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject

from fastadam.torch._views cimport (
    BFLOAT16_KIND,
    FLOAT16_KIND,
    FLOAT32_KIND,
    FLOAT64_KIND,
    MOST_AXES,
    ON_CPU,
    View,
    bytes_of,
    is_dense,
)

cnp.import_array()

# Devices and types, as DLPack numbers them.
cdef enum:
    CPU_DEVICE = 1
    CUDA_DEVICE = 2
    FLOAT = 2
    BFLOAT = 4
    COMPLEX = 5


cdef extern from "Python.h":
    ctypedef struct PyGetSetDef:
        getter get
        setter set
        void* closure
    ctypedef struct PyGetSetDescrObject:
        PyGetSetDef* d_getset
    PyTypeObject* Py_TYPE(PyObject*)
    bint PyObject_TypeCheck(PyObject*, PyTypeObject*) noexcept

cdef extern from "numpy/arrayobject.h":
    PyTypeObject PyArray_Type
    ctypedef struct PyArray_Descr
    object PyArray_NewFromDescr(
        PyTypeObject*, PyArray_Descr*, int, cnp.npy_intp*, cnp.npy_intp*, void*, int, PyObject*
    )
    int PyArray_SetBaseObject(cnp.ndarray, PyObject*) except -1

# Where tensors of no elements lie.
cdef double NOWHERE


cdef class Reader:
    """Reads PyTorch's tensors.

    Parameters
    ----------
    torch : module
        PyTorch.
    dtypes : list of numpy.dtype or None
        NumPy's float16, float32, float64 and bfloat16; None for one that there is not.
    described : callable
        Returns kind, address, shape, strides in bytes, whether it is one of complex numbers, and
        device of a tensor, or None: where there is no C exchange API.
    on_gpu : callable
        Returns CuPy's array of address, shape, strides in bytes (None: one after the other), dtype,
        device, and the tensor that keeps the memory alive.
    fast : bool
        Whether the C exchange API is used where it is there.
    """

    def __init__(self, object torch, list dtypes, object described, object on_gpu, bint fast=True):
        cdef PyGetSetDef* grad
        self.dtypes = dtypes
        self.described = described
        self.on_gpu = on_gpu
        self.tensor, self.parameter = torch.Tensor, torch.nn.Parameter
        self.dispatch = torch.Tensor.__torch_dispatch__
        capsule = getattr(torch.Tensor, "__dlpack_c_exchange_api__", None) if fast else None
        self.api = NULL
        if capsule is not None:
            self.api = <ExchangeApi*> PyCapsule_GetPointer(capsule, "dlpack_exchange_api")
            if self.api.header.major != 1 or self.api.tensor_from_object == NULL:
                self.api = NULL
        self.fast = self.api != NULL
        descriptor = torch._C.TensorBase.__dict__["grad"]
        grad = (<PyGetSetDescrObject*> <PyObject*> descriptor).d_getset
        self.get, self.set, self.closure = grad.get, grad.set, grad.closure
        base = torch._C.TensorBase
        self.base = <PyTypeObject*> <PyObject*> base
        self.is_neg, self.is_conj, self.is_zero = base.is_neg, base.is_conj, base._is_zerotensor
        self.increment = torch._C._increment_version
        try:
            self.increment([torch.zeros(1)])
            self.increments_many = True
        except (TypeError, RuntimeError):
            # of older versions, which take one tensor; that of 2.4 raises the latter
            self.increments_many = False
        self.ahead = self.find_addresses(torch.zeros(1)) and self.find_addresses(torch.zeros(2))
        emptied = torch.zeros(5)
        emptied.untyped_storage().resize_(0)
        self.measures = self.ahead and self.find_sizes(
            [
                emptied,
                torch.zeros(3),
                torch.zeros(1001)[7:],
                torch.frombuffer(bytearray(20), dtype=torch.float32),
            ]
        )
        self.kept = torch, capsule, descriptor, base

    def __reduce__(self):
        raise TypeError("addresses cannot be copied")

    cdef bint find_addresses(self, object tensor) except -1:
        """Find where the addresses in a tensor are; False if they are not where they may be."""
        cdef size_t* words = <size_t*> <PyObject*> tensor
        cdef size_t wanted = tensor._cdata
        cdef int last = <Py_ssize_t> type(tensor).__basicsize__ // sizeof(size_t)
        self.tensor_at, self.storage_at = 2, 1
        while self.tensor_at < last and words[self.tensor_at] != wanted:
            self.tensor_at += 1
        if self.tensor_at == last:
            return False
        words, wanted = <size_t*> wanted, tensor.untyped_storage()._cdata
        while self.storage_at < 8 and words[self.storage_at] != wanted:
            self.storage_at += 1
        return self.storage_at < 8

    cdef bint find_sizes(self, list tensors) except -1:
        """Find where storages have addresses and sizes of memory; False if that is nowhere."""
        for self.start_at in range(2, 8):
            for self.size_at in range(2, 8):
                if all([self.measured(tensor) for tensor in tensors]):
                    return True
        return False

    cdef bint measured(self, object tensor) except -1:
        """Whether a tensor's storage has address and size where they are looked for."""
        cdef size_t* storage = (<size_t***> <PyObject*> tensor)[self.tensor_at][self.storage_at]
        cdef size_t start, size
        found = tensor.untyped_storage()
        start, size = found.data_ptr(), found.nbytes()
        return storage[self.start_at] == start and storage[self.size_at] == size

    cdef bint is_tensor(self, PyObject* found) noexcept:
        """Whether an object is laid out as PyTorch's tensors are."""
        return PyObject_TypeCheck(found, self.base)

    cdef void fetch_tensor(self, PyObject* tensor) noexcept:
        """Have a tensor fetched into the cache, whose object is there."""
        cdef size_t at = (<size_t*> tensor)[self.tensor_at]
        fetch(at)
        fetch(at + 64)
        fetch(at + 128)

    cdef void fetch_storage(self, PyObject* tensor) noexcept:
        """Have a tensor's storage fetched into the cache; the tensor is there."""
        fetch((<size_t**> tensor)[self.tensor_at][self.storage_at])

    cdef bint is_plain(self, PyObject* tensor) except -1:
        """Whether an object is a tensor, of a class that leaves to PyTorch what tensors do."""
        cdef object kind = <object> Py_TYPE(tensor)
        if kind is self.parameter or kind is self.tensor:
            return True
        return issubclass(kind, self.tensor) and kind.__torch_dispatch__ is self.dispatch

    cdef bint read(self, PyObject* tensor, View* view) except -1:
        """Read one tensor; False if its memory is none of floating numbers on the CPU."""
        return self.read_anywhere(tensor, view) and view.device == ON_CPU

    cdef bint read_anywhere(self, PyObject* tensor, View* view) except -1:
        """The same, on the CPU or on a GPU."""
        cdef DLTensor found
        cdef int k, size
        view.kind, view.device = -1, ON_CPU
        view.data, view.ndim = 0, 0
        view.pairs = False
        if not self.is_plain(tensor):
            # what it wraps, as DTensor does
            inner = getattr(<object> tensor, "_local_tensor", None)
            return inner is not None and self.read_anywhere(<PyObject*> inner, view)
        if self.api == NULL:
            return self.read_slowly(<object> tensor, view)
        if self.api.tensor_from_object(<void*> tensor, &found):
            PyErr_Clear()
            return False
        if found.device.device_type == CUDA_DEVICE:
            view.device = found.device.device_id
        elif found.device.device_type != CPU_DEVICE:
            return False
        if found.dtype.lanes != 1 or found.ndim > MOST_AXES:
            return False
        size = found.dtype.bits // 8
        if found.dtype.code == COMPLEX:
            size //= 2
        elif found.dtype.code == BFLOAT:
            view.kind = BFLOAT16_KIND if size == 2 else -1
        if found.dtype.code == FLOAT or found.dtype.code == COMPLEX:
            view.kind = (
                FLOAT16_KIND if size == 2
                else FLOAT32_KIND if size == 4
                else FLOAT64_KIND if size == 8
                else -1
            )
        if view.kind < 0:
            return False
        view.data, view.ndim = <size_t> found.data + found.byte_offset, found.ndim
        for k in range(found.ndim):
            view.shape[k] = found.shape[k]
            view.strides[k] = found.strides[k] * (found.dtype.bits // 8)
        if not self.has_memory(tensor, view, found.ndim, found.dtype.bits // 8):
            view.kind = -1
            return False
        if found.dtype.code == COMPLEX:
            # as pairs of real numbers
            view.pairs = True
            view.shape[found.ndim], view.strides[found.ndim] = 2, size
            view.ndim += 1
        return True

    cdef bint read_slowly(self, object tensor, View* view) except -1:
        """The same, by what Python code says of a tensor."""
        cdef Py_ssize_t k
        described = self.described(tensor)
        if described is None:
            return False
        view.kind, data, shape, strides, view.pairs, view.device = described
        view.data, view.ndim = data, len(shape)
        if view.ndim > MOST_AXES:
            view.kind = -1
            return False
        for k in range(view.ndim):
            view.shape[k], view.strides[k] = shape[k], strides[k]
        if not self.has_memory(<PyObject*> tensor, view, view.ndim, bytes_of(view.kind)):
            view.kind = -1
            return False
        return True

    cdef bint has_memory(self, PyObject* tensor, View* view, int n_axes, int size) except -1:
        """Whether the elements of a tensor, of so many axes and bytes each, lie in its storage.

        They do not where that was resized, or is none, as that of zeros which PyTorch only stands
        for. A tensor of no elements is given an address, since a row must have one.
        """
        cdef size_t start, held, extent = size
        cdef size_t* storage
        cdef int axis
        for axis in range(n_axes):
            if view.shape[axis] == 0:
                view.data = view.data or <size_t> &NOWHERE
                return True
            extent += (view.shape[axis] - 1) * view.strides[axis]
        if self.measures:
            storage = (<size_t***> tensor)[self.tensor_at][self.storage_at]
            if storage == NULL:
                return False
            start, held = storage[self.start_at], storage[self.size_at]
        elif view.data == 0:
            return False
        else:
            found = (<object> tensor).untyped_storage()
            start, held = found.data_ptr(), found.nbytes()
        return start != 0 and start <= view.data and view.data - start + extent <= held

    cdef object array(self, View* view, object tensor):
        """NumPy's array over the memory of a tensor, which it keeps alive; CuPy's on a GPU."""
        cdef object dtype = self.dtypes[view.kind]
        cdef object array
        if view.device != ON_CPU:
            return self.array_on_gpu(view, tensor)
        Py_INCREF(dtype)
        array = PyArray_NewFromDescr(
            &PyArray_Type,
            <PyArray_Descr*> <PyObject*> dtype,
            view.ndim,
            view.shape,
            view.strides,
            <void*> view.data,
            cnp.NPY_ARRAY_WRITEABLE | cnp.NPY_ARRAY_ALIGNED,
            NULL,
        )
        Py_INCREF(tensor)
        PyArray_SetBaseObject(<cnp.ndarray> array, <PyObject*> tensor)
        return array

    cdef object array_on_gpu(self, const View* view, object tensor):
        """CuPy's array over the memory of a tensor: of one axis, where that has no gaps.

        So arrays can be walked together if their layouts are the same, in whatever order of axes.
        """
        cdef cnp.npy_intp n = 1
        cdef int axis
        cdef object shape, strides = None
        for axis in range(view.ndim):
            n *= view.shape[axis]
        if is_dense(view):
            shape = (n,)
        else:
            shape = tuple([view.shape[axis] for axis in range(view.ndim)])
            strides = tuple([view.strides[axis] for axis in range(view.ndim)])
        dtype = self.dtypes[view.kind]
        return self.on_gpu(view.data, shape, strides, dtype, view.device, tensor)

    cdef object gradient(self, PyObject* tensor):
        """The gradient of a tensor, None where there is none."""
        cdef PyObject* found
        if not self.is_tensor(tensor):
            return (<object> tensor).grad
        found = self.get(tensor, self.closure)
        if found == NULL:
            raise RuntimeError("the gradient of a tensor cannot be read")
        grad = <object> found
        Py_DECREF(grad)
        return grad

    cdef bint is_turned(self, object tensor, bint pairs) except -1:
        """Whether a tensor stands for the negatives, or conjugates, of what is in memory."""
        return self.is_neg(tensor) or (pairs and self.is_conj(tensor))

    cdef bint is_odd(self, object grad, const View* view) except -1:
        """Whether the numbers in memory are not those that a gradient stands for, or none here."""
        return self.dtypes[view.kind] is None or self.is_turned(grad, view.pairs)

    cpdef int raise_versions(self, list tensors) except -1:
        """Let autograd know that tensors have been written."""
        cdef object tensor
        if self.increments_many:
            self.increment(tensors)
        else:
            for tensor in tensors:
                # those made in inference mode count none
                if not tensor.is_inference():
                    self.increment(tensor)
        return 0

    def array_of(self, object tensor, bint anywhere=False):
        """Return NumPy's array over the memory of a tensor; None if that cannot be read.

        Zeros that have no memory become an array of their own, which is not to be written.

        Parameters
        ----------
        tensor : torch.Tensor
            The tensor.
        anywhere : bool
            Whether it may be on a GPU: the array is CuPy's then, of one axis where it has no gaps.
        """
        cdef View view
        if not self.read_anywhere(<PyObject*> tensor, &view):
            return self.zeros_of(tensor)
        if (view.device != ON_CPU and not anywhere) or self.dtypes[view.kind] is None:
            return None
        return self.array(&view, tensor)

    cdef object zeros_of(self, object tensor):
        """A dense array of the zeros that a tensor without memory stands for; None for others."""
        if not (self.is_plain(<PyObject*> tensor) and self.is_zero(tensor)):
            return None
        array = self.array_of(tensor.detach().clone())
        if array is not None:
            array.flags.writeable = False
        return array

    def clear(self, object tensors):
        """Set all gradients to None."""
        cdef object tensor
        for tensor in tensors:
            if not self.is_tensor(<PyObject*> tensor):
                # as PyTorch's optimizers do it to what is no tensor
                if tensor.grad is not None:
                    tensor.grad = None
            elif self.set(<PyObject*> tensor, <PyObject*> None, self.closure):
                raise RuntimeError("the gradient of a tensor cannot be set")
