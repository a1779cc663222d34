"""The steps of a table: their numbers, what is done to gradients, and the loops over them, in C."""

cimport numpy as cnp
from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.float cimport FLT_MAX, FLT_MIN
from libc.math cimport fabs

from fastadam.kernels._source cimport Source
from fastadam.kernels.cpu._tensors cimport (
    ADABOUND,
    ALPHA_T,
    AMSGRAD,
    EPS,
    ETA,
    LOWER,
    N_COEFFICIENTS,
    N_WALKED,
    ONE_MINUS_DECAY,
    WALKED_G,
    Op,
    Tensor,
    Walk,
    program,
)

cnp.import_array()


cdef bint is_strided(const Tensor* row) noexcept:
    """Whether what a row writes shares no dense layout."""
    cdef const Walk* walk = <const Walk*> row.walk
    cdef Py_ssize_t k
    if walk == NULL:
        return False
    for k in range(N_WALKED):
        if walk.apart[k] and k != WALKED_G:
            return True
    return False


cdef class Steps:
    """Steps that are computed in one dtype, as they are in the descriptor table.

    Parameters
    ----------
    source : Source
        Who owns the arrays.
    table : numpy.ndarray of table.TENSOR
        Described.
    coefficients : numpy.ndarray of float32 or float64, shape (sets, N_COEFFICIENTS)
        What the rows refer to.
    sets : list of int
        Which of the step's sets of coefficients these are.
    loop : capsule
        ``loop`` of the instruction set's module, for the dtype of the coefficients.
    """

    def __init__(
        self,
        Source source,
        Tensor[::1] table,
        cnp.ndarray coefficients,
        list sets,
        object loop,
    ):
        self.source = source
        self.table = table
        self.sets = sets
        self.single = cnp.PyArray_TYPE(coefficients) == cnp.NPY_FLOAT32
        if self.single:
            self.narrow = coefficients
            self.loop32 = <Loop32> PyCapsule_GetPointer(loop, "adam_float32")
        else:
            self.wide = coefficients
            self.loop64 = <Loop64> PyCapsule_GetPointer(loop, "adam_float64")

    def __reduce__(self):
        raise TypeError("addresses cannot be copied")

    def take_ops(self, Op[::1] ops):
        """Take over the table of operations that the programs of the rows are made of."""
        self.ops = ops

    def set_ops(self, programs):
        """Write the operations of all programs, one after the other, into the table."""
        cdef Py_ssize_t i = 0
        cdef Op* op
        for ops in programs:
            for kind, a, b in ops:
                op = &self.ops[i]
                op.kind, op.a, op.b = kind, a, b
                i += 1

    cdef Py_ssize_t n_sets(self, list coefficients) noexcept:
        """How many sets of coefficients the rows refer to."""
        return len(coefficients) if self.source.regroups else len(self.sets)

    cdef Py_ssize_t set_of(self, Py_ssize_t row) except -1:
        """Which of the step's sets of coefficients a row of numbers is."""
        return row if self.source.regroups else <Py_ssize_t> self.sets[row]

    cdef bint can_take(self, list coefficients) except -1:
        """Whether the numbers of every set are what the loops can take, once they are rounded."""
        cdef Py_ssize_t row
        cdef tuple values
        cdef double eps
        if not self.single:
            return True
        for row in range(self.n_sets(coefficients)):
            # named tuples, of which Cython need not know
            values = <tuple> coefficients[self.set_of(row)]
            eps = values[EPS]
            if (
                (eps != 0 and fabs(<double> <float> eps) < FLT_MIN)
                or fabs(eps) > FLT_MAX
                or fabs(<double> values[ALPHA_T]) > FLT_MAX
                or fabs(<double> values[ETA]) > FLT_MAX
                or fabs(<double> values[ONE_MINUS_DECAY]) > FLT_MAX
                or fabs(<double> values[LOWER]) > FLT_MAX
            ):
                return False
        return True

    cdef bint same_variants(self, list coefficients) except -1:
        """Whether the coefficients of every row are of its variant."""
        cdef Py_ssize_t i, seen = -1
        cdef bint amsgrad = False, adabound = False
        cdef tuple values
        for i in range(self.table.shape[0]):
            if self.source.regroups and not self.table[i].n:
                # left out of this step, whatever its numbers are
                continue
            if self.table[i].row != seen:
                seen = self.table[i].row
                values = <tuple> coefficients[self.set_of(seen)]
                amsgrad, adabound = values[AMSGRAD], values[ADABOUND]
            if self.table[i].amsgrad != amsgrad or self.table[i].adabound != adabound:
                return False
        return True

    cdef int round(self, list coefficients) except -1:
        """Round each scalar once to the type of the computation."""
        cdef Py_ssize_t row, k
        cdef tuple values
        for row in range(self.n_sets(coefficients)):
            values = <tuple> coefficients[self.set_of(row)]
            for k in range(N_COEFFICIENTS):
                if self.single:
                    self.narrow[row, k] = <float> <double> values[k]
                else:
                    self.wide[row, k] = <double> values[k]
        return 0

    cdef void call(self, const Tensor* rows, Py_ssize_t n, int n_threads) noexcept:
        """Run the loops over some rows."""
        cdef const Op* ops = program(self.ops)
        with nogil:
            if self.single:
                self.loop32(rows, n, ops, &self.narrow[0, 0], n_threads)
            else:
                self.loop64(rows, n, ops, &self.wide[0, 0], n_threads)

    cdef int run(self, list coefficients, int n_threads, bint serial) except -1:
        """Make the step on all rows at once, or on one after the other, strided ones last."""
        cdef Py_ssize_t i
        cdef bint last
        cdef Tensor alone
        self.round(coefficients)
        if not serial:
            if self.table.shape[0]:
                self.call(&self.table[0], self.table.shape[0], n_threads)
            return 0
        for last in range(2):
            for i in range(self.table.shape[0]):
                if self.table[i].n and is_strided(&self.table[i]) == last:
                    alone = self.table[i]
                    alone.start = 0
                    self.call(&alone, 1, n_threads)
        return 0
