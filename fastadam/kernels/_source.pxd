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
    Py_ssize_t scalars             # which set of coefficients it has, where the source regroups
    # Where these stand for the arrays: memory in the types and the layout that were described.
    bint by_address
    size_t p_at, g_at, half_at     # g_at is 0 where there is no gradient
    size_t state_at[N_STREAMS]
    Py_ssize_t g_type              # a Stored, for which there is a loop


cdef class Source:
    # Where the sets of coefficients may be others, and others' parameters', at every step: how many
    # there are at most. A parameter without a gradient is then left out, and not counted. Else 0.
    cdef readonly Py_ssize_t regroups
    # whether `read` may give addresses in the place of arrays; p, half and state are given anyway
    cdef bint may_give_addresses
    # whether parameter k is what it was when the steps were described; then what it holds now
    cdef bint read(self, Py_ssize_t k, Found* found) except -1
    # make what `commit` is going to store, and keep what it replaces; may raise, changes nothing
    cdef int hold(self) except -1
    # store it: nothing fails, nothing is dropped, nobody's code runs
    cdef int commit(self) except -1
    # drop what has been replaced
    cdef int release(self) except -1
