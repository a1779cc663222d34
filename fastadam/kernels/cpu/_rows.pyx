"""The rows of a table that is kept: read from their owner, run, and committed, all in C.

What was described is read again before every step. Arrays of the same size, dtype and layout may
lie elsewhere; gradients may be anything that can be converted. Whatever else has changed makes the
table stale.
"""

cimport numpy as cnp
from cpython.dict cimport PyDict_SetItem
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from cpython.object cimport PyObject_GenericSetAttr
from cpython.pycapsule cimport PyCapsule_GetPointer
from cpython.ref cimport PyObject
from libc.float cimport FLT_MAX, FLT_MIN
from libc.math cimport fabs
from libc.stdlib cimport qsort

from fastadam.kernels._source cimport Found, Source
from fastadam.kernels.cpu._layout cimport (
    dense,
    gradient,
    half_pointer,
    masked,
    pointer,
    stored,
    streams,
)
from fastadam.kernels.cpu._tensors cimport (
    ADABOUND,
    ALPHA_T,
    AMSGRAD,
    COMPUTING,
    EPS,
    ETA,
    LOWER,
    N_COEFFICIENTS,
    N_STREAMS,
    ONE_MINUS_DECAY,
    Op,
    Tensor,
    program,
)

cnp.import_array()

# The loops of one instruction set, as _step.pyx's `loop` gives them.
ctypedef void (*Loop32)(const Tensor*, Py_ssize_t, const Op*, const float*, int) noexcept nogil
ctypedef void (*Loop64)(const Tensor*, Py_ssize_t, const Op*, const double*, int) noexcept nogil

# What is held of each row, in this order; the arrays of the streams are the last.
cdef enum:
    PARAMETER
    HALF
    GRADIENT
    STATE
    N_HELD = STATE + N_STREAMS


cdef struct Extent:
    size_t low
    size_t high           # once they are sorted, the greatest end so far


cdef int by_low(const void* a, const void* b) noexcept nogil:
    """Compare where two extents begin."""
    cdef size_t first = (<const Extent*> a).low
    cdef size_t second = (<const Extent*> b).low
    return (first > second) - (first < second)


cdef void reach_of(cnp.ndarray a, size_t* low, size_t* high) noexcept:
    """The first byte of an array in any layout, and the last one plus one; equal of an empty one."""
    cdef int axis
    cdef cnp.npy_intp reach
    low[0] = high[0] = <size_t> cnp.PyArray_DATA(a)
    if cnp.PyArray_SIZE(a) == 0:
        return
    for axis in range(cnp.PyArray_NDIM(a)):
        reach = cnp.PyArray_STRIDE(a, axis) * (cnp.PyArray_DIM(a, axis) - 1)
        if reach < 0:
            low[0] += reach
        else:
            high[0] += reach
    high[0] += cnp.PyArray_ITEMSIZE(a)


cdef class Written:
    """Where the arrays lie that a step on the CPU writes."""

    cdef Extent* extents
    cdef Py_ssize_t n, room

    def __cinit__(self):
        self.extents = NULL
        self.n = self.room = 0

    def __dealloc__(self):
        PyMem_Free(self.extents)

    def __reduce__(self):
        raise TypeError("addresses cannot be copied")

    cdef int add(self, object array) except -1:
        """Note one array."""
        cdef size_t low, high
        cdef Extent* more
        reach_of(<cnp.ndarray> array, &low, &high)
        if low == high:
            return 0
        if self.n == self.room:
            more = <Extent*> PyMem_Realloc(self.extents, (2 * self.room + 16) * sizeof(Extent))
            if more == NULL:
                raise MemoryError
            self.extents = more
            self.room = 2 * self.room + 16
        self.extents[self.n].low = low
        self.extents[self.n].high = high
        self.n += 1
        return 0

    cdef bint sort(self) noexcept:
        """Put them in order; whether no two reach into one another."""
        cdef Py_ssize_t i
        cdef bint apart = True
        qsort(self.extents, self.n, sizeof(Extent), by_low)
        for i in range(1, self.n):
            if self.extents[i - 1].high > self.extents[i].low:
                apart = False
                self.extents[i].high = max(self.extents[i].high, self.extents[i - 1].high)
        return apart

    cdef bint has_part(self, object array) noexcept:
        """Whether an array reaches into one of them."""
        cdef Py_ssize_t first = 0, last = self.n, middle
        cdef size_t low, high
        reach_of(<cnp.ndarray> array, &low, &high)
        if low == high:
            return False
        # those that begin before its end
        while first < last:
            middle = (first + last) // 2
            if self.extents[middle].low < high:
                first = middle + 1
            else:
                last = middle
        return first > 0 and self.extents[first - 1].high > low


