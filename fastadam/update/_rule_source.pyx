"""Where C finds the arrays and counts of parameters with rules, and stores what a step makes."""

from cpython.dict cimport PyDict_GetItem, PyDict_SetItem
from cpython.long cimport PyLong_CheckExact
from cpython.ref cimport PyObject

from fastadam.kernels._source cimport Found, Source
from fastadam.kernels.cpu._tensors cimport N_STREAMS

cdef extern from "Python.h":
    # an object's dict, past the `__getattr__` of its class
    object PyObject_GenericGetDict(object obj, void* context)


cdef class RuleSource(Source):
    """Parameters and their rules, whose fields are in their dicts.

    Parameters
    ----------
    params, rules : list
        In the same order.
    attribute : str
        Where a parameter has its array.
    streams : list of tuple
        The keys in each rule's state, in the order of the algorithm's streams; None for one that
        the step does not use.
    states : list of dict
        What each state is in the next step.
    begun : list of bool
        Whether that becomes the rule's state by it.
    masters : list of Parameter or None
        The float32 masters that are stepped in the place of half-precision parameters.
    """

    cdef readonly list params, rules, ts
    cdef public list gradients
    cdef list dicts, streams, states, begun, masters, arrays, before, following, found
    cdef str attribute
    cdef bint beginning
    # whether somebody else makes the steps, so that counts and states are theirs to change
    cdef public bint of_others

    def __init__(
        self,
        list params,
        list rules,
        str attribute,
        list streams,
        list states,
        list begun,
        list masters,
    ):
        self.params, self.rules, self.attribute = params, rules, attribute
        self.streams, self.states, self.begun, self.masters = streams, states, begun, masters
        self.dicts = [PyObject_GenericGetDict(rule, NULL) for rule in rules]
        self.ts = [rule.t for rule in rules]
        self.gradients = [None] * len(params)
        self.arrays = [None] * (2 * len(params))
        self.before = []
        self.following = []
        self.beginning = True
        # what the states and masters were when they were described
        self.found = [(fields.get("_state"), fields.get("_fp32_param")) for fields in self.dicts]

    cdef bint read(self, Py_ssize_t k, Found* found) except -1:
        cdef dict fields = <dict> self.dicts[k]
        cdef PyObject* t = PyDict_GetItem(fields, "t")
        cdef PyObject* state
        cdef PyObject* master
        cdef object array
        cdef tuple keys
        cdef Py_ssize_t i
        if t == NULL:
            return False
        if self.of_others:
            if not PyLong_CheckExact(<object> t) or <object> t < 0:
                return False
        # the scalars of the step are of this t
        elif not (
            <object> t is self.ts[k] or (PyLong_CheckExact(<object> t) and <object> t == self.ts[k])
        ):
            return False
        array = getattr(self.params[k], self.attribute)
        self.arrays[2 * k] = array
        found.half = NULL
        if self.masters[k] is not None:
            found.half = <PyObject*> array
            if not self.beginning:
                master = PyDict_GetItem(fields, "_fp32_param")
                if master == NULL or <object> master is not self.masters[k]:
                    return False
            array = getattr(self.masters[k], self.attribute)
            self.arrays[2 * k + 1] = array
        found.p = <PyObject*> array
        state = PyDict_GetItem(fields, "_state")
        if self.beginning and not (self.of_others and state != NULL and <object> state is not None):
            if not self.is_as_found(k):
                return False
            state = <PyObject*> self.states[k]
        elif state == NULL or type(<object> state) is not dict:
            return False
        keys = <tuple> self.streams[k]
        for i in range(N_STREAMS):
            found.state[i] = NULL
            if keys[i] is not None:
                found.state[i] = PyDict_GetItem(<object> state, keys[i])
                if found.state[i] == NULL:
                    return False
        found.g = NULL if self.gradients[k] is None else <PyObject*> self.gradients[k]
        return True

    cdef bint is_as_found(self, Py_ssize_t k) except -1:
        """Whether nobody has given a rule another state or master since it was described."""
        cdef dict fields = <dict> self.dicts[k]
        state, master = self.found[k]
        return (
            self.of_others
            or (fields.get("_state") is state and fields.get("_fp32_param") is master)
        )

    cdef int hold(self) except -1:
        cdef Py_ssize_t k
        cdef object last = None, following = None
        self.following = []
        for k in range(len(self.ts)):
            # most rules have counted the same
            if self.ts[k] is not last:
                last = self.ts[k]
                following = last + 1
            self.following.append(following)
        self.before = []
        for k in range(len(self.ts)):
            self.before.append((<dict> self.dicts[k]).get("t"))
            if self.beginning:
                self.before.append((<dict> self.dicts[k]).get("_state"))
                self.before.append((<dict> self.dicts[k]).get("_fp32_param"))
        return 0

    cdef int commit(self) except -1:
        cdef Py_ssize_t k
        cdef dict fields
        for k in range(len(self.ts)):
            fields = <dict> self.dicts[k]
            PyDict_SetItem(fields, "t", self.following[k])
            if self.beginning:
                if self.begun[k]:
                    PyDict_SetItem(fields, "_state", self.states[k])
                if self.masters[k] is not None:
                    PyDict_SetItem(fields, "_fp32_param", self.masters[k])
        self.beginning = False
        self.ts = self.following
        return 0

    cdef int release(self) except -1:
        self.before.clear()
        self.states = []
        self.gradients = []
        return 0
