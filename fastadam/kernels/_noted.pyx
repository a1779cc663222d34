"""What objects hold when something is kept, and whether they hold that still: by identity, in C.

Nobody has to say that something has changed, so nobody can forget to. Dicts are walked and never
looked up: comparing runs nobody's ``__eq__``. All that is compared is kept alive, so that no other
object can have its address.
"""

import types

from cpython.dict cimport PyDict_GetItem, PyDict_Next, PyDict_Size
from cpython.ref cimport PyObject

cdef extern from *:
    """
    /* A number that CPython gives to what a class and its bases hold, and to nothing else ever
       again; 0 while there is none. Looking a name up gives a new one. */
    static unsigned int fastadam_version_tag(PyObject* kind) {
        PyTypeObject* type = (PyTypeObject*) kind;
    #if PY_VERSION_HEX < 0x030C0000
        if (!PyType_HasFeature(type, Py_TPFLAGS_VALID_VERSION_TAG)) return 0;
    #endif
        return type->tp_version_tag;
    }
    """
    unsigned int fastadam_version_tag(object kind)

cdef extern from "Python.h":
    # an object's dict, past the `__getattr__` of its class
    object PyObject_GenericGetDict(object obj, void* context)
    bint PyMethod_Check(object obj)
    PyObject* PyMethod_GET_FUNCTION(object method)

# Descriptors that do as they did when they were made.
cdef set CONSTANT = {
    types.FunctionType,
    types.BuiltinFunctionType,
    types.WrapperDescriptorType,
    types.MethodDescriptorType,
    classmethod,
    staticmethod,
    property,
}

# Of how many classes it is kept what was found out about them.
cdef enum:
    MOST_CLASSES = 100

# Stand for a value that may be any, and for none.
cdef object ANY = object()
cdef object ABSENT = object()


cdef object function(object method):
    """The function of a bound method, which is made anew by each look; all else as it is."""
    return <object> PyMethod_GET_FUNCTION(method) if PyMethod_Check(method) else method


cdef bint is_constant(object kind, str name) except -1:
    """Whether a class answers the same for a name as long as nobody sets it anew."""
    cdef object base, found
    for base in kind.__mro__:
        if name in base.__dict__:
            found = base.__dict__[name]
            return type(found) in CONSTANT or not hasattr(type(found), "__get__")
    return True


cdef class Methods:
    """What a class has under some names."""

    cdef object kind
    cdef tuple names, held
    # of the class when they were found to be the same; 0 if it says nothing
    cdef unsigned int version

    def __init__(self, kind, tuple names):
        self.kind, self.names = kind, names
        self.held = self.now()
        self.version = 0

    def __reduce__(self):
        raise TypeError("what is compared by identity cannot be copied")

    cdef tuple now(self):
        """Look all of them up; of a class method, its function."""
        return tuple([function(getattr(self.kind, name, None)) for name in self.names])

    cdef bint same(self) except -1:
        """Tell whether they are what they were."""
        cdef Py_ssize_t i
        cdef tuple held
        if self.version and fastadam_version_tag(self.kind) == self.version:
            return True
        self.version = 0
        held = self.now()
        for i in range(len(held)):
            if held[i] is not self.held[i]:
                return False
        # a metaclass may have names too, and changes by itself
        if type(self.kind) is type and all([is_constant(self.kind, n) for n in self.names]):
            self.version = fastadam_version_tag(self.kind)
        return True


cdef class Own:
    """Whether objects, or their classes, have something of their own in the place of what is known.

    Parameters
    ----------
    ask : callable
        Tells it of a class, by nothing but what that has under `names`.
    names : tuple of str
        What of a class is looked at.
    of_objects : tuple of str
        What an object must not have of its own either.
    """

    cdef object ask
    cdef tuple names, of_objects
    # the number of each class when it was asked about, and the answer
    cdef dict known

    def __init__(self, ask, tuple names, tuple of_objects):
        self.ask, self.names, self.of_objects = ask, names, of_objects
        self.known = {}

    def __reduce__(self):
        raise TypeError("what is compared by identity cannot be copied")

    def __call__(self, obj):
        cdef dict own
        if self.of_class(type(obj)):
            return True
        own = PyObject_GenericGetDict(obj, NULL)
        for name in self.of_objects:
            if name in own:
                return True
        return False

    cdef bint of_class(self, object kind) except -1:
        """Tell it of a class; it is asked about again where it may be another by now."""
        cdef PyObject* known
        cdef bint answer
        # a metaclass may have names too, and changes by itself
        if type(kind) is not type:
            return self.ask(kind)
        known = PyDict_GetItem(self.known, kind)
        if known != NULL and fastadam_version_tag(kind) == <unsigned int> (<tuple> known)[0]:
            return (<tuple> known)[1]
        answer = self.ask(kind)
        if all([is_constant(kind, name) for name in self.names]):
            # looking a name up numbers a class
            getattr(kind, self.names[0], None)
            # programs that make classes without end are not to fill the memory
            if len(self.known) >= MOST_CLASSES:
                self.known.clear()
            if fastadam_version_tag(kind):
                self.known[kind] = fastadam_version_tag(kind), answer
        return answer