cdef bint convertible(object grad, cnp.ndarray p, int bfloat16) noexcept:
    """Whether a gradient has the shape of p and real floating numbers, in whatever layout."""
    cdef int axis, number
    cdef cnp.ndarray g
    if not cnp.PyArray_Check(grad) or masked(grad):
        return False
    g = <cnp.ndarray> grad
    number = cnp.PyArray_TYPE(g)
    if not (
        cnp.PyTypeNum_ISFLOAT(number) or number == cnp.NPY_FLOAT16 or number == bfloat16
    ):
        return False
    if cnp.PyArray_NDIM(g) != cnp.PyArray_NDIM(p):
        return False
    for axis in range(cnp.PyArray_NDIM(p)):
        if cnp.PyArray_DIM(g, axis) != cnp.PyArray_DIM(p, axis):
            return False
    return True


cdef class Rows:
    """The rows of steps that are computed in one dtype.

    Parameters
    ----------
    source : Source
        Who owns the arrays.
    places : list of int
        Which of the source's parameters these are.
    table : numpy.ndarray of table.TENSOR
        Described; ``n`` is 0 where the arrays share no dense layout.
    coefficients : numpy.ndarray of float32 or float64, shape (sets, N_COEFFICIENTS)
        What the rows refer to.
    sets : list of int
        Which of the step's sets of coefficients these are.
    loop : capsule
        ``loop`` of the instruction set's module, for the dtype of the coefficients.
    strided : list of int
        The rows whose arrays share no dense layout.
    bfloat16 : int
        As for `describe`.
    """

    cdef Source source
    cdef list places, sets, held, strided
    cdef Tensor[::1] table
    cdef list sizes
    cdef bint single
    cdef readonly bint moved
    cdef float[:, ::1] narrow
    cdef double[:, ::1] wide
    cdef Loop32 loop32
    cdef Loop64 loop64
    cdef const Op[::1] ops
    cdef int bfloat16
    cdef readonly Py_ssize_t total
    cdef readonly Py_ssize_t without
    cdef readonly list to_round
    cdef bint begun
    cdef readonly bint converted, halves

    def __init__(
        self,
        Source source,
        list places,
        Tensor[::1] table,
        cnp.ndarray coefficients,
        list sets,
        object loop,
        list strided,
        int bfloat16,
    ):
        cdef Py_ssize_t i
        self.source = source
        self.places = places
        self.table = table
        self.sets = sets
        self.single = cnp.PyArray_TYPE(coefficients) == cnp.NPY_FLOAT32
        if self.single:
            self.narrow = coefficients
            self.loop32 = <Loop32> PyCapsule_GetPointer(loop, "adam_float32")
        else:
            self.wide = coefficients
            self.loop64 = <Loop64> PyCapsule_GetPointer(loop, "adam_float64")
        self.bfloat16 = bfloat16
        self.held = [None] * (N_HELD * len(places))
        self.sizes = [table[i].n for i in range(len(places))]
        self.strided = [False] * len(places)
        for i in strided:
            self.strided[i] = True

    def __reduce__(self):
        raise TypeError("addresses cannot be copied")

    def __len__(self):
        return len(self.places)

    def take_ops(self, const Op[::1] ops):
        """Take over the operations that the programs of the rows are made of."""
        self.ops = ops

    cdef bint hold(self, Py_ssize_t i, Py_ssize_t which, PyObject* found) except -1:
        """Keep an array alive while its address is in use; whether it is another than before."""
        cdef Py_ssize_t place = N_HELD * i + which
        cdef object array = None if found == NULL else <object> found
        if self.held[place] is array:
            return False
        self.held[place] = array
        return True

    cdef bint read(self, object convert) except -1:
        """Read all rows from their owner; False if one of them is stale."""
        cdef Py_ssize_t i, k, start = 0
        cdef Found found
        cdef Tensor* row
        self.moved = self.converted = self.halves = False
        self.without = 0
        self.to_round = []
        for i in range(len(self.places)):
            if not self.source.read(<Py_ssize_t> self.places[i], &found):
                return False
            row = &self.table[i]
            row.start = start
            if self.strided[i]:
                if not self.read_strided(i, &found):
                    return False
            elif not self.read_row(i, row, &found, convert):
                return False
            self.without += found.g == NULL
            start += row.n
        self.total = start
        self.begun = True
        return True

    cdef bint read_row(
        self, Py_ssize_t i, Tensor* row, Found* found, object convert
    ) except -1:
        """One row, whose arrays are dense."""
        cdef cnp.ndarray p
        cdef int p_number, computing
        cdef size_t at
        cdef size_t* state = streams(row)
        cdef Py_ssize_t k
        if not cnp.PyArray_Check(<object> found.p):
            return False
        p = <cnp.ndarray> <object> found.p
        p_number = cnp.PyArray_TYPE(p)
        computing = cnp.NPY_FLOAT64 if p_number == cnp.NPY_FLOAT64 else cnp.NPY_FLOAT32
        if (
            (computing == cnp.NPY_FLOAT32) != self.single
            or cnp.PyArray_SIZE(p) != <Py_ssize_t> self.sizes[i]
            or stored(p_number, computing, self.bfloat16) != row.p_type
            or not dense(p)
        ):
            return False
        at = pointer(p, p_number, p, True)
        if not at:
            return False
        self.moved |= self.hold(i, PARAMETER, found.p) or at != row.p
        row.p = at
        for k in range(N_STREAMS):
            if not state[k]:
                continue
            at = 0 if found.state[k] == NULL else pointer(
                <object> found.state[k], computing, p, True
            )
            if not at:
                return False
            self.moved |= self.hold(i, STATE + k, found.state[k]) or at != state[k]
            state[k] = at
        at = 0
        if found.half != NULL:
            at = half_pointer(<object> found.half, p, self.bfloat16)
            if at:
                row.half_type = stored(
                    cnp.PyArray_TYPE(<cnp.ndarray> <object> found.half),
                    cnp.NPY_FLOAT32,
                    self.bfloat16,
                )
            elif self.begun:
                return False
            else:
                self.to_round.append((<object> found.half, p))
        self.moved |= self.hold(i, HALF, found.half) or at != row.half
        row.half = at
        if found.g == NULL:
            row.n = 0
            return True
        row.n = self.sizes[i]
        self.hold(i, GRADIENT, found.g)
        at = gradient(row, <object> found.g, computing, self.bfloat16, p)
        if not at:
            if not convertible(<object> found.g, p, self.bfloat16):
                return False
            self.converted = True
            self.held[N_HELD * i + GRADIENT] = grad = convert(p, <object> found.g)
            at = gradient(row, grad, computing, self.bfloat16, p)
            if not at:
                return False
        row.g = at
        self.halves |= row.g_type != COMPUTING
        return True

    cdef bint read_strided(self, Py_ssize_t i, Found* found) except -1:
        """One row, whose arrays must be those that were described."""
        cdef Py_ssize_t k
        cdef bint first = self.held[N_HELD * i] is None
        cdef bint other = self.hold(i, PARAMETER, found.p)
        other |= self.hold(i, HALF, found.half)
        for k in range(N_STREAMS):
            other |= self.hold(i, STATE + k, found.state[k])
        if first:
            self.moved = True
        elif other:
            return False
        self.held[N_HELD * i + GRADIENT] = None
        if found.half != NULL:
            self.to_round.append((<object> found.half, <object> found.p))
        if found.g == NULL:
            return True
        if not (
            cnp.PyArray_Check(<object> found.p)
            and convertible(<object> found.g, <object> found.p, self.bfloat16)
        ):
            return False
        self.hold(i, GRADIENT, found.g)
        return True

    cdef int note_written(self, Written written) except -1:
        """Note all arrays that the rows write."""
        cdef Py_ssize_t i, k
        cdef object array
        for i in range(len(self.places)):
            for k in range(N_HELD):
                array = self.held[N_HELD * i + k]
                if k != GRADIENT and array is not None:
                    written.add(array)
        return 0

    cdef int untangle(self, Written written, object convert) except -1:
        """Read gradients that are part of what is written from copies."""
        cdef Py_ssize_t i, place
        cdef cnp.ndarray p
        cdef int computing
        for i in range(len(self.places)):
            place = N_HELD * i + GRADIENT
            if self.held[place] is None or not written.has_part(self.held[place]):
                continue
            self.converted = True
            p = <cnp.ndarray> self.held[N_HELD * i]
            self.held[place] = grad = convert(p, self.held[place])
            if not self.strided[i]:
                computing = cnp.NPY_FLOAT32 if self.single else cnp.NPY_FLOAT64
                self.table[i].g = gradient(
                    &self.table[i], grad, computing, self.bfloat16, p
                )
        return 0

    cdef bint can_take(self, list coefficients) except -1:
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

    cdef bint same_variants(self, list coefficients) except -1:
        """Whether the coefficients of every row are of its variant."""
        cdef Py_ssize_t i
        cdef tuple values
        for i in range(self.table.shape[0]):
            values = <tuple> coefficients[<Py_ssize_t> self.sets[self.table[i].row]]
            if (
                self.table[i].amsgrad != <bint> values[AMSGRAD]
                or self.table[i].adabound != <bint> values[ADABOUND]
            ):
                return False
        return True

    cdef int round(self, list coefficients) except -1:
        """Round each scalar once to the type of the computation."""
        cdef Py_ssize_t row, k
        cdef tuple values
        for row in range(len(self.sets)):
            values = <tuple> coefficients[<Py_ssize_t> self.sets[row]]
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
        """Make the step on all dense rows at once, or on one after the other."""
        cdef Py_ssize_t i
        cdef Tensor alone
        self.round(coefficients)
        if not serial:
            if self.table.shape[0]:
                self.call(&self.table[0], self.table.shape[0], n_threads)
            return 0
        for i in range(self.table.shape[0]):
            if self.table[i].n:
                alone = self.table[i]
                alone.start = 0
                self.call(&alone, 1, n_threads)
        return 0

    def arrays(self, Py_ssize_t i):
        """Return p, g, the half-precision parameter and the state of a row, None for what is not.

        Parameters
        ----------
        i : int
            The row.
        """
        cdef list held = self.held[N_HELD * i : N_HELD * (i + 1)]
        return held[PARAMETER], held[GRADIENT], held[HALF], tuple(held[STATE:])

    def may_write(self):
        """Tell whether gradients may be written in place: owners' own, which share no memory."""
        cdef Py_ssize_t i
        cdef object grad
        cdef Written gradients = Written()
        if self.converted:
            return False
        for i in range(len(self.places)):
            grad = self.held[N_HELD * i + GRADIENT]
            if grad is not None:
                if not cnp.PyArray_ISWRITEABLE(<cnp.ndarray> grad):
                    return False
                gradients.add(grad)
        return gradients.sort()

    def release(self):
        """Let the gradients go."""
        cdef Py_ssize_t i
        for i in range(len(self.places)):
            self.held[N_HELD * i + GRADIENT] = None


