"""Reads arrays into the descriptor table, in C: pointers, sizes and the layouts they share."""

cimport numpy as cnp
from cpython.pycapsule cimport PyCapsule_GetPointer

from fastadam.kernels.cpu._layout cimport dense, describe_state, gradient, pointer, stored
from fastadam.kernels.cpu._tensors cimport (
    ADABOUND,
    ALPHA_T,
    AMSGRAD,
    COMPUTING,
    DIVIDE,
    EPS,
    ETA,
    FIRST_STREAM,
    LOWER,
    N_COEFFICIENTS,
    N_STREAMS,
    ONE_MINUS_BETA1,
    ONE_MINUS_BETA2,
    ONE_MINUS_DECAY,
    UPPER,
    Gradient,
    Op,
    Tensor,
    program,
)

cnp.import_array()


def describe_gradients(list pairs, Tensor[::1] table, int bfloat16):
    """Fill the rows of a table from pairs ``(p, g)`` of which g is changed, and nothing stepped.

    The gradients are computed in one type, float32 or float64. Returns the indices of the pairs
    whose arrays the loops cannot walk together, or cannot write; their rows stay empty.
    """
    cdef Py_ssize_t i, start = 0
    cdef int p_number, g_number, computing
    cdef cnp.ndarray p, g
    cdef list others = []
    for i in range(len(pairs)):
        p, g = <tuple> pairs[i]
        p_number, g_number = cnp.PyArray_TYPE(p), cnp.PyArray_TYPE(g)
        computing = cnp.NPY_FLOAT64 if g_number == cnp.NPY_FLOAT64 else cnp.NPY_FLOAT32
        table[i].start = start
        table[i].n = 0
        table[i].p_type = stored(p_number, computing, bfloat16)
        table[i].g_type = stored(g_number, computing, bfloat16)
        table[i].step = False
        table[i].g = table[i].out = pointer(g, g_number, g, True) if dense(g) else 0
        table[i].p = pointer(p, p_number, g, False)
        if table[i].p and table[i].g and table[i].p_type >= 0 and table[i].g_type >= 0:
            table[i].n = cnp.PyArray_SIZE(g)
            start += table[i].n
        else:
            others.append(i)
    return others


cdef bint describe_row(Tensor* row, tuple step, int bfloat16) except -1:
    """Fill a row from a step, but for its gradient; False if its arrays share no dense layout."""
    cdef int p_number, computing
    cdef cnp.ndarray p
    row.n = 0
    row.g = 0
    row.g_type = COMPUTING
    row.p_type = COMPUTING
    row.first_op = row.n_ops = 0
    row.step = True
    row.out = 0
    row.half = 0
    row.half_type = COMPUTING
    row.walk = 0
    if not cnp.PyArray_Check(step[1]):
        return False
    p = step[1]
    p_number = cnp.PyArray_TYPE(p)
    computing = cnp.NPY_FLOAT64 if p_number == cnp.NPY_FLOAT64 else cnp.NPY_FLOAT32
    row.p_type = stored(p_number, computing, bfloat16)
    if row.p_type < 0:
        return False
    row.p = pointer(p, p_number, p, True) if dense(p) else 0
    if not row.p or not describe_state(row, step[3], step[4], computing, p):
        return False
    row.n = cnp.PyArray_SIZE(p)
    return True


def describe(list steps, Tensor[::1] table, int bfloat16):
    """Fill the rows of a table from steps ``(name, p, g, state, coefficients)``.

    The steps are computed in one type, float32 or float64; ``bfloat16`` is NumPy's number of that
    type, -1 if it is not there.

    Returns
    -------
    others : list of int
        The steps whose arrays do not share one dense, aligned, native and writable layout. Their
        rows stay empty (``n == 0``) until it is found out how they are walked.
    odd : list of int
        Those of the rest whose gradient there is no loop for as it is.
    """
    cdef Py_ssize_t i, start = 0
    cdef int computing
    cdef tuple step
    cdef list others = []
    cdef list odd = []
    for i in range(len(steps)):
        step = <tuple> steps[i]  # a named tuple, of which Cython need not know
        table[i].start = start
        if not describe_row(&table[i], step, bfloat16):
            table[i].n = 0
            others.append(i)
            continue
        computing = (
            cnp.NPY_FLOAT64
            if cnp.PyArray_TYPE(<cnp.ndarray> step[1]) == cnp.NPY_FLOAT64
            else cnp.NPY_FLOAT32
        )
        table[i].g = gradient(&table[i], step[2], computing, bfloat16, step[1])
        if not table[i].g:
            table[i].g_type = COMPUTING
            odd.append(i)
        start += table[i].n
    return others, odd


