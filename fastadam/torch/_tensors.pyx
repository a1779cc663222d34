"""Where C finds the arrays and counts of PyTorch's tensors, and stores what a step makes."""

cimport numpy as cnp
from cpython.dict cimport PyDict_Check, PyDict_Next, PyDict_Size
from cpython.list cimport PyList_GET_ITEM, PyList_GET_SIZE
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from cpython.ref cimport PyObject

from fastadam.kernels._source cimport Found, Source
from fastadam.kernels.cpu._tensors cimport COMPUTING, N_STREAMS
from fastadam.torch._reading cimport Reader, fetch_object
from fastadam.torch._views cimport (
    FLOAT32_KIND,
    FLOAT64_KIND,
    ON_CPU,
    View,
    bytes_of,
    same_layout,
    same_order,
    same_shape,
    stored,
)

from fastadam.torch.tensors import named

cnp.import_array()

# The arrays of a parameter: what is stepped, its streams, and the half-precision parameter that it
# is the master of.
cdef enum:
    STEPPED
    STREAM
    HALF = STREAM + N_STREAMS
    N_ARRAYS
    PARAMETER = N_ARRAYS
    N_VIEWS


# One parameter that has a state, as it was when the plan was made. All is held by the source.
cdef struct Entry:
    PyObject* p
    PyObject* state
    PyObject* step
    PyObject* tensors[N_ARRAYS]     # NULL for what is not there, or is stepped by a copy
    int kinds[N_ARRAYS]
    size_t at[N_ARRAYS]
    size_t copied         # where the parameter lies that a dense copy is stepped for, or 0
    View* on_gpu          # of what is on a GPU, the arrays as they lie and the parameter; else NULL
    double* t64
    float* t32
    int group
    Py_ssize_t first_item, n_items
    Py_ssize_t scalars


