"""The tree of a target: dicts and lists of arrays, looked at again and matched with gradients in C.

Nobody has to say that something has changed. Keys and values are compared by identity, and keys
never looked up: comparing runs nobody's ``__eq__``. Dicts and lists are walked where they are; of
subclasses, which may have ways of their own, the items are asked for once. All that is compared is
kept alive, so that no other object can have its address. No function of Python's is called for a
part of a tree, unless a user's class has one.
"""

cimport cython
cimport numpy as cnp
from cpython.dict cimport PyDict_GetItemWithError, PyDict_Next, PyDict_SetItem, PyDict_Size
from cpython.object cimport PyObject_GenericSetAttr
from cpython.ref cimport PyObject

from collections.abc import Mapping

cnp.import_array()

# What a tree is found to be, the more different the greater.
cpdef enum:
    SAME
    MOVED      # other arrays are in the place of arrays, like them in all but their numbers
    CHANGED

# How many dicts and lists there may be in one another: far below what calls in C have room for.
cpdef enum:
    DEEPEST = 200


@cython.internal
@cython.auto_pickle(False)
cdef class Node:
    """One dict, list or tuple: what it holds, and which of the tree's leaves are in it."""

    cdef object container
    cdef bint exact             # no subclass: it may be walked where it is
    cdef tuple keys             # of a dict; None otherwise
    cdef list values
    cdef list nodes             # beside the values: a Node, or None for an array
    cdef bint flat
    cdef Py_ssize_t first, end  # leaves


cdef Node noted(object container, list arrays, int above):
    """Note a dict or list that stands within so many others; its arrays are appended."""
    cdef Node node
    if above == DEEPEST:
        raise ValueError(f"the target is nested deeper than {DEEPEST} dicts and lists")
    node = Node.__new__(Node)
    kind = type(container)
    node.container = container
    node.exact = kind is dict or kind is list or kind is tuple
    if isinstance(container, dict):
        items = list(container.items())
        node.keys = tuple([key for key, _ in items])
        node.values = [value for _, value in items]
    else:
        node.values = list(container)
    node.nodes = []
    node.flat = True
    node.first = len(arrays)
    for value in node.values:
        if isinstance(value, (dict, list, tuple)):
            node.nodes.append(noted(value, arrays, above + 1))
            node.flat = False
        else:
            node.nodes.append(None)
            arrays.append(value)
    node.end = len(arrays)
    return node


cdef bint alike(object new, object old) noexcept:
    """Whether an array may take another's place, with its state: its elements lie as the other's.

    A masked array, or one of a class of its own, may not. Nor may an empty one: it has no memory by
    which it could be told whether it is there twice.
    """
    cdef cnp.ndarray a, b
    cdef int axis
    if not (cnp.PyArray_CheckExact(new) and cnp.PyArray_CheckExact(old)):
        return False
    a, b = <cnp.ndarray> new, <cnp.ndarray> old
    if cnp.PyArray_NDIM(a) != cnp.PyArray_NDIM(b) or cnp.PyArray_SIZE(a) == 0:
        return False
    for axis in range(cnp.PyArray_NDIM(a)):
        if cnp.PyArray_DIM(a, axis) != cnp.PyArray_DIM(b, axis):
            return False
        # nobody steps along an axis of one element
        if cnp.PyArray_DIM(a, axis) > 1 and cnp.PyArray_STRIDE(a, axis) != cnp.PyArray_STRIDE(
            b, axis
        ):
            return False
    return (
        cnp.PyArray_EquivArrTypes(a, b)
        and cnp.PyArray_ISBEHAVED(a) == cnp.PyArray_ISBEHAVED(b)
    )


cdef int compared(Node node, Py_ssize_t i, object value) noexcept:
    """What there is in the place of one value."""
    if value is node.values[i]:
        return SAME
    if node.nodes[i] is None and alike(value, node.values[i]):
        return MOVED
    return CHANGED


