# Whether groups and states are what they were when a source was made: all by identity.
# For _tensors.pyx alone.


cdef bint same_groups(TensorSource self) except -1:
    """Whether the groups have the parameters that they had."""
    cdef Py_ssize_t k, i
    cdef list now, before
    if len(self.groups) != len(self.lists):
        return False
    for k in range(len(self.lists)):
        params = self.groups[k]["params"]
        now = <list> params if type(params) is list else list(params)
        before = <list> self.lists[k]
        if PyList_GET_SIZE(now) != PyList_GET_SIZE(before):
            return False
        for i in range(PyList_GET_SIZE(before)):
            if PyList_GET_ITEM(now, i) != PyList_GET_ITEM(before, i):
                return False
    return True


cdef bint same_states(TensorSource self) except -1:
    """Whether the parameters have the states that they had; no hash is computed for it."""
    cdef Py_ssize_t position = 0, found = 0, i = 0
    cdef PyObject* key
    cdef PyObject* value
    if not PyDict_Check(self.outer):
        for own_key, own_value in list(self.outer.items()):
            if not same_state(self, <PyObject*> own_key, <PyObject*> own_value, &i, &found):
                return False
        return found == self.n
    while PyDict_Next(self.outer, &position, &key, &value):
        if not same_state(self, key, value, &i, &found):
            return False
    return found == self.n


cdef bint same_state(
    TensorSource self, PyObject* key, PyObject* value, Py_ssize_t* at, Py_ssize_t* found
) except -1:
    """Whether one state is what it was; where it was found, and how many were."""
    cdef Py_ssize_t looked = 0, i = at[0]
    # in the order in which the states were made: look from where the last one was
    while looked < self.n and self.entries[i].p != key:
        i = i + 1 if i + 1 < self.n else 0
        looked += 1
    at[0] = i
    if looked == self.n:
        # whoever looks at a state that is not there makes an empty one
        if PyDict_Check(<object> value) and PyDict_Size(<object> value) == 0:
            return True
        return not is_parameter(self, key)
    if self.entries[i].state != value or not same_items(self, &self.entries[i]):
        return False
    found[0] += 1
    return True


cdef bint same_items(TensorSource self, Entry* entry) except -1:
    """Whether there is in a state what there was, in the same order."""
    cdef Py_ssize_t position = 0, i = 0
    cdef PyObject** item = self.items + 2 * entry.first_item
    cdef PyObject* key
    cdef PyObject* value
    cdef object own = <object> entry.state
    if type(own) is not dict:
        # in its own order, and as it gives them
        for own_key, own_value in list(own.items()):
            if i == entry.n_items or not (
                <PyObject*> own_key == item[2 * i] and <PyObject*> own_value == item[2 * i + 1]
            ):
                return False
            i += 1
        return i == entry.n_items
    while PyDict_Next(own, &position, &key, &value):
        if i == entry.n_items or key != item[2 * i] or value != item[2 * i + 1]:
            return False
        i += 1
    return i == entry.n_items


cdef bint is_parameter(TensorSource self, PyObject* key) except -1:
    """Whether a key of the states is one of the parameters that had no state."""
    cdef Py_ssize_t i
    for i in range(PyList_GET_SIZE(self.stateless)):
        if PyList_GET_ITEM(self.stateless, i) == key:
            return True
    return False
