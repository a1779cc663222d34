"""One step of one parameter, from arrays and hyperparameters as they are given, in one call.

What is unusual in any way is left to the longer way, which checks, refuses and copies: arrays that
the loops cannot walk together, memory that is shared, numbers that are none or out of range, and
arrays that more than one thread should step. Nothing has been changed then.
"""

cimport cython
cimport numpy as cnp
from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.float cimport FLT_MIN
from libc.math cimport fabs, isinf
from libc.string cimport memset

from fastadam.kernels.cpu._layout cimport dense, describe_state, gradient, pointer, stored
from fastadam.kernels.cpu._tensors cimport (
    ADABOUND,
    AMSGRAD,
    EPS,
    FIRST_STREAM,
    N_COEFFICIENTS,
    N_STREAMS,
    Op,
    Tensor,
)

from fastadam.algorithms.adam import ADAM, INITIAL_ALPHA, Coefficients
from fastadam.algorithms.coefficients import coefficients_at, constants

cnp.import_array()

ctypedef void (*Loop32)(const Tensor*, Py_ssize_t, const Op*, const float*, int) noexcept nogil
ctypedef void (*Loop64)(const Tensor*, Py_ssize_t, const Op*, const double*, int) noexcept nogil

# How many sets of hyperparameters are remembered.
cdef enum:
    REMEMBERED = 4

cdef tuple NAMES = tuple([hyper.name for hyper in ADAM.hypers])
# The columns of the scalars that must be finite.
cdef tuple FINITE = tuple([Coefficients._fields.index(key) for key, _ in ADAM.finite])


@cython.internal
@cython.auto_pickle(False)
cdef class Known:
    """A set of hyperparameters, as it was given, and the numbers that it has been found to be."""

    cdef tuple values
    cdef object start
    cdef object constants
    cdef object start_number
    # the scalars of the last step with them
    cdef object t
    cdef tuple coefficients


cdef bint lasting(object value) noexcept:
    """Whether a value is of a type that nobody's code takes part in, and never changes."""
    kind = type(value)
    return kind is float or kind is int or kind is bool or kind is str


cdef class SingleSteps:
    """Makes single steps, and remembers the last sets of hyperparameters.

    Parameters
    ----------
    loop32, loop64 : capsule
        ``loop`` of the instruction set's module, for float32 and float64.
    limit : int
        The number of elements from which on more than one thread may be worth it.
    bfloat16 : callable
        Returns NumPy's number of that type, -1 if it is not there.
    """

    cdef Loop32 loop32
    cdef Loop64 loop64
    cdef Py_ssize_t limit
    cdef object bfloat16
    cdef list known

    def __init__(self, object loop32, object loop64, Py_ssize_t limit, object bfloat16):
        self.loop32 = <Loop32> PyCapsule_GetPointer(loop32, "adam_float32")
        self.loop64 = <Loop64> PyCapsule_GetPointer(loop64, "adam_float64")
        self.limit = limit
        self.bfloat16 = bfloat16
        self.known = []

    def __reduce__(self):
        raise TypeError("addresses cannot be copied")

    def step(
        self,
        object p,
        object g,
        tuple state,
        object t,
        tuple values,
        object start,
        dict owner=None,
        dict noted=None,
    ):
        """Make a step, unless there is anything unusual about it.

        Parameters
        ----------
        p, g : array
            The parameter, and its gradient.
        state : tuple of array or None
            In the order of the algorithm's streams. One whose flag is off is left alone.
        t : int
            The number of this step.
        values : tuple
            The hyperparameters in the order of the algorithm.
        start : float or None
            The alpha against which AdaBound measures schedules.
        owner, noted : dict, optional
            What some entries of `owner` become with the step, before any signal can be noticed.

        Returns
        -------
        bool
            False if it takes a closer look: then nothing has changed.
        """
        cdef Tensor row
        cdef float narrow[N_COEFFICIENTS]
        cdef double wide[N_COEFFICIENTS]
        cdef Known known
        cdef tuple coefficients
        cdef int computing
        if type(t) is not int or not 1 <= t < 2**63:
            return False
        known = self.look_up(values, start)
        if known is None:
            return False
        coefficients = self.count(known, t)
        if coefficients is None:
            return False
        computing = self.describe(&row, p, g, state, known, coefficients)
        if computing == cnp.NPY_FLOAT32 and rounded32(coefficients, narrow):
            with nogil:
                self.loop32(&row, 1, NULL, narrow, 1)
        elif computing == cnp.NPY_FLOAT64 and rounded64(coefficients, wide):
            with nogil:
                self.loop64(&row, 1, NULL, wide, 1)
        else:
            return False
        if noted is not None:
            owner.update(noted)
        return True

    cdef Known look_up(self, tuple values, object start):
        """What is known of a set of hyperparameters; None if something is wrong with it."""
        cdef Known known
        cdef Py_ssize_t i
        cdef bint remember = start is None or lasting(start)
        if len(values) != len(NAMES):
            return None
        for known in self.known:
            if start is known.start and same(values, known.values):
                return known
        for i in range(len(values)):
            # what is not there has a default, or an error, of its own
            if values[i] is None:
                return None
            remember = remember and lasting(values[i])
        known = Known.__new__(Known)
        known.values = values
        known.start = start
        try:
            known.constants = constants(dict(zip(NAMES, values)), "a step")
            if start is not None:
                known.start_number = INITIAL_ALPHA.check(start, "a step")
        except Exception:
            # the longer way says it, after what is to be said before
            return None
        if remember:
            self.known.insert(0, known)
            del self.known[REMEMBERED:]
        return known

    cdef tuple count(self, Known known, object t):
        """Return the scalars of a step; None if something is wrong with them.

        Other threads, and whoever is called meanwhile, may make other steps with what is known.
        """
        cdef tuple coefficients
        if known.t is not None and known.t == t:
            return known.coefficients
        try:
            # a named tuple, of which Cython need not know
            coefficients = <tuple> coefficients_at(known.constants, t, known.start_number)
        except Exception:
            return None
        known.t, known.coefficients = t, coefficients
        return coefficients

    cdef int describe(
        self, Tensor* row, object array, object g, tuple state, Known known, tuple coefficients
    ) except -2:
        """Fill the row, and return the type that is computed in; -1 if it takes a closer look."""
        cdef cnp.ndarray p
        cdef int number, computing, bfloat16 = -1
        # as it is, and nothing else than a step
        memset(row, 0, sizeof(Tensor))
        row.step = True
        if not (cnp.PyArray_Check(array) and cnp.PyArray_Check(g)):
            return -1
        p = <cnp.ndarray> array
        row.n = cnp.PyArray_SIZE(p)
        if not 0 < row.n < self.limit:
            return -1
        number = cnp.PyArray_TYPE(p)
        computing = cnp.NPY_FLOAT64 if number == cnp.NPY_FLOAT64 else cnp.NPY_FLOAT32
        if cnp.PyTypeNum_ISUSERDEF(number) or cnp.PyTypeNum_ISUSERDEF(cnp.PyArray_TYPE(g)):
            bfloat16 = self.bfloat16()
        row.p_type = stored(number, computing, bfloat16)
        if row.p_type < 0 or not dense(p):
            return -1
        row.p = pointer(p, number, p, True)
        row.g = gradient(row, g, computing, bfloat16, p)
        if not (row.p and row.g):
            return -1
        if not describe_state(row, state, known.constants, computing, p):
            return -1
        row.amsgrad = <bint> coefficients[AMSGRAD]
        row.adabound = <bint> coefficients[ADABOUND]
        if not apart(
            row,
            row.n * cnp.PyArray_ITEMSIZE(p),
            row.n * cnp.PyArray_ITEMSIZE(<cnp.ndarray> g),
            row.n * (8 if computing == cnp.NPY_FLOAT64 else 4),
        ):
            return -1
        return computing


