"""The door to whoever owns the arrays of a step, and the owner of arrays that are just given."""

from cpython.ref cimport PyObject

from fastadam.kernels.cpu._tensors cimport N_STREAMS


cdef class Source:
    """What is read before a step, and stored with it; see _source.pxd."""

    def __reduce__(self):
        raise TypeError("what a step is made on cannot be copied")

    cdef bint read(self, Py_ssize_t k, Found* found) except -1:
        raise NotImplementedError

    cdef int hold(self) except -1:
        return 0

    cdef int commit(self) except -1:
        return 0

    cdef int release(self) except -1:
        return 0


cdef inline PyObject* there(object array) noexcept:
    """An array, or NULL for None; borrowed from who holds it."""
    return NULL if array is None else <PyObject*> array


cdef class ArraySource(Source):
    """Arrays that somebody gives for one call.

    Parameters
    ----------
    steps : list of Step
        The arrays; nothing is counted for them.
    low_precision : list of array or None
        The half-precision parameters that are rounded from their masters, the steps' ``p``.
    """

    cdef list steps, low_precision

    def __init__(self, list steps, list low_precision):
        self.steps = steps
        self.low_precision = low_precision

    cdef bint read(self, Py_ssize_t k, Found* found) except -1:
        # named tuples, of which Cython need not know
        cdef tuple step = <tuple> self.steps[k]
        cdef tuple state = <tuple> step[3]
        cdef Py_ssize_t i
        found.p, found.g = <PyObject*> step[1], there(step[2])
        found.half = there(self.low_precision[k]) if self.low_precision else NULL
        for i in range(N_STREAMS):
            found.state[i] = there(state[i])
        return True
