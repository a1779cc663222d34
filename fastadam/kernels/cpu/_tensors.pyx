"""Reads arrays into the descriptor table, in C: pointers, sizes and the layouts they share."""

cimport numpy as cnp
from cpython.dict cimport PyDict_GetItem
from cpython.object cimport PyObject_GenericSetAttr, PyObject_TypeCheck, PyTypeObject
from cpython.pycapsule cimport PyCapsule_GetPointer
from cpython.ref cimport PyObject
from libc.float cimport FLT_MAX, FLT_MIN
from libc.math cimport fabs

from fastadam.kernels.cpu._tensors cimport (
    ADABOUND,
    ALPHA_T,
    AMSGRAD,
    BFLOAT16,
    COMPUTING,
    DIVIDE,
    EPS,
    ETA,
    FIRST_STREAM,
    FLOAT16,
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

from numpy.ma import MaskedArray

from fastadam.algorithms.adam import ADAM

cnp.import_array()

cdef object MASKED = MaskedArray

# The names of the streams, and the flag without which each is not there, or None.
cdef tuple NAMES = ADAM.state
cdef tuple FLAGS = tuple([stream.when for stream in ADAM.streams])


cdef bint dense(cnp.ndarray a) noexcept:
    """Whether the elements fill one block of memory in some order of the axes."""
    cdef int ndim = cnp.PyArray_NDIM(a)
    cdef cnp.npy_intp* shape = cnp.PyArray_DIMS(a)
    cdef cnp.npy_intp* strides = cnp.PyArray_STRIDES(a)
    cdef cnp.npy_intp expected = cnp.PyArray_ITEMSIZE(a)
    cdef int axis, found, left = ndim
    cdef unsigned long seen = 0
    if cnp.PyArray_SIZE(a) == 0:
        return True
    # find the axes by growing stride; each must step over all the smaller ones together
    while left:
        left -= 1
        found = -1
        for axis in range(ndim):
            if seen & (1ul << axis):
                continue
            if shape[axis] == 1 or strides[axis] == expected:
                found = axis
                break
        if found < 0:
            return False
        seen |= 1ul << found
        expected *= shape[found]
    return True


cdef bint same_layout(cnp.ndarray a, cnp.ndarray p) noexcept:
    """Whether a has the shape of p and lays its elements in the same order."""
    cdef int ndim = cnp.PyArray_NDIM(p)
    cdef int axis
    if cnp.PyArray_NDIM(a) != ndim:
        return False
    for axis in range(ndim):
        if cnp.PyArray_DIM(a, axis) != cnp.PyArray_DIM(p, axis):
            return False
    if cnp.PyArray_SIZE(p) == 0:
        return True
    for axis in range(ndim):
        if cnp.PyArray_DIM(p, axis) == 1:
            continue
        # in elements, since the sizes of their types may differ
        if (
            cnp.PyArray_STRIDE(a, axis) * cnp.PyArray_ITEMSIZE(p)
            != cnp.PyArray_STRIDE(p, axis) * cnp.PyArray_ITEMSIZE(a)
        ):
            return False
    return True


cdef bint masked(object array) noexcept:
    """Whether an array is masked: what is behind the mask is no number to be used."""
    return not cnp.PyArray_CheckExact(array) and PyObject_TypeCheck(array, <PyTypeObject*> MASKED)


cdef size_t pointer(object array, int wanted, cnp.ndarray p, bint written) noexcept:
    """The address of an array that the loops can walk beside p, 0 for any other."""
    cdef cnp.ndarray a
    if not cnp.PyArray_Check(array) or masked(array):
        return 0
    a = <cnp.ndarray> array
    if cnp.PyArray_TYPE(a) != wanted:
        return 0
    if not (cnp.PyArray_ISBEHAVED(a) if written else cnp.PyArray_ISBEHAVED_RO(a)):
        return 0
    if not same_layout(a, p):
        return 0
    return <size_t> cnp.PyArray_DATA(a)


cdef Py_ssize_t stored(int type_number, int computing, int bfloat16) noexcept:
    """How an array of this type is stored, a Stored; -1 where there is no loop for it."""
    if type_number == computing:
        return COMPUTING
    if computing != cnp.NPY_FLOAT32:
        return -1
    if type_number == cnp.NPY_FLOAT16:
        return FLOAT16
    return BFLOAT16 if type_number == bfloat16 else -1


cdef size_t gradient(Tensor* tensor, object array, int computing, int bfloat16, cnp.ndarray p):
    """The address of a gradient and, in the row, how it is stored; 0 where there is no loop."""
    cdef int type_number
    if not cnp.PyArray_Check(array):
        return 0
    type_number = cnp.PyArray_TYPE(<cnp.ndarray> array)
    tensor.g_type = stored(type_number, computing, bfloat16)
    if tensor.g_type < 0:
        return 0
    # two different half types have no loop of their own
    if tensor.p_type != COMPUTING and tensor.g_type not in (COMPUTING, tensor.p_type):
        return 0
    return pointer(array, type_number, p, False)


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


cdef size_t half_pointer(object array, cnp.ndarray master, int bfloat16) noexcept:
    """The address of a half-precision parameter that can be walked beside its master, 0 if not."""
    cdef int number
    if not cnp.PyArray_Check(array):
        return 0
    number = cnp.PyArray_TYPE(<cnp.ndarray> array)
    if stored(number, cnp.NPY_FLOAT32, bfloat16) <= COMPUTING:
        return 0
    return pointer(array, number, master, True)


def keep_masters(list steps, list halves, Tensor[::1] table, int bfloat16):
    """Note in the rows which half-precision arrays their parameters are the masters of.

    `halves` has None for a parameter that is no master. Returns False if one of the arrays cannot
    be walked beside its master.
    """
    cdef Py_ssize_t i
    cdef object half
    for i in range(len(steps)):
        half = halves[i]
        if half is None:
            continue
        table[i].half = half_pointer(half, (<tuple> steps[i])[1], bfloat16)
        if not table[i].half:
            return False
        table[i].half_type = stored(
            cnp.PyArray_TYPE(<cnp.ndarray> half), cnp.NPY_FLOAT32, bfloat16
        )
    return True


cdef inline size_t* streams(Tensor* row) noexcept:
    """Where the addresses of the streams stand in a row."""
    return <size_t*> row + FIRST_STREAM


cdef bint describe_state(
    Tensor* row, tuple state, object flags, int computing, cnp.ndarray p
) except -1:
    """Note where the streams are; False if one cannot be walked beside p, or one is missing."""
    cdef size_t* at = streams(row)
    cdef Py_ssize_t k
    for k in range(N_STREAMS):
        if state[k] is None:
            at[k] = 0
            if FLAGS[k] is None or getattr(flags, FLAGS[k]):
                return False
        else:
            at[k] = pointer(state[k], computing, p, True)
            if not at[k]:
                return False
    return True


def describe(list steps, Tensor[::1] table, int bfloat16):
    """Fill the rows of a table from steps ``(name, p, g, state, coefficients)``.

    The steps are computed in one type, float32 or float64; ``bfloat16`` is NumPy's number of that
    type, -1 if it is not there. Returns the indices of the steps whose arrays do not share one
    dense, aligned, native and writable layout. Their rows stay empty (``n == 0``): the loops pass
    over them.
    """
    cdef Py_ssize_t i, start = 0
    cdef size_t p_at, g_at
    cdef int p_number, computing
    cdef tuple step
    cdef cnp.ndarray p
    cdef list others = []
    for i in range(len(steps)):
        step = <tuple> steps[i]  # a named tuple, of which Cython need not know
        table[i].start = start
        table[i].n = 0
        table[i].g_type = COMPUTING
        table[i].p_type = COMPUTING
        table[i].first_op = table[i].n_ops = 0
        table[i].step = True
        table[i].out = 0
        table[i].half = 0
        table[i].half_type = COMPUTING
        if not cnp.PyArray_Check(step[1]):
            others.append(i)
            continue
        p = step[1]
        p_number = cnp.PyArray_TYPE(p)
        computing = cnp.NPY_FLOAT64 if p_number == cnp.NPY_FLOAT64 else cnp.NPY_FLOAT32
        table[i].p_type = stored(p_number, computing, bfloat16)
        if table[i].p_type < 0:
            others.append(i)
            continue
        p_at = pointer(p, p_number, p, True) if dense(p) else 0
        g_at = gradient(&table[i], step[2], computing, bfloat16, p)
        if not (p_at and g_at) or not describe_state(&table[i], step[3], step[4], computing, p):
            others.append(i)
            continue
        table[i].p = p_at
        table[i].g = g_at
        table[i].n = cnp.PyArray_SIZE(p)
        start += table[i].n
    return others


cdef object state_array(dict state, str key):
    """An array of a state by its name, None if it is not there."""
    cdef PyObject* found = PyDict_GetItem(state, key)
    return None if found == NULL else <object> found


# The loops of one instruction set, as _step.pyx's `loop` gives them.
ctypedef void (*Loop32)(const Tensor*, Py_ssize_t, const Op*, const float*, int) noexcept nogil
ctypedef void (*Loop64)(const Tensor*, Py_ssize_t, const Op*, const double*, int) noexcept nogil


cdef class Rows:
    """A described table that is kept, and read again and run at every step.

    Parameters
    ----------
    table : numpy.ndarray of table.TENSOR
        Described and dense in every row.
    coefficients : numpy.ndarray of float32 or float64, shape (sets, N_COEFFICIENTS)
        What the rows refer to.
    sets : list of int
        Which of the batch's sets of coefficients these are.
    loop : capsule
        ``loop`` of the instruction set's module, for the dtype of the coefficients.
    low, high : numpy.ndarray of uintp
        Where the memory of the parameters begins, ascending, and the greatest end so far.
    bfloat16 : int
        As for `describe`.
    """

    cdef Tensor[::1] table
    cdef bint single
    cdef float[:, ::1] narrow
    cdef double[:, ::1] wide
    cdef list sets
    cdef Loop32 loop32
    cdef Loop64 loop64
    cdef const Op[::1] ops
    cdef const size_t[::1] low, high
    cdef int bfloat16

    def __init__(
        self,
        Tensor[::1] table,
        cnp.ndarray coefficients,
        list sets,
        object loop,
        const size_t[::1] low,
        const size_t[::1] high,
        int bfloat16,
    ):
        self.table = table
        self.sets = sets
        self.single = cnp.PyArray_TYPE(coefficients) == cnp.NPY_FLOAT32
        if self.single:
            self.narrow = coefficients
            self.loop32 = <Loop32> PyCapsule_GetPointer(loop, "adam_float32")
        else:
            self.wide = coefficients
            self.loop64 = <Loop64> PyCapsule_GetPointer(loop, "adam_float64")
        self.low = low
        self.high = high
        self.bfloat16 = bfloat16

    def __reduce__(self):
        raise TypeError("addresses cannot be copied")

    def take_ops(self, const Op[::1] ops):
        """Take over the operations that the programs of the rows are made of."""
        self.ops = ops

    def follow(
        self,
        list params,
        str attribute,
        list rules,
        list ts,
        list gradients,
        list coefficients,
    ):
        """Take over the addresses of new gradients; False if anything else is not as it was.

        The lists are in the order of the rows. An array is the `attribute` of its parameter, that
        of a master the one of ``_fp32_param`` of its rule; the state is a dict in ``_state`` of its
        rule, whose ``t`` is that of `ts`. Also False for a gradient that shares memory with a
        parameter, for coefficients of another variant, for an eps that would act as 0, and for
        numbers that would be infinite.
        """
        cdef Py_ssize_t i
        cdef object array, state, half
        if not self.takes(coefficients):
            return False
        for i in range(self.table.shape[0]):
            array = getattr(params[i], attribute)
            half = None
            if self.table[i].half:
                if rules[i]._fp32_param is None:
                    return False
                half, array = array, getattr(rules[i]._fp32_param, attribute)
            state = rules[i]._state
            if (
                type(state) is not dict
                or rules[i].t != ts[i]
                or not self.follow_row(&self.table[i], array, half, gradients[i], <dict> state)
                or not self.same_variant(&self.table[i], coefficients)
            ):
                return False
        return True

    cdef int run(self, list coefficients, int n_threads) except -1:
        """Make the step, with coefficients that are each rounded once."""
        cdef Py_ssize_t row, k
        cdef tuple values
        cdef const Op* ops = program(self.ops)
        for row in range(len(self.sets)):
            values = <tuple> coefficients[<Py_ssize_t> self.sets[row]]
            for k in range(N_COEFFICIENTS):
                if self.single:
                    self.narrow[row, k] = <float> <double> values[k]
                else:
                    self.wide[row, k] = <double> values[k]
        with nogil:
            if self.single:
                self.loop32(
                    &self.table[0], self.table.shape[0], ops, &self.narrow[0, 0], n_threads
                )
            else:
                self.loop64(
                    &self.table[0], self.table.shape[0], ops, &self.wide[0, 0], n_threads
                )

    cdef bint takes(self, list coefficients) except -1:
        """Whether the numbers of every set are what the loops can take, once they are rounded."""
        cdef Py_ssize_t row
        cdef tuple values
        cdef double eps
        if not self.single:
            return True
        for row in range(len(self.sets)):
            # named tuples, of which Cython need not know
            values = <tuple> coefficients[<Py_ssize_t> self.sets[row]]
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

    cdef bint same_variant(self, const Tensor* row, list coefficients) except -1:
        """Whether the coefficients of a row are of its variant."""
        cdef tuple values = <tuple> coefficients[<Py_ssize_t> self.sets[row.row]]
        return row.amsgrad == <bint> values[AMSGRAD] and row.adabound == <bint> values[ADABOUND]

    cdef bint follow_row(
        self, Tensor* row, object param, object half, object grad, dict state
    ) except -1:
        """One row; only the gradient may be elsewhere, or stored in another type."""
        cdef cnp.ndarray p
        cdef int p_number, computing
        cdef size_t g_at
        cdef size_t* at = streams(row)
        cdef Py_ssize_t k
        cdef Py_ssize_t g_type = row.g_type
        if not cnp.PyArray_Check(param):
            return False
        p = <cnp.ndarray> param
        p_number = cnp.PyArray_TYPE(p)
        computing = cnp.NPY_FLOAT64 if p_number == cnp.NPY_FLOAT64 else cnp.NPY_FLOAT32
        if (
            cnp.PyArray_SIZE(p) != row.n
            or stored(p_number, computing, self.bfloat16) != row.p_type
            or not dense(p)
            or pointer(p, p_number, p, True) != row.p
            or (row.half and half_pointer(half, p, self.bfloat16) != row.half)
        ):
            return False
        for k in range(N_STREAMS):
            if at[k] and pointer(state_array(state, NAMES[k]), computing, p, True) != at[k]:
                return False
        g_at = gradient(row, grad, computing, self.bfloat16, p)
        if not g_at:
            row.g_type = g_type
            return False
        # of a wider type than the last one, it reaches further
        if g_at != row.g or row.g_type != g_type:
            if self.overlaps(g_at, row.n * cnp.PyArray_ITEMSIZE(<cnp.ndarray> grad)):
                return False
            row.g = g_at
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

    def take_ops(self, const Op[::1] ops, object counts):
        """Take over the gradients that the steps have, and the first operations of their programs.

        `counts` says how many of each; a program may have fewer.
        """
        cdef Py_ssize_t i
        cdef Gradient* row
        cdef const Tensor* tensor
        self.take(None)
        self.ops = ops
        for i in range(self.gradients.shape[0]):
            row, tensor = &self.gradients[i], &self.tensors[i]
            row.p = tensor.half if tensor.half else tensor.p
            row.p_type = tensor.half_type if tensor.half else tensor.p_type
            row.first_op = tensor.first_op
            row.n_ops = min(<Py_ssize_t> counts[i], tensor.n_ops)
            # a division alone has loops of its own
            if row.n_ops == 1 and ops[row.first_op].kind == DIVIDE:
                row.scale = ops[row.first_op].a
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


def extents(list arrays, size_t[::1] low, size_t[::1] high):
    """Note the first byte and the last byte plus one of NumPy's arrays; 0 of what is none."""
    cdef Py_ssize_t i
    cdef int axis
    cdef cnp.npy_intp reach
    cdef cnp.ndarray a
    for i in range(len(arrays)):
        low[i] = high[i] = 0
        if not cnp.PyArray_Check(arrays[i]):
            continue
        a = <cnp.ndarray> arrays[i]
        if cnp.PyArray_SIZE(a) == 0:
            continue
        low[i] = high[i] = <size_t> cnp.PyArray_DATA(a)
        for axis in range(cnp.PyArray_NDIM(a)):
            reach = cnp.PyArray_STRIDE(a, axis) * (cnp.PyArray_DIM(a, axis) - 1)
            if reach < 0:
                low[i] += reach
            else:
                high[i] += reach
        high[i] += cnp.PyArray_ITEMSIZE(a)


def all_none(list objects, str attribute):
    """Whether an attribute of all of them is None."""
    cdef object each
    for each in objects:
        if getattr(each, attribute) is not None:
            return False
    return True


def count(list rules, list ts):
    """Set every rule's t, past the `__setattr__` of its class: nothing else is told of it.

    All in C, so that Ctrl-C cannot come in between.
    """
    cdef Py_ssize_t i
    for i in range(len(rules)):
        PyObject_GenericSetAttr(rules[i], "t", ts[i])


def step_and_count(
    list tables,
    list n_threads,
    list coefficients,
    list rules,
    list ts,
    list following,
    dict owner,
    dict noted,
    object unscaled,
):
    """Make the step that the tables have followed, and count it.

    The rules' t become `following`, and so does the list ``ts``; the attributes `owner` of their
    optimizer become those `noted`, and the loss scale of the parameters `unscaled` None. All in C,
    so that Ctrl-C cannot come in between.
    """
    cdef Py_ssize_t i
    for i in range(len(tables)):
        (<Rows> tables[i]).run(coefficients, n_threads[i])
    count(rules, following)
    ts[:] = following
    for param in unscaled:
        PyObject_GenericSetAttr(param, "_loss_scale", None)
    owner.update(noted)
