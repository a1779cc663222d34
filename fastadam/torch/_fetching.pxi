# What of the next parameters is fetched into the cache ahead, since memory takes longer to answer
# than the rest of the work. For _tensors.pyx alone.

# How many parameters ahead each of the three is fetched into the cache.
cdef enum:
    OBJECTS_AHEAD = 9
    TENSORS_AHEAD = 6
    STORAGES_AHEAD = 3


cdef void fetch_parameters(TensorSource self, Py_ssize_t i) noexcept:
    """Have the parameters after number i, and their counts, fetched into the cache."""
    cdef Entry* entry
    if i + OBJECTS_AHEAD < self.n:
        entry = &self.entries[i + OBJECTS_AHEAD]
        fetch_object(entry.p)
        fetch_object(entry.step)
    if i + TENSORS_AHEAD < self.n:
        entry = &self.entries[i + TENSORS_AHEAD]
        self.reader.fetch_tensor(entry.p)
        self.reader.fetch_tensor(entry.step)
    if i + STORAGES_AHEAD < self.n:
        self.reader.fetch_storage(self.entries[i + STORAGES_AHEAD].step)


cdef void fetch_tensors(TensorSource self, Py_ssize_t i) noexcept:
    """Have what is read of the parameters after number i fetched into the cache."""
    cdef Py_ssize_t k
    cdef PyObject* grad
    for k in range(STEPPED, HALF + 1):
        if i + OBJECTS_AHEAD < self.n and self.entries[i + OBJECTS_AHEAD].tensors[k] != NULL:
            fetch_object(self.entries[i + OBJECTS_AHEAD].tensors[k])
        if i + TENSORS_AHEAD < self.n and self.entries[i + TENSORS_AHEAD].tensors[k] != NULL:
            self.reader.fetch_tensor(self.entries[i + TENSORS_AHEAD].tensors[k])
        if i + STORAGES_AHEAD < self.n and self.entries[i + STORAGES_AHEAD].tensors[k] != NULL:
            self.reader.fetch_storage(self.entries[i + STORAGES_AHEAD].tensors[k])
    if i + TENSORS_AHEAD < self.n:
        grad = PyList_GET_ITEM(self.grads, i + TENSORS_AHEAD)
        if grad != <PyObject*> None:
            self.reader.fetch_tensor(grad)
    if i + STORAGES_AHEAD < self.n:
        grad = PyList_GET_ITEM(self.grads, i + STORAGES_AHEAD)
        if grad != <PyObject*> None:
            self.reader.fetch_storage(grad)