cdef class Noted:
    """A list of what objects are and hold, to be compared with what they will be and hold."""

    cdef list dicts, keys, values
    cdef list owners, kinds, own
    cdef list attributes
    cdef list methods
    cdef list chosen
    cdef list collections

    def __init__(self):
        self.dicts, self.keys, self.values = [], [], []
        self.owners, self.kinds, self.own = [], [], []
        self.attributes = []
        self.methods = []
        self.chosen = []
        self.collections = []

    def __reduce__(self):
        raise TypeError("what is compared by identity cannot be copied")

    def entries(self, dict found, tuple free=()):
        """Note all keys of a dict in their order, and all values but those of the keys `free`."""
        self.dicts.append(found)
        self.keys.append(tuple(found))
        self.values.append(tuple([ANY if key in free else found[key] for key in found]))

    def instance(self, object obj):
        """Note the class of an object, and which dict its attributes are in."""
        self.owners.append(obj)
        self.kinds.append(type(obj))
        self.own.append(PyObject_GenericGetDict(obj, NULL))

    def attribute(self, object obj, str name):
        """Note one attribute; it is read again by whatever way it is read now."""
        self.attributes.append((obj, name, getattr(obj, name, None)))

    def class_attributes(self, kind, tuple names):
        """Note what a class has, itself or from its bases, under these names."""
        self.methods.append(Methods(kind, names))

    def some(self, dict found, list keys):
        """Note what a dict has under these keys, if anything; they are looked up."""
        self.chosen.append((found, tuple(keys), tuple([found.get(key, ABSENT) for key in keys])))

    def members(self, object found):
        """Note what a set of names, or a list, holds."""
        held = frozenset(found) if isinstance(found, (set, frozenset)) else tuple(found)
        self.collections.append((found, held))

    def renew(self):
        """Note all keys and values of dicts anew; everything else stays as it is noted."""
        cdef Py_ssize_t i
        for i in range(len(self.dicts)):
            self.keys[i] = tuple(<dict> self.dicts[i])
            self.values[i] = tuple((<dict> self.dicts[i]).values())

    def same(self):
        """Tell whether all of it is as it was noted."""
        cdef Py_ssize_t i, k
        cdef object obj, found, held
        cdef str name
        cdef Methods methods
        cdef tuple row, keys, values
        cdef PyObject* value
        for i in range(len(self.owners)):
            obj = self.owners[i]
            if type(obj) is not self.kinds[i]:
                return False
            if PyObject_GenericGetDict(obj, NULL) is not self.own[i]:
                return False
        for i in range(len(self.dicts)):
            if not same_entries(self.dicts[i], self.keys[i], self.values[i]):
                return False
        for row in self.attributes:
            name = <str> row[1]
            if getattr(row[0], name, None) is not row[2]:
                return False
        for methods in self.methods:
            if not methods.same():
                return False
        for row in self.chosen:
            found, keys, values = row
            for k in range(len(keys)):
                value = PyDict_GetItem(found, keys[k])
                if (ABSENT if value == NULL else <object> value) is not values[k]:
                    return False
        for row in self.collections:
            found, held = row
            if len(found) != len(held):
                return False
            if isinstance(held, frozenset):
                if found != held:
                    return False
                continue
            for k in range(len(<tuple> held)):
                if found[k] is not (<tuple> held)[k]:
                    return False
        return True


cdef bint same_entries(dict found, tuple keys, tuple values):
    """Whether a dict has these keys and values, in this order."""
    cdef Py_ssize_t position = 0, i = 0
    cdef PyObject* key
    cdef PyObject* value
    if PyDict_Size(found) != len(keys):
        return False
    while PyDict_Next(found, &position, &key, &value):
        if <object> key is not keys[i]:
            return False
        if values[i] is not ANY and <object> value is not values[i]:
            return False
        i += 1
    return True
