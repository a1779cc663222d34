"""The rows of a table that is kept: read from their owner, in C.

What was described is read again before every step. Arrays of the same size, dtype and layout may
lie elsewhere; gradients may be anything that can be converted. Whatever else has changed makes the
table stale.
"""

cimport numpy as cnp
from cpython.ref cimport PyObject

from fastadam.kernels._source cimport Found, Source
from fastadam.kernels.cpu._layout cimport (
    convertible,
    dense,
    gradient,
    half_pointer,
    has_loop,
    masked,
    pointer,
    same_shape,
    stored,
    streams,
)
from fastadam.kernels.cpu._steps cimport Steps
from fastadam.kernels.cpu._tensors cimport (
    COMPUTING, N_STREAMS, N_WALKED, WALKED_G, WIDE, Tensor, Walk,
)
from fastadam.kernels.cpu._walks cimport Room, find_walk
from fastadam.kernels.cpu._written cimport Written

cnp.import_array()

# What is held of each row, in this order; the arrays of the streams are the last.
cdef enum:
    PARAMETER
    HALF
    GRADIENT
    STATE
    N_HELD = STATE + N_STREAMS


cdef bint writable(cnp.ndarray array) noexcept:
    """Whether an array's elements may be written, in whatever layout they are."""
    return (
        cnp.PyArray_ISWRITEABLE(array)
        and cnp.PyArray_ISNOTSWAPPED(array)
        and not masked(array)
    )


cdef inline size_t sizes_of(Py_ssize_t g_type, bint single) noexcept:
    """Bytes of an element of a gradient."""
    if g_type == WIDE:
        return 8
    if g_type != COMPUTING:
        return 2
    return 4 if single else 8