cdef int compare(Node node) except -1:
    """What a dict or list is, with all in it. Nothing is made while one is walked."""
    cdef Py_ssize_t i = 0, n = len(node.values), position = 0
    cdef PyObject* key
    cdef PyObject* value
    cdef int found, worst = SAME
    if not node.exact:
        worst = compare_items(node)
    elif node.keys is not None:
        if PyDict_Size(node.container) != n:
            return CHANGED
        while PyDict_Next(node.container, &position, &key, &value):
            if <object> key is not node.keys[i]:
                return CHANGED
            held = <object> value
            found = compared(node, i, held)
            worst = found if found > worst else worst
            i += 1
    elif type(node.container) is list:
        if len(<list> node.container) != n:
            return CHANGED
        for i in range(n):
            found = compared(node, i, (<list> node.container)[i])
            worst = found if found > worst else worst
    if node.flat or worst == CHANGED:
        return worst
    for child in node.nodes:
        if child is not None:
            found = compare(<Node> child)
            if found == CHANGED:
                return CHANGED
            worst = found if found > worst else worst
    return worst


cdef int compare_items(Node node) except -1:
    """What an instance of a subclass says that it holds."""
    cdef Py_ssize_t i
    cdef int found, worst = SAME
    cdef list items = list(node.container if node.keys is None else node.container.items())
    if len(items) != len(node.values):
        return CHANGED
    for i in range(len(items)):
        value = items[i]
        if node.keys is not None:
            key, value = value
            if key is not node.keys[i]:
                return CHANGED
        found = compared(node, i, value)
        worst = found if found > worst else worst
    return worst


cdef bint gather(Node node, list arrays) except -1:
    """Append the arrays that there are now; False if anything else is not as it was."""
    cdef Py_ssize_t i
    cdef list items = list(node.container if node.keys is None else node.container.items())
    if len(items) != len(node.values):
        return False
    for i in range(len(items)):
        value = items[i]
        if node.keys is not None:
            key, value = value
            if key is not node.keys[i]:
                return False
        if compared(node, i, value) == CHANGED:
            return False
        if node.nodes[i] is None:
            arrays.append(value)
        elif not gather(<Node> node.nodes[i], arrays):
            return False
    return True


cdef void replace(Node node, list arrays) noexcept:
    """Note the arrays that there are now; whoever calls keeps those of before."""
    cdef Py_ssize_t i, leaf = node.first
    for i in range(len(node.values)):
        child = node.nodes[i]
        if child is None:
            node.values[i] = arrays[leaf]
            leaf += 1
        else:
            replace(<Node> child, arrays)
            leaf = (<Node> child).end


cdef list values_of(Node node, object grads):
    """The values of gradients in the order of a dict or list; None if they are of another shape."""
    cdef Py_ssize_t i = 0, n = len(node.values), position = 0
    cdef PyObject* key
    cdef PyObject* value
    cdef list values
    if node.keys is None:
        if not isinstance(grads, (list, tuple)) or len(grads) != n:
            return None
        return list(grads) if type(grads) in (list, tuple) else [grads[i] for i in range(n)]
    if type(grads) is not dict:
        if not isinstance(grads, Mapping):
            return None
        for name in node.container:
            if name not in grads:
                return None
        for name in grads:
            if name not in node.container:
                return None
        return [grads[name] for name in node.keys]
    if PyDict_Size(grads) != n:
        return None
    values = [None] * n
    # as long as they come in the same order
    while PyDict_Next(grads, &position, &key, &value) and <object> key is node.keys[i]:
        values[i] = <object> value
        i += 1
    for i in range(i, n):
        value = PyDict_GetItemWithError(grads, node.keys[i])
        if value == NULL:
            return None
        values[i] = <object> value
    return values


cdef bint match(Node node, object grads, list found) except -1:
    """Append the gradients of a dict or list; False if they are of another shape."""
    cdef Py_ssize_t i
    cdef list values
    if grads is None:
        found += [None] * (node.end - node.first)
        return True
    values = values_of(node, grads)
    if values is None:
        return False
    if node.flat:
        found += values
        return True
    for i in range(len(values)):
        if node.nodes[i] is None:
            found.append(values[i])
        elif not match(<Node> node.nodes[i], values[i], found):
            return False
    return True