# The loops of the gradient pass, as _norm.pxi's `squares_loop` gives them.
ctypedef void (*SquaresLoop)(
    const Gradient*, Py_ssize_t, const Op*, double*, Py_ssize_t, double*, int
) noexcept nogil


cdef class Squares:
    """A table of gradients that may be kept, and whose squares are summed again.

    Parameters
    ----------
    gradients : numpy.ndarray of gradient_table.GRADIENT
        Dense and aligned in every row, with ``start`` the running sum of groups of chunks.
    sums : numpy.ndarray of float64
        Room for the sum of squares of every group.
    totals : numpy.ndarray of float64
        Room for that of every gradient.
    loop : capsule
        ``squares_loop`` of the instruction set's module, for what is computed in.
    tensors : numpy.ndarray of table.TENSOR, optional
        The table of steps whose gradients they are, row by row.
    """

    cdef Gradient[::1] gradients
    cdef double[::1] sums, totals
    cdef Tensor[::1] tensors
    cdef const Op[::1] ops
    # the array that they are in
    cdef object of_ops
    cdef SquaresLoop loop

    def __init__(
        self,
        Gradient[::1] gradients,
        double[::1] sums,
        double[::1] totals,
        object loop,
        Tensor[::1] tensors=None,
    ):
        self.gradients = gradients
        self.sums = sums
        self.totals = totals
        self.loop = <SquaresLoop> PyCapsule_GetPointer(loop, "squares")
        self.tensors = tensors

    def __reduce__(self):
        raise TypeError("addresses cannot be copied")

    def take(self, object scales):
        """Take over the gradients that the steps have, and what each is divided by; 0 is nothing.

        Without scales, none is divided.
        """
        cdef Py_ssize_t i
        for i in range(self.gradients.shape[0]):
            self.gradients[i].g = self.tensors[i].g
            self.gradients[i].g_type = self.tensors[i].g_type
            self.gradients[i].scale = 0 if scales is None else scales[i]
            self.gradients[i].n_ops = 0

    def take_ops(self, object ops, object counts):
        """Take over the gradients that the steps have, and the first operations of their programs.

        `counts` says how many of each; a program may have fewer.
        """
        cdef Py_ssize_t i
        cdef Gradient* row
        cdef const Tensor* tensor
        self.take(None)
        # to find out what an array holds takes longer than all the rest
        if ops is not self.of_ops:
            self.ops = self.of_ops = ops
        for i in range(self.gradients.shape[0]):
            row, tensor = &self.gradients[i], &self.tensors[i]
            row.p = tensor.half if tensor.half else tensor.p
            row.p_type = tensor.half_type if tensor.half else tensor.p_type
            row.first_op = tensor.first_op
            row.n_ops = min(<Py_ssize_t> counts[i], tensor.n_ops)
            # a division alone has loops of its own
            if row.n_ops == 1 and self.ops[row.first_op].kind == DIVIDE:
                row.scale = self.ops[row.first_op].a
                row.n_ops = 0

    def run(self, int n_threads):
        """Return the sum of squares of every gradient, of its quotient, or after its operations."""
        cdef Py_ssize_t i, n = self.gradients.shape[0], n_groups = self.sums.shape[0]
        cdef const Op* ops = program(self.ops)
        if n_groups:
            with nogil:
                self.loop(
                    &self.gradients[0], n, ops, &self.sums[0], n_groups, &self.totals[0], n_threads
                )
        else:
            # gradients of no elements
            self.totals[:] = 0
        return [self.totals[i] for i in range(n)]


def layout():
    """What is spelled in C of the table of algorithms: where each stream and each number stands.

    Returns the number of bytes of a row, the offsets of its streams and flags, and the columns of
    scalars and flags, by name.
    """
    cdef Tensor row
    cdef size_t at = <size_t> &row
    offsets = {
        "m": <size_t> &row.m - at,
        "v": <size_t> &row.v - at,
        "vhat": <size_t> &row.vhat - at,
        "amsgrad": <size_t> &row.amsgrad - at,
        "adabound": <size_t> &row.adabound - at,
    }
    columns = {
        "alpha_t": ALPHA_T,
        "one_minus_beta1": ONE_MINUS_BETA1,
        "one_minus_beta2": ONE_MINUS_BETA2,
        "eps": EPS,
        "eta": ETA,
        "one_minus_decay": ONE_MINUS_DECAY,
        "lower": LOWER,
        "upper": UPPER,
        "amsgrad": AMSGRAD,
        "adabound": ADABOUND,
    }
    return sizeof(Tensor), offsets, columns, (FIRST_STREAM, N_STREAMS, N_COEFFICIENTS)