cdef bint same(tuple one, tuple other) noexcept:
    """Whether the same objects are in two tuples of one length."""
    cdef Py_ssize_t i
    for i in range(len(one)):
        if one[i] is not other[i]:
            return False
    return True


cdef bint apart(const Tensor* row, size_t p_size, size_t g_size, size_t size) noexcept:
    """Whether no two of the arrays of a row, which are dense, share memory."""
    cdef const size_t* at = <const size_t*> row
    cdef size_t end[FIRST_STREAM + N_STREAMS]
    cdef Py_ssize_t i, k
    for i in range(FIRST_STREAM + N_STREAMS):
        end[i] = at[i] + (p_size if i == 0 else g_size if i == 1 else size)
        for k in range(i):
            if at[i] and at[k] and at[i] < end[k] and at[k] < end[i]:
                return False
    return True


def lie_apart(object array, list others):
    """Tell whether an array of NumPy's shares no byte with others; False if one is not dense.

    Parameters
    ----------
    array : array
        The one.
    others : list of array
        The others.
    """
    cdef size_t begin, end
    cdef cnp.ndarray a
    if not cnp.PyArray_Check(array) or not dense(array):
        return False
    begin = <size_t> cnp.PyArray_DATA(<cnp.ndarray> array)
    end = begin + cnp.PyArray_NBYTES(<cnp.ndarray> array)
    for other in others:
        if not cnp.PyArray_Check(other) or not dense(other):
            return False
        a = <cnp.ndarray> other
        if <size_t> cnp.PyArray_DATA(a) < end and begin < (
            <size_t> cnp.PyArray_DATA(a) + cnp.PyArray_NBYTES(a)
        ):
            return False
    return True


cdef bint rounded32(tuple coefficients, float* row) except -1:
    """Round scalars; False if one is then none that a step may be made with."""
    cdef Py_ssize_t k
    for k in range(N_COEFFICIENTS):
        row[k] = <float> <double> coefficients[k]
    if <double> coefficients[EPS] != 0 and fabs(row[EPS]) < FLT_MIN:
        return False
    for k in FINITE:
        if isinf(row[k]):
            return False
    return True


cdef bint rounded64(tuple coefficients, double* row) except -1:
    """The same in float64, where there is nothing to round."""
    cdef Py_ssize_t k
    for k in range(N_COEFFICIENTS):
        row[k] = <double> coefficients[k]
    for k in FINITE:
        if isinf(row[k]):
            return False
    return True
