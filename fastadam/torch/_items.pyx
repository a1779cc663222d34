"""What groups of parameters hold, and whether they hold that still: by identity, in C."""

from cpython.dict cimport PyDict_Next
from cpython.list cimport PyList_GET_ITEM, PyList_GET_SIZE
from cpython.ref cimport PyObject


cdef class Items:
    """What a dict holds, to be compared by identity with what it will hold.

    Parameters
    ----------
    found : dict
        The dict, or another mapping; its keys and values are kept.
    """

    cdef object found
    cdef list keys, values

    def __init__(self, object found):
        cdef list items = list(found.items())
        self.found = found
        self.keys, self.values = [key for key, _ in items], [value for _, value in items]

    def __reduce__(self):
        raise TypeError("what is compared by identity cannot be copied")

    def same(self):
        """Tell whether it has these keys and values, in this order."""
        cdef Py_ssize_t position = 0, i = 0
        cdef PyObject* key
        cdef PyObject* value
        if type(self.found) is not dict:
            # in its own order, and as it gives them
            return self.same_as(list(self.found.items()))
        while PyDict_Next(self.found, &position, &key, &value):
            if (
                i == PyList_GET_SIZE(self.keys)
                or key != PyList_GET_ITEM(self.keys, i)
                or value != PyList_GET_ITEM(self.values, i)
            ):
                return False
            i += 1
        return i == PyList_GET_SIZE(self.keys)

    cdef bint same_as(self, list items) except -1:
        """Whether these are the keys and values."""
        if len(items) != len(self.keys):
            return False
        for (key, value), own_key, own_value in zip(items, self.keys, self.values, strict=True):
            if key is not own_key or value is not own_value:
                return False
        return True


def all_same(object groups, list items):
    """Tell whether groups hold what was noted of each; None notes nothing, and is never the same.

    Parameters
    ----------
    groups : sequence of dict
        The groups.
    items : list of Items or None
        What was noted.
    """
    cdef Py_ssize_t i
    if len(groups) != len(items):
        return False
    for i in range(len(groups)):
        noted = items[i]
        if noted is None or (<Items> noted).found is not groups[i] or not (<Items> noted).same():
            return False
    return True