def refresh(list tables, Written written, list coefficients, bint loose, object convert):
    """Read everything anew from its owner, as far as it is on the CPU.

    Parameters
    ----------
    tables : list of Rows
        All that one step is made on.
    written : Written
        Where the arrays lie that they write; brought up to date where any has moved.
    coefficients : list of Coefficients
        What each of the sets is now.
    loose : bool
        Whether arrays that are written reach into one another, as they are described, and must not
        move.
    convert : callable
        Returns a gradient, of a parameter's array and a gradient, that the loops can walk.

    Returns
    -------
    bool
        False if something is not what was described: another number of elements, dtype, layout or
        variant, arrays that reach into one another now, numbers that the loops cannot take.
    """
    cdef Rows rows
    cdef bint first, moved = written.n == 0
    for rows in tables:
        if not (
            rows.can_take(coefficients)
            and rows.same_variants(coefficients)
            and rows.read(convert)
        ):
            return False
        moved |= rows.moved
    if moved:
        first = written.n == 0
        written.n = 0
        for rows in tables:
            rows.note_written(written)
        if not written.sort() and not (loose and first) or (loose and not first):
            # whoever is in the way is named where they are described
            written.n = 0
            return False
    for rows in tables:
        rows.untangle(written, convert)
    return True


def reaches(Written written, list arrays, list more):
    """Tell whether one of NumPy's arrays reaches into what is written, or into one of some more."""
    cdef object array, other
    cdef Written others = None
    if more:
        others = Written()
        for other in more:
            if cnp.PyArray_Check(other):
                others.add(other)
        others.sort()
    for array in arrays:
        if cnp.PyArray_Check(array) and (
            written.has_part(array) or (others is not None and others.has_part(array))
        ):
            return True
    return False