cdef class TreeSpec:
    """What a dict, list or tuple of arrays holds, by identity.

    Parameters
    ----------
    tree : dict, list, tuple or array
        A nesting without anything else in it.

    Raises
    ------
    ValueError
        If it is nested deeper than `DEEPEST`.
    """

    cdef Node root    # None if the tree is one array
    cdef list arrays

    def __init__(self, object tree):
        self.arrays = []
        if isinstance(tree, (dict, list, tuple)):
            self.root = noted(tree, self.arrays, 0)
        else:
            self.root = None
            self.arrays.append(tree)

    def __reduce__(self):
        raise TypeError("what is compared by identity cannot be copied")

    def compare(self):
        """Tell whether the tree is the `SAME`, has arrays that were `MOVED` in, or is `CHANGED`."""
        return SAME if self.root is None else compare(self.root)

    def moved(self):
        """Return the arrays that there are now; None if anything else is not as it was."""
        cdef list arrays = []
        if self.root is None:
            return list(self.arrays)
        return arrays if gather(self.root, arrays) else None

    def take(self, list arrays, dict parameters, dict held):
        """Take over what `moved` has found, all at once.

        Parameters
        ----------
        arrays : list of array
            One for every leaf.
        parameters : dict of str to Parameter
            One for every leaf, in their order: they get the arrays that are new.
        held : dict of str to array
            The arrays by the same paths, to be brought up to date.
        """
        cdef Py_ssize_t i
        cdef list old = self.arrays
        cdef list paths = list(parameters)
        cdef list params = list(parameters.values())
        # what is replaced goes when all is done: no finalizer runs in between
        cdef list before = [getattr(param, "_array") for param in params]
        if not len(old) == len(params) == len(held) == len(arrays):
            raise ValueError("there is not one parameter for every array")
        if self.root is not None:
            replace(self.root, arrays)
        self.arrays = arrays
        for i in range(len(arrays)):
            if arrays[i] is not old[i]:
                # past the setter, which is for users
                PyObject_GenericSetAttr(params[i], "_array", arrays[i])
                PyDict_SetItem(held, paths[i], arrays[i])
        del before

    def match(self, object grads):
        """Return gradients of this shape in the order of the leaves; None if they are of another.

        None in the place of a dict or list is None for each array in it.
        """
        cdef list found = []
        if self.root is None:
            return [grads]
        return found if match(self.root, grads, found) else None


def others(dict parameters, dict arrays):
    """Return the paths of the parameters that hold another array than that under their path."""
    cdef list found = []
    for path, array in arrays.items():
        if getattr(parameters[path], "_array") is not array:
            found.append(path)
    return found


def by_path(object grads, dict places):
    """Return a mapping's gradients in the order of places; None where that takes a closer look.

    Parameters
    ----------
    grads : mapping of str to object
        By path, with or without slashes around.
    places : dict of str to int
        The number of each path, from 0.
    """
    cdef Py_ssize_t i = 0, n = len(places), left = n, position = 0, other = 0
    cdef PyObject* key
    cdef PyObject* path
    cdef PyObject* value
    cdef PyObject* place
    cdef list values = [None] * n
    cdef list missing
    if type(grads) is dict and PyDict_Size(grads) == n:
        # as long as they come in the same order
        while (
            PyDict_Next(grads, &position, &key, &value)
            and PyDict_Next(places, &other, &path, &place)
            and key == path
        ):
            values[i] = <object> value
            i += 1
        if i == n:
            return values
    elif not isinstance(grads, Mapping):
        return None
    missing = [True] * n
    for name, grad in list(grads.items()):
        if type(name) is not str:
            return None
        place = PyDict_GetItemWithError(places, name)
        if place == NULL:
            place = PyDict_GetItemWithError(places, (<str> name).strip("/"))
        if place == NULL:
            return None
        i = <object> place
        left -= missing[i] is True
        missing[i] = False
        values[i] = grad
    return values if left == 0 else None
