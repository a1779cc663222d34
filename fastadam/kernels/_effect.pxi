# One effect as C holds it, and what can be asked of it without anybody's code.
# For _commit.pyx alone.

cdef extern from "structmember.h":
    ctypedef struct PyMemberDef:
        int type
        Py_ssize_t offset
        int flags
    ctypedef struct PyMemberDescrObject:
        PyMemberDef* d_member
    int T_OBJECT_EX

cdef enum Kind:
    COPY, ENTRY, REMOVAL, SLOT

cdef struct Effect:
    Kind kind
    bint added            # the entry was not there before
    Py_ssize_t offset     # of a slot
    PyObject* owner       # what is changed, held
    PyObject* key         # of a dict, held
    PyObject* value       # what it is to be, held
    PyObject* old         # what it was, held once the commit has replaced it


cdef PyObject* find(Effect* effect) noexcept:
    """The value that an effect's dict has under its key now; NULL if there is none."""
    return PyDict_GetItem(<object> effect.owner, <object> effect.key)


cdef bint strings_alone(PyObject* mapping) noexcept:
    """Whether all keys are strings, of no subclass: then looking one up runs nobody's code."""
    cdef Py_ssize_t at = 0
    cdef PyObject* key
    while PyDict_Next(<object> mapping, &at, &key, NULL):
        if not PyUnicode_CheckExact(<object> key):
            return False
    return True
