"""Rows of a table on a GPU that is kept: whether arrays are what they were, asked in C.

Arrays on a GPU are known here by what they say of themselves; CuPy is not needed to build this.
"""

from cpython.ref cimport PyObject

from fastadam.kernels._source cimport Found, Source
from fastadam.kernels.cpu._tensors cimport N_STREAMS


cdef inline object or_none(PyObject* found):
    """An object, None for NULL."""
    return None if found == NULL else <object> found


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
    orders : list of str
        The attributes that tell whether each gradient has the layout of the others.
    addresses : numpy.ndarray of uint64
        Where the gradients are; `refresh` writes it.
    low, high : numpy.ndarray of uintp
        Where the memory of the parameters begins, ascending, and the greatest end so far.

    Attributes
    ----------
    dtype : numpy.dtype
        Of all gradients, as they were read last.
    """

    cdef Source source
    cdef list indices, p, state, low_precision
    cdef object kind
    cdef readonly object dtype
    cdef Py_ssize_t device
    cdef list orders
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
        list orders,
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
        self.orders = orders
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
        cdef object array, grad, data, dtype = self.dtype
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
            if (
                type(grad) is not self.kind
                or not (grad.dtype is dtype or grad.dtype == dtype or i == 0)
                or grad.shape != array.shape
                or not getattr(grad, self.orders[i])
            ):
                return False
            if i == 0:
                dtype = grad.dtype
            data = grad.data
            begin = data.ptr
            if begin != self.addresses[i]:
                if data.device_id != self.device or self.overlaps(begin, grad.nbytes):
                    return False
                self.addresses[i] = begin
        self.dtype = dtype
        return True

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
