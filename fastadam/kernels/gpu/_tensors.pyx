"""Rows of a table on a GPU that is kept: whether arrays are what they were, asked in C.

Arrays on a GPU are known here by what they say of themselves; CuPy is not needed to build this.
"""

from cpython.dict cimport PyDict_GetItem
from cpython.object cimport PyObject


cdef object state_array(dict state, str key):
    """An array of a state by its name, None if it is not there."""
    cdef PyObject* found = PyDict_GetItem(state, key)
    return None if found == NULL else <object> found


cdef class DeviceRows:
    """The arrays of a table that is kept; all but the gradients are kept alive.

    Parameters
    ----------
    p : list
        The arrays of the parameters, in the order of the rows.
    state : dict of str to list
        Those of the streams that are there, by name.
    halves : list
        The half-precision parameters that ``p`` are masters of, None where there is none.
    kind, dtype, device : type, numpy.dtype, int
        What the gradients are.
    orders : list of str
        The attributes that tell whether each gradient has the layout of the others.
    addresses : numpy.ndarray of uint64
        Where the gradients are; `follow` writes it.
    low, high : numpy.ndarray of uintp
        Where the memory of the parameters begins, ascending, and the greatest end so far.
    """

    cdef list p, names, arrays, halves
    cdef object kind, dtype
    cdef Py_ssize_t device
    cdef list orders
    cdef size_t[::1] addresses
    cdef const size_t[::1] low, high

    def __init__(
        self,
        list p,
        dict state,
        list halves,
        object kind,
        object dtype,
        Py_ssize_t device,
        list orders,
        size_t[::1] addresses,
        const size_t[::1] low,
        const size_t[::1] high,
    ):
        self.p = p
        self.names = list(state)
        self.arrays = list(state.values())
        self.halves = halves
        self.kind = kind
        self.dtype = dtype
        self.device = device
        self.orders = orders
        self.addresses = addresses
        self.low = low
        self.high = high

    def __reduce__(self):
        raise TypeError("addresses cannot be copied")

    def follow(self, list params, str attribute, list rules, list ts, list gradients):
        """Take over the addresses of new gradients; False if anything else is not as it was.

        The lists are as for ``_tensors.Rows.follow``.
        """
        cdef Py_ssize_t i, k
        cdef object array, state, grad, data
        cdef size_t begin
        for i in range(len(self.p)):
            array = getattr(params[i], attribute)
            if self.halves[i] is not None:
                if array is not self.halves[i] or rules[i]._fp32_param is None:
                    return False
                array = getattr(rules[i]._fp32_param, attribute)
            state = rules[i]._state
            if (
                array is not self.p[i]
                or type(state) is not dict
                or rules[i].t != ts[i]
            ):
                return False
            for k in range(len(self.names)):
                if state_array(<dict> state, self.names[k]) is not (<list> self.arrays[k])[i]:
                    return False
            grad = gradients[i]
            if (
                type(grad) is not self.kind
                or not (grad.dtype is self.dtype or grad.dtype == self.dtype)
                or grad.shape != array.shape
                or not getattr(grad, self.orders[i])
            ):
                return False
            data = grad.data
            begin = data.ptr
            if begin != self.addresses[i]:
                if data.device_id != self.device or self.overlaps(begin, grad.nbytes):
                    return False
                self.addresses[i] = begin
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
