"""Rows of a table on a GPU that is kept: whether arrays are what they were, asked in C.

Arrays on a GPU are known here by what they say of themselves; CuPy is not needed to build this.
"""

from cpython.ref cimport PyObject, PyTypeObject

from fastadam.kernels._source cimport Found, Source
from fastadam.kernels.cpu._tensors cimport EPS, N_COEFFICIENTS, N_STREAMS


cdef extern from "Python.h":
    ctypedef object (*getter)(object, void*)
    ctypedef struct PyGetSetDef:
        getter get
        void* closure
    ctypedef struct PyGetSetDescrObject:
        PyGetSetDef* d_getset
    PyTypeObject PyGetSetDescr_Type


cdef class Field:
    """An attribute of the instances of a type, read without a lookup where the type is compiled.

    Parameters
    ----------
    kind : type
        The type; it must be exactly that of the instances.
    name : str
        The attribute.
    """

    cdef str name
    cdef object kept
    cdef PyGetSetDef* found

    def __init__(self, type kind, str name):
        self.name, self.found = name, NULL
        self.kept = next((vars(k)[name] for k in kind.__mro__ if name in vars(k)), None)
        if type(self.kept) is <object> &PyGetSetDescr_Type:
            self.found = (<PyGetSetDescrObject*> <PyObject*> self.kept).d_getset

    def __reduce__(self):
        raise TypeError("addresses cannot be copied")

    cdef object of(self, object instance):
        """Its value."""
        if self.found == NULL:
            return getattr(instance, self.name)
        return self.found.get(instance, self.found.closure)


cdef inline object or_none(PyObject* found):
    """An object, None for NULL."""
    return None if found == NULL else <object> found


def set_scalars(scalars, list coefficients):
    """Round each scalar once to the type of the computation.

    Parameters
    ----------
    scalars : numpy.ndarray of float32 or float64, shape (rows, scalars of a step)
        Receives them, a row for each of the sets.
    coefficients : list of Coefficients
        The sets.
    """
    cdef float[:, ::1] singles
    cdef double[:, ::1] doubles
    cdef Py_ssize_t i, k
    cdef tuple c
    if scalars.itemsize == sizeof(float):
        singles = scalars
        for i in range(len(coefficients)):
            c = <tuple> coefficients[i]
            for k in range(N_COEFFICIENTS):
                singles[i, k] = <float> <double> c[k]
    else:
        doubles = scalars
        for i in range(len(coefficients)):
            c = <tuple> coefficients[i]
            for k in range(N_COEFFICIENTS):
                doubles[i, k] = c[k]


def can_take(list coefficients, tuple flags, double least):
    """Whether sets of coefficients are of the variant with these flags, and their eps is a number.

    An ``eps`` below the least normal number of the type that is computed in would act as 0.
    """
    cdef tuple c
    cdef Py_ssize_t i, k
    cdef double eps
    for i in range(len(coefficients)):
        c = <tuple> coefficients[i]
        for k in range(len(flags)):
            if bool(c[N_COEFFICIENTS + k]) is not flags[k]:
                return False
        eps = c[EPS]
        if eps != 0 and -least < eps < least:
            return False
    return True