cdef class Rows(Steps):
    """The rows of steps that are computed in one dtype, read from their owner.

    Parameters
    ----------
    source, table, coefficients, sets, loop
        As for `Steps`.
    indices : list of int
        Which of the source's parameters these are.
    strided : list of int
        The rows whose arrays share no dense layout.
    bfloat16 : int
        As for `describe`.
    """

    def __init__(
        self,
        Source source,
        list indices,
        Tensor[::1] table,
        cnp.ndarray coefficients,
        list sets,
        object loop,
        list strided,
        int bfloat16,
    ):
        cdef Py_ssize_t i
        super().__init__(source, table, coefficients, sets, loop)
        self.indices = indices
        self.bfloat16 = bfloat16
        self.held = [None] * (N_HELD * len(indices))
        self.replaced = []
        self.numbers = [-1] * len(indices)
        self.sizes = [table[i].n for i in range(len(indices))]
        self.rooms = [None] * len(indices)
        self.strided = [False] * len(indices)
        for i in strided:
            self.strided[i] = True

    def __reduce__(self):
        raise TypeError("addresses cannot be copied")

    def __len__(self):
        return len(self.indices)

    cdef bint hold(self, Py_ssize_t i, Py_ssize_t which, PyObject* found) except -1:
        """Keep an array alive while its address is in use; whether it is another than before."""
        cdef Py_ssize_t place = N_HELD * i + which
        cdef object array = None if found == NULL else <object> found
        if self.held[place] is array:
            return False
        if self.held[place] is not None:
            # its end may run anybody's code, which is not to come while others are read
            self.replaced.append(self.held[place])
        self.held[place] = array
        return True

    cdef bint read(self, object convert, bint by_address) except -1:
        """Read all rows from their owner; False if one of them is stale.

        Addresses are taken in the place of arrays where they may be, and rows have been described.
        """
        cdef Py_ssize_t i, start = 0
        cdef Found found
        cdef Tensor* row
        self.moved = self.converted = self.low_precision = False
        self.without = []
        self.to_round = []
        self.source.may_give_addresses = by_address and self.begun
        self.by_address = found.by_address = False
        for i in range(len(self.indices)):
            if not self.source.read(<Py_ssize_t> self.indices[i], &found):
                return False
            row = &self.table[i]
            row.start = start
            if self.source.regroups:
                row.row = found.scalars
            if self.strided[i]:
                if not self.read_strided(i, &found, convert):
                    return False
            elif found.by_address:
                self.take_addresses(i, row, &found)
            elif not self.read_row(i, row, &found, convert):
                return False
            if found.g == NULL and not (found.by_address and found.g_at):
                self.without.append(i)
            start += row.n
        self.total = start
        self.begun = True
        return True

    cdef int take_addresses(self, Py_ssize_t i, Tensor* row, Found* found) except -1:
        """One row whose owner has seen that the memory is such as was described."""
        cdef size_t* state = streams(row)
        cdef Py_ssize_t k
        if found.p_at != row.p:
            self.moved = True
            row.p = found.p_at
            self.hold(i, PARAMETER, found.p)
        if found.half_at != row.half:
            self.moved = True
            row.half = found.half_at
            self.hold(i, HALF, found.half)
        for k in range(N_STREAMS):
            if state[k] and found.state_at[k] != state[k]:
                self.moved = True
                state[k] = found.state_at[k]
                self.hold(i, STATE + k, found.state[k])
        row.n = self.sizes[i] if found.g_at else 0
        row.g, row.g_type, row.walk = found.g_at, found.g_type, 0
        self.held[N_HELD * i + GRADIENT] = None
        self.by_address = True
        self.note_type(row)
        return 0

    cdef void note_type(self, const Tensor* row) noexcept:
        """Note how the gradient of a row is stored."""
        # what is rounded block by block is as one that has been rounded before
        self.converted |= row.g_type == WIDE
        self.low_precision |= row.g_type not in (COMPUTING, WIDE)

    cdef bint read_row(
        self, Py_ssize_t i, Tensor* row, Found* found, object convert
    ) except -1:
        """One row, whose arrays are dense; its gradient may be anything."""
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
        row.walk = 0
        if found.g == NULL:
            row.n = 0
            return True
        row.n = self.sizes[i]
        self.hold(i, GRADIENT, found.g)
        row.g = gradient(row, <object> found.g, computing, self.bfloat16, p)
        if not row.g:
            if not convertible(<object> found.g, p, self.bfloat16):
                return False
            self.converted = True
            self.take_gradient(i, <object> found.g, convert)
        self.note_type(row)
        return True

    cdef int take_gradient(self, Py_ssize_t i, object grad, object convert) except -1:
        """Hold a gradient in any layout, converted if there is no loop for it, and walk to it."""
        cdef int computing = cnp.NPY_FLOAT32 if self.single else cnp.NPY_FLOAT64
        if not (
            has_loop(&self.table[i], grad, computing, self.bfloat16)
            and cnp.PyArray_ISNOTSWAPPED(<cnp.ndarray> grad)
        ):
            grad = convert(self.held[N_HELD * i], grad)
            has_loop(&self.table[i], grad, computing, self.bfloat16)
        self.held[N_HELD * i + GRADIENT] = grad
        self.walk(i)
        return 0

    cdef int walk(self, Py_ssize_t i) except -1:
        """Find out how the arrays that are held of a row are walked."""
        cdef Tensor* row = &self.table[i]
        cdef PyObject* arrays[N_WALKED]
        cdef size_t* places = &row.p
        cdef object array
        cdef Py_ssize_t k
        for k in range(N_WALKED):
            # p and g stand around the half-precision parameter
            array = self.held[N_HELD * i + (k if k == PARAMETER else k + 1)]
            arrays[k] = NULL if array is None else <PyObject*> array
            places[k] = 0 if array is None else <size_t> cnp.PyArray_DATA(<cnp.ndarray> array)
        if self.rooms[i] is None:
            self.rooms[i] = Room()
        row.walk = 0
        if find_walk(&(<Room> self.rooms[i]).walk, arrays):
            row.walk = <size_t> &(<Room> self.rooms[i]).walk
        return 0

    cdef bint read_strided(self, Py_ssize_t i, Found* found, object convert) except -1:
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
        if not self.can_be_written(i, found):
            return False
        self.held[N_HELD * i + GRADIENT] = None
        self.table[i].n = 0
        if found.half != NULL:
            self.to_round.append((<object> found.half, <object> found.p))
        if found.g == NULL:
            return True
        if not (
            cnp.PyArray_Check(<object> found.p)
            and convertible(<object> found.g, <object> found.p, self.bfloat16)
        ):
            return False
        self.table[i].n = cnp.PyArray_SIZE(<cnp.ndarray> <object> found.p)
        self.take_gradient(i, <object> found.g, convert)
        return True

    cdef bint can_be_written(self, Py_ssize_t i, Found* found) except -1:
        """Whether the arrays of a strided row are still such as were described."""
        cdef Py_ssize_t k
        cdef int number
        cdef cnp.ndarray p
        if not cnp.PyArray_Check(<object> found.p):
            return False
        p = <cnp.ndarray> <object> found.p
        number = cnp.PyArray_TYPE(p)
        if self.numbers[i] == -1:
            self.numbers[i] = number
        if number != <int> self.numbers[i] or not writable(p):
            return False
        number = cnp.NPY_FLOAT32 if self.single else cnp.NPY_FLOAT64
        for k in range(N_STREAMS):
            if found.state[k] == NULL:
                continue
            if not (
                cnp.PyArray_Check(<object> found.state[k])
                and cnp.PyArray_TYPE(<cnp.ndarray> <object> found.state[k]) == number
                and writable(<cnp.ndarray> <object> found.state[k])
                and same_shape(<cnp.ndarray> <object> found.state[k], p)
            ):
                return False
        return True

    cdef int note_written(self, Written written) except -1:
        """Note all arrays that the rows write."""
        cdef Py_ssize_t i, k
        cdef object array
        for i in range(len(self.indices)):
            for k in range(N_HELD):
                array = self.held[N_HELD * i + k]
                if k != GRADIENT and array is not None:
                    written.add(array)
        return 0

    cdef bint is_tangled(self, Written written) noexcept:
        """Whether a gradient of which the address alone is known is part of what is written."""
        cdef Py_ssize_t i
        cdef size_t size
        if not self.by_address:
            return False
        for i in range(self.table.shape[0]):
            if self.table[i].n:
                size = sizes_of(self.table[i].g_type, self.single) * self.table[i].n
                if written.reaches(self.table[i].g, self.table[i].g + size):
                    return True
        return False

    cdef int untangle(self, Written written, object convert) except -1:
        """Read gradients that are part of what is written from copies."""
        cdef Py_ssize_t i
        cdef object grad
        for i in range(len(self.indices)):
            grad = self.held[N_HELD * i + GRADIENT]
            if grad is not None and written.has_part(grad):
                self.copy_gradient(i, convert)
        return 0

    def gather(self, convert):
        """Read gradients that lie apart from dense copies, of which sums can be made."""
        cdef Py_ssize_t i
        cdef const Walk* walk
        for i in range(len(self.indices)):
            walk = <const Walk*> self.table[i].walk
            if (
                self.held[N_HELD * i + GRADIENT] is not None
                and walk != NULL and walk.apart[WALKED_G]
            ):
                self.copy_gradient(i, convert)

    cdef int copy_gradient(self, Py_ssize_t i, object convert) except -1:
        """Read a gradient from a dense copy."""
        cdef Py_ssize_t first = N_HELD * i
        self.converted = True
        self.take_gradient(i, convert(self.held[first], self.held[first + GRADIENT]), convert)
        return 0

    def may_write(self):
        """Tell whether gradients may be written in place: owners' own, which share no memory."""
        cdef Py_ssize_t i
        cdef object grad
        cdef Written gradients = Written()
        if self.converted or self.by_address:
            return False
        for i in range(len(self.indices)):
            grad = self.held[N_HELD * i + GRADIENT]
            if grad is not None:
                if not cnp.PyArray_ISWRITEABLE(<cnp.ndarray> grad):
                    return False
                gradients.add(grad)
        return gradients.sort()

    def release(self):
        """Let the gradients go."""
        cdef Py_ssize_t i
        for i in range(len(self.indices)):
            self.held[N_HELD * i + GRADIENT] = None
        self.replaced = []
