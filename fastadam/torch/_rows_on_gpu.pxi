# How a parameter on a GPU is read: its arrays stay those that were described, or all is described
# anew. For _tensors.pyx alone.


cdef bint read_on_gpu(
    TensorSource self, Py_ssize_t k, Entry* entry, PyObject* grad, Found* found
) except -1:
    """Read what is on a GPU; False if anything but the gradient lies elsewhere now."""
    cdef list arrays = <list> self.arrays[k]
    cdef Py_ssize_t i
    cdef View view
    for i in range(N_ARRAYS):
        if entry.tensors[i] != NULL and not lies(self, entry.tensors[i], &entry.on_gpu[i]):
            return False
    if entry.copied and not lies(self, entry.p, &entry.on_gpu[PARAMETER]):
        return False
    found.scalars = entry.scalars
    found.p = <PyObject*> arrays[STEPPED]
    found.half = NULL if arrays[HALF] is None else <PyObject*> arrays[HALF]
    for i in range(N_STREAMS):
        found.state[i] = NULL if arrays[STREAM + i] is None else <PyObject*> arrays[STREAM + i]
    found.by_address, found.g = False, NULL
    if grad == <PyObject*> None:
        return True
    if k in self.replaced:
        array = self.replaced[k]
    elif (
        not self.reader.read_anywhere(grad, &view)
        # as the first moment does, of which there is one beside a copied parameter, too
        or not same_layout(&view, &entry.on_gpu[STREAM])
        or self.reader.is_odd(<object> grad, &view)
    ):
        return False
    else:
        array = self.reader.array(&view, <object> grad)
    # held until the step has been launched
    self.shown.append(array)
    found.g = <PyObject*> array
    return True


cdef bint lies(TensorSource self, PyObject* tensor, const View* before) except -1:
    """Whether a tensor on a GPU lies where it lay."""
    cdef View view
    return (
        self.reader.read_anywhere(tensor, &view)
        and view.data == before.data
        and view.kind == before.kind
        and same_layout(&view, before)
    )