cdef class DeviceTensors:
    """The arrays of a table that is kept; all but the gradients are kept alive.

    Parameters
    ----------
    source : Source
        Who owns the arrays.
    indices : list of int
        Which of the source's parameters the rows are.
    p : list
        The arrays of the parameters, in the order of the rows.
    state : list of list
        Those of the streams, None for one that is not there.
    low_precision : list
        The half-precision parameters that ``p`` are masters of, None where there is none.
    kind, dtype, device : type, numpy.dtype, int
        What the gradients are.
    c_ordered : list of bool
        Whether the arrays of each row lie in the order of C; else in that of Fortran.
    addresses : numpy.ndarray of uint64
        Where the gradients are; `refresh` writes it.
    low, high : numpy.ndarray of uintp
        Where the memory of the parameters begins, ascending, and the greatest end so far.

    Attributes
    ----------
    dtype : numpy.dtype
        Of all gradients, as they were read last.
    version : int
        Grows when an address changes.
    """

    cdef Source source
    cdef list indices, p, state, low_precision
    cdef object kind
    cdef readonly object dtype
    cdef readonly Py_ssize_t version
    cdef Py_ssize_t device
    cdef list c_ordered
    cdef Field dtype_of, shape_of, data_of, is_c, is_f, ptr_of, device_of, size_of
    # the type of what arrays have as their data
    cdef object pointer
    cdef size_t[::1] addresses
    cdef const size_t[::1] low, high

    def __init__(
        self,
        Source source,
        list indices,
        list p,
        list state,
        list low_precision,
        object kind,
        object dtype,
        Py_ssize_t device,
        list c_ordered,
        size_t[::1] addresses,
        const size_t[::1] low,
        const size_t[::1] high,
    ):
        self.source = source
        self.indices = indices
        self.p = p
        self.state = state
        self.low_precision = low_precision
        self.kind = kind
        self.dtype = dtype
        self.device = device
        self.c_ordered = c_ordered
        self.dtype_of, self.shape_of = Field(kind, "dtype"), Field(kind, "shape")
        self.is_c, self.is_f = Field(kind, "_c_contiguous"), Field(kind, "_f_contiguous")
        self.data_of, self.size_of = Field(kind, "data"), Field(kind, "nbytes")
        self.addresses = addresses
        self.low = low
        self.high = high

    def __reduce__(self):
        raise TypeError("addresses cannot be copied")

    def refresh(self):
        """Read the addresses of the gradients; False if anything else is not as it was.

        They may be of another dtype than before, but all of one.
        """
        cdef Py_ssize_t i, k
        cdef object array, grad, data, its, dtype = self.dtype
        cdef list state
        cdef size_t begin
        cdef Found found
        for i in range(len(self.p)):
            if not self.source.read(<Py_ssize_t> self.indices[i], &found) or found.g == NULL:
                return False
            array, grad = <object> found.p, <object> found.g
            if array is not self.p[i] or or_none(found.half) is not self.low_precision[i]:
                return False
            state = self.state[i]
            for k in range(N_STREAMS):
                if state[k] is not None and or_none(found.state[k]) is not state[k]:
                    return False
            if type(grad) is not self.kind:
                return False
            its = self.dtype_of.of(grad)
            if i == 0:
                dtype = its
            if not (
                (its is dtype or its == dtype)
                and self.shape_of.of(grad) == self.shape(array)
                and (self.is_c if self.c_ordered[i] else self.is_f).of(grad)
            ):
                return False
            data = self.data_of.of(grad)
            if type(data) is not self.pointer:
                self.pointer = type(data)
                self.ptr_of = Field(self.pointer, "ptr")
                self.device_of = Field(self.pointer, "device_id")
            begin = self.ptr_of.of(data)
            if begin != self.addresses[i] or its is not self.dtype:
                if self.device_of.of(data) != self.device or self.overlaps(
                    begin, self.size_of.of(grad)
                ):
                    return False
                self.addresses[i] = begin
                self.version += 1
        self.dtype = dtype
        return True

    cdef object shape(self, object array):
        """The shape of a parameter, whose type may be another."""
        return self.shape_of.of(array) if type(array) is self.kind else array.shape

    cdef bint overlaps(self, size_t begin, size_t size) noexcept:
        """Whether memory is part of a parameter's."""
        cdef Py_ssize_t first = 0, last = self.low.shape[0], middle
        # the parameters that begin before its end
        while first < last:
            middle = (first + last) // 2
            if self.low[middle] < begin + size:
                first = middle + 1
            else:
                last = middle
        return first > 0 and self.high[first - 1] > begin