def run(list tables, list n_threads, list coefficients, bint serial):
    """Make the step on all dense rows, with coefficients that are each rounded once."""
    cdef Py_ssize_t i
    for i in range(len(tables)):
        (<Rows> tables[i]).run(coefficients, n_threads[i], serial)


def commit(Source source, dict owner, dict noted, list unscaled):
    """Store what belongs to the step that has been made.

    The source commits, the entries `owner` become those `noted`, and the loss scale of the
    parameters `unscaled` None. What they were goes last of all. All in C, so that neither Ctrl-C
    nor a finalizer comes in between.
    """
    cdef list before = [owner.get(name) for name in noted]
    cdef object name, value
    source.hold()
    store(source, owner, noted, unscaled)
    source.release()
    before.clear()


cdef int store(Source source, dict owner, dict noted, list unscaled) except -1:
    """Store it all."""
    cdef object name, value, param
    source.commit()
    for name, value in noted.items():
        PyDict_SetItem(owner, name, value)
    for param in unscaled:
        PyObject_GenericSetAttr(param, "_loss_scale", None)
    return 0


def step_and_commit(
    list tables,
    list n_threads,
    list coefficients,
    bint serial,
    Source source,
    dict owner,
    dict noted,
    list unscaled,
):
    """Make the step that was refreshed, and commit it, with nothing in between."""
    cdef Py_ssize_t i
    cdef list before = [owner.get(name) for name in noted]
    source.hold()
    for i in range(len(tables)):
        (<Rows> tables[i]).run(coefficients, n_threads[i], serial)
    store(source, owner, noted, unscaled)
    source.release()
    before.clear()