cdef class TensorSource(Source):
    """The tensors of an optimizer's groups, their states and counts.

    Parameters
    ----------
    reader : Reader
        Reads tensors.
    groups : sequence of dict
        The optimizer's groups.
    state : dict
        The optimizer's states.
    entries : list of tuple
        Of every parameter with a state: the parameter, its group's number, its state, and of what
        is stepped, of the streams, and of the half-precision parameter that it is the master of,
        each the tensor and its array; None for what there is not. The tensor of a dense copy is
        None.

    Raises
    ------
    TypeError, RuntimeError
        If one of these is no tensor, or has no memory.
    """

    cdef Reader reader
    cdef list lists, arrays, grads, kept, others, stateless
    cdef object groups, outer
    cdef Entry* entries
    cdef PyObject** items           # keys and values of all states
    cdef Py_ssize_t n
    # the tensors that a step of each parameter writes, and those of all
    cdef list written, all_written
    # arrays over gradients that were not read by address
    cdef list shown
    # places of the parameters without a gradient, as `begin` has found them
    cdef readonly list absent
    # arrays of gradients that are not read as they are, by their places
    cdef public dict replaced
    # the gradients of a CUDA graph, which stand for those that the parameters have now, or None
    cdef public list captured

    def __cinit__(self):
        self.entries = NULL
        self.items = NULL

    def __init__(self, Reader reader, object groups, object state, list entries):
        cdef Py_ssize_t i, k, n_items = 0
        cdef Entry* entry
        cdef View view, own_view
        cdef list items = [list(row[2].items()) for row in entries]
        self.reader, self.groups, self.outer = reader, groups, state
        self.lists = [list(group["params"]) for group in groups]
        self.n = self.regroups = len(entries)
        self.entries = <Entry*> PyMem_Calloc(max(self.n, 1), sizeof(Entry))
        n_items = sum([len(each) for each in items])
        self.items = <PyObject**> PyMem_Calloc(max(2 * n_items, 1), sizeof(PyObject*))
        if self.entries == NULL or self.items == NULL:
            raise MemoryError
        self.arrays, self.kept, self.shown, self.absent = [], [], [], []
        self.written, self.all_written = [], []
        self.grads = [None] * self.n
        self.replaced = {}
        n_items = 0
        for i in range(self.n):
            entry = &self.entries[i]
            p, group, own, pairs = entries[i]
            entry.p, entry.group, entry.state = <PyObject*> p, group, <PyObject*> own
            step = own["step"]
            if not (reader.is_tensor(entry.p) and isinstance(step, reader.tensor)):
                raise TypeError(f"parameter {self.name_of(i, entries)!r} or its step is no tensor")
            entry.step = <PyObject*> step
            if not reader.read_anywhere(entry.p, &own_view):
                raise RuntimeError(self.without_memory(i, p, entries))
            if own_view.device != ON_CPU:
                entry.on_gpu = <View*> PyMem_Calloc(N_VIEWS, sizeof(View))
                if entry.on_gpu == NULL:
                    raise MemoryError
                entry.on_gpu[PARAMETER] = own_view
            for k in range(N_ARRAYS):
                tensor, array = pairs[k]
                if array is not None and entry.on_gpu == NULL:
                    entry.at[k] = <size_t> cnp.PyArray_DATA(<cnp.ndarray> array)
                if tensor is None:
                    continue
                entry.tensors[k] = <PyObject*> tensor
                if not reader.read_anywhere(entry.tensors[k], &view):
                    raise RuntimeError(self.without_memory(i, tensor, entries))
                entry.kinds[k] = view.kind
                if entry.on_gpu != NULL:
                    entry.on_gpu[k] = view
            if entry.tensors[STEPPED] == NULL or (
                pairs[HALF][1] is not None and entry.tensors[HALF] == NULL
            ):
                entry.copied = own_view.data
            if entry.tensors[STEPPED] == NULL:
                entry.kinds[STEPPED] = own_view.kind
            self.arrays.append([array for _, array in pairs])
            # a state's tensors are held beside it: an id must not be given to another one
            self.kept.append((p, own, step, items[i], pairs))
            self.written.append(
                [p, *[tensor for tensor, _ in pairs if tensor is not None and tensor is not p]]
            )
            self.all_written += self.written[i]
            entry.first_item, entry.n_items = n_items, len(items[i])
            for key, value in items[i]:
                self.items[2 * n_items] = <PyObject*> key
                self.items[2 * n_items + 1] = <PyObject*> value
                n_items += 1
        taken = {id(row[0]) for row in entries}
        self.others = [p for each in self.lists for p in each if id(p) not in taken]
        self.stateless = [p for p in self.others if not state.get(p)]

    cdef object name_of(self, Py_ssize_t i, list entries):
        """What the parameter of an entry is called in messages."""
        p, number = entries[i][:2]
        return named(self.groups, number, [id(each) for each in self.lists[number]].index(id(p)))

    cdef object without_memory(self, Py_ssize_t i, object tensor, list entries):
        """Say that the memory of a tensor, of the parameter of an entry, cannot be stepped."""
        of_state = [f"{key} of " for key, value in entries[i][2].items() if value is tensor]
        return (
            f"{''.join(of_state[:1])}parameter {self.name_of(i, entries)!r} has no memory of its "
            f"{tuple(tensor.shape)} elements, which can be written: its storage was resized, or "
            "its zeros only stand for numbers; step a clone"
        )

    def __dealloc__(self):
        cdef Py_ssize_t i
        if self.entries != NULL:
            for i in range(self.n):
                PyMem_Free(self.entries[i].on_gpu)
        PyMem_Free(self.entries)
        PyMem_Free(self.items)

    def __reduce__(self):
        raise TypeError("addresses cannot be copied")

    def begin(self):
        """Look at groups, states, gradients and counts.

        Returns
        -------
        list of tuple of int or None
            Group and number of the step, once for each pair that there is; None if parameters or
            states are others than those that were described.
        """
        cdef Py_ssize_t i
        cdef Entry* entry
        cdef View view
        cdef object grad
        cdef int group = -1
        cdef double t, last_t = -1
        cdef Py_ssize_t number = -1
        cdef list sets = []
        cdef dict numbers = {}
        if not (same_groups(self) and same_states(self)):
            return None
        if self.captured is None:
            for i in range(len(self.others)):
                if self.reader.gradient(<PyObject*> self.others[i]) is not None:
                    return None
        self.shown, self.absent = [], []
        for i in range(self.n):
            if self.reader.ahead:
                fetch_parameters(self, i)
            entry = &self.entries[i]
            if self.captured is None:
                grad = self.reader.gradient(entry.p)
            else:
                grad = self.captured[i]
            self.grads[i] = grad
            entry.scalars = 0
            if grad is None:
                self.absent.append(i)
                continue
            if not self.count(entry):
                return None
            if entry.copied and not self.reader.read_anywhere(entry.p, &view):
                # it would be copied
                return None
            t = (entry.t64[0] if entry.t64 != NULL else entry.t32[0]) + 1
            if entry.group != group or t != last_t:
                group, last_t = entry.group, t
                key = group, int(t)
                number = numbers.setdefault(key, len(numbers))
                if number == len(sets):
                    sets.append(key)
            entry.scalars = number
        return sets

    def numbers(self):
        """Return which of the sets that `begin` has returned each parameter's is."""
        cdef Py_ssize_t i
        return [self.entries[i].scalars for i in range(self.n)]

    cdef bint count(self, Entry* entry) except -1:
        """Find where a parameter's steps are counted; False if that is no number here."""
        cdef View view
        cdef int axis
        entry.t32 = NULL
        entry.t64 = NULL
        if not self.reader.read(entry.step, &view):
            return False
        for axis in range(view.ndim):
            if view.shape[axis] != 1:
                return False
        if view.kind == FLOAT32_KIND:
            entry.t32 = <float*> view.data
        elif view.kind == FLOAT64_KIND:
            entry.t64 = <double*> view.data
        return view.kind == FLOAT32_KIND or view.kind == FLOAT64_KIND

    cdef bint read(self, Py_ssize_t k, Found* found) except -1:
        cdef Entry* entry = &self.entries[k]
        cdef list arrays = <list> self.arrays[k]
        cdef PyObject* grad = PyList_GET_ITEM(self.grads, k)
        cdef Py_ssize_t i
        cdef View view
        if self.reader.ahead:
            fetch_tensors(self, k)
        if entry.on_gpu != NULL:
            return read_on_gpu(self, k, entry, grad, found)
        if grad != <PyObject*> None:
            if entry.copied and not (
                self.reader.read(entry.p, &view) and view.data == entry.copied
                and same_shape(&view, arrays[STEPPED])
            ):
                return False
            for i in range(N_ARRAYS):
                if entry.tensors[i] != NULL and not self.take(entry, i, arrays):
                    return False
        found.scalars = entry.scalars
        found.p = <PyObject*> arrays[STEPPED]
        found.half = NULL if arrays[HALF] is None else <PyObject*> arrays[HALF]
        found.p_at, found.half_at = entry.at[STEPPED], entry.at[HALF]
        for i in range(N_STREAMS):
            found.state[i] = NULL if arrays[STREAM + i] is None else <PyObject*> arrays[STREAM + i]
            found.state_at[i] = entry.at[STREAM + i]
        found.by_address = self.may_give_addresses
        found.g, found.g_at, found.g_type = NULL, 0, COMPUTING
        if grad == <PyObject*> None:
            return True
        return self.read_gradient(k, grad, entry.kinds[STEPPED], arrays[STEPPED], found)

    cdef bint read_gradient(
        self, Py_ssize_t k, PyObject* grad, int kind, cnp.ndarray p, Found* found
    ) except -1:
        """Read a gradient: where it lies, or an array; False if it can be read in neither way."""
        cdef View view
        cdef bint as_p
        if k in self.replaced:
            array = self.replaced[k]
        elif not self.reader.read(grad, &view):
            array = self.reader.zeros_of(<object> grad)
            if array is None:
                return False
        else:
            if self.reader.is_odd(<object> grad, &view):
                return False
            as_p = same_shape(&view, p) and same_order(&view, p)
            found.g_type = stored(view.kind, kind)
            as_p = as_p and view.data % bytes_of(view.kind) == 0
            if found.by_address and as_p and found.g_type >= 0:
                found.g_at = view.data
                return True
            array = self.reader.array(&view, <object> grad)
        found.by_address = False
        # held until the step has been made
        self.shown.append(array)
        found.g = <PyObject*> array
        return True

    cdef bint take(self, Entry* entry, Py_ssize_t i, list arrays) except -1:
        """Take over where a tensor lies now; False if it is not what it was."""
        cdef View view
        cdef cnp.ndarray array = <cnp.ndarray> arrays[i]
        if not (
            self.reader.read(entry.tensors[i], &view)
            and view.kind == entry.kinds[i]
            and same_shape(&view, array)
            and same_order(&view, array)
        ):
            return False
        if view.data != entry.at[i]:
            if view.data % bytes_of(view.kind) or self.reader.is_turned(
                <object> entry.tensors[i], view.pairs
            ):
                return False
            arrays[i] = self.reader.array(&view, <object> entry.tensors[i])
            entry.at[i] = view.data
        return True

    cdef int commit(self) except -1:
        cdef Py_ssize_t i
        cdef Entry* entry
        for i in range(self.n):
            entry = &self.entries[i]
            if PyList_GET_ITEM(self.grads, i) == <PyObject*> None:
                continue
            if entry.t64 != NULL:
                entry.t64[0] += 1
            else:
                entry.t32[0] += 1
        return 0

    cdef int release(self) except -1:
        cdef Py_ssize_t i
        cdef list written = self.all_written
        if self.absent:
            written = []
            for i in range(self.n):
                if PyList_GET_ITEM(self.grads, i) != <PyObject*> None:
                    written += <list> self.written[i]
        # else autograd would not know that what it has kept of them is no longer so
        self.reader.raise_versions(written)
        self.let_go()
        return 0

    def let_go(self):
        """Let gradients go that were read for a step."""
        self.shown = []
        self.grads = [None] * self.n
        self.replaced, self.captured = {}, None


include "_unchanged.pxi"
include "_fetching.pxi"
include "_rows_on_gpu.pxi"
