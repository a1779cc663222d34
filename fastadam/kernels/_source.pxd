# The door to whoever owns the arrays of a step: a subclass for each kind of owner, in the owner's
# folder, knows its attributes; the kernels know none.

from cpython.ref cimport PyObject

from fastadam.kernels.cpu._tensors cimport N_STREAMS


# What one step of one parameter reads and writes; borrowed from the owner until it is held.
cdef struct Found:
    PyObject* p
    PyObject* g                    # NULL where there is no gradient, and no step but a count
    PyObject* half                 # the half-precision parameter that p is the master of, or NULL
    PyObject* state[N_STREAMS]     # in the order of the algorithm's streams; NULL for none


cdef class Source:
    # whether parameter k is what it was when the steps were described; then what it holds now
    cdef bint read(self, Py_ssize_t k, Found* found) except -1
    # make what `commit` is going to store, and keep what it replaces; may raise, changes nothing
    cdef int hold(self) except -1
    # store it: nothing fails, nothing is dropped, nobody's code runs
    cdef int commit(self) except -1
    # drop what has been replaced
    cdef int release(self) except -1
