"""Effects: copies of arrays, entries of dicts and slots of objects, all made in one piece.

What may fail is done before: values are made, casts prepared, references held. `Effects.commit` is
one call into C, between whose effects no bytecode runs: no attribute protocol, no finalizer (old
values are held, and go in `Effects.release`), no signal handler, no other thread. So whoever
looks, and whoever interrupts, finds all of them made or none.
"""

cimport cython
cimport numpy as cnp
from cpython.dict cimport PyDict_DelItem, PyDict_GetItem, PyDict_Next, PyDict_SetItem
from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_Realloc
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF, Py_XDECREF
from cpython.unicode cimport PyUnicode_CheckExact
from libc.stdlib cimport qsort
from libc.string cimport memcpy

from types import MemberDescriptorType

import numpy as np

cnp.import_array()

include "_effect.pxi"
include "_copies.pxi"


@cython.auto_pickle(False)
cdef class Effects:
    """Effects that are held until they are made together.

    Every ``hold`` checks all that can be checked, may raise, and changes nothing. What is held
    last on one place is what it will be; only an entry and a removal of the same key are not in
    an order: the entry counts.

    Attributes
    ----------
    committed : bool
        Whether they have been made.

    Examples
    --------
    >>> import numpy as np
    >>> from fastadam.kernels._commit import Effects
    >>> w, counts = np.zeros(2), {'t': 0}
    >>> effects = Effects()
    >>> effects.hold_copy(w, np.ones(2, np.float32))
    >>> effects.hold_entry(counts, 't', 1)
    >>> w, counts
    (array([0., 0.]), {'t': 0})
    >>> effects.commit()
    >>> w, counts
    (array([1., 1.]), {'t': 1})
    >>> effects.release()
    """

    cdef Effect* effects
    cdef Py_ssize_t n, room
    cdef readonly bint committed

    def __dealloc__(self):
        self.drop()

    def __len__(self):
        """Return how many effects are held."""
        return self.n

    def hold_copy(self, target, source):
        """Hold a copy of an array's elements into another, in place.

        Parameters
        ----------
        target : numpy.ndarray
            A writable array without Python objects in it, in any layout.
        source : numpy.ndarray
            An array of the same shape. It is cast to the target's dtype at once, within a kind.

        Raises
        ------
        TypeError
            If one is no array, or the cast is none within a kind.
        ValueError
            If shapes differ, the target is read-only, holds objects, or has elements that share
            memory with one another.
        """
        if not isinstance(target, np.ndarray) or not isinstance(source, np.ndarray):
            raise TypeError(
                f"arrays are copied, not {type(source).__name__} to {type(target).__name__}"
            )
        if target.shape != source.shape:
            raise ValueError(f"cannot copy shape {source.shape} to shape {target.shape}")
        if not target.flags.writeable:
            raise ValueError("the array that is to be written is read-only")
        if target.dtype.hasobject:
            raise ValueError(f"arrays of Python objects are not copied: {target.dtype}")
        dense = target.flags.c_contiguous or target.flags.f_contiguous
        if not dense and overlaps_itself(target):
            raise ValueError(
                f"elements of the array that is to be written share memory: strides "
                f"{target.strides} for shape {target.shape}"
            )
        if source.dtype != target.dtype:
            with np.errstate(all="ignore"):
                source = source.astype(target.dtype, casting="same_kind")
        # a subclass may run code of its own where it is copied
        source = np.asarray(source)
        self.add(COPY, target, None, source, 0)

    def hold_entry(self, dict mapping not None, str key not None, value):
        """Hold a value of a dict: of a key that is there, or of a new one.

        Parameters
        ----------
        mapping : dict
            A dict, and not one of a subclass, whose keys are strings; for instance that of an
            object's attributes.
        key : str
            The key.
        value : object
            Its value.

        Raises
        ------
        TypeError
            If it is no such dict.
        """
        hash(key)
        self.add(ENTRY, mapping, key, value, 0)

    def hold_removal(self, dict mapping not None, str key not None):
        """Hold the removal of a key from a dict; one that is not there is no error.

        Parameters
        ----------
        mapping : dict
            As for `hold_entry`.
        key : str
            The key.

        Raises
        ------
        TypeError
            If it is no such dict.
        """
        hash(key)
        self.add(REMOVAL, mapping, key, None, 0)

    def hold_slot(self, obj, str name not None, value):
        """Hold a value of a slot of an object: of a name in the ``__slots__`` of its class.

        Parameters
        ----------
        obj : object
            The object.
        name : str
            The slot.
        value : object
            Its value.

        Raises
        ------
        AttributeError
            If its class has no such slot.
        """
        cdef PyMemberDef* member
        for kind in type(obj).__mro__:
            descriptor = kind.__dict__.get(name)
            if descriptor is not None:
                break
        else:
            descriptor = None
        if type(descriptor) is not MEMBER:
            raise AttributeError(f"{type(obj).__name__} has no slot {name!r}")
        member = (<PyMemberDescrObject*> descriptor).d_member
        if member.type != T_OBJECT_EX or member.flags:
            raise AttributeError(f"the slot {name!r} of {type(obj).__name__} is not to be written")
        self.add(SLOT, obj, None, value, member.offset)

    def extend(self, Effects other not None):
        """Take over what others hold, behind what is held here.

        Parameters
        ----------
        other : Effects
            They hold nothing afterwards.

        Raises
        ------
        ValueError
            If they are these.
        RuntimeError
            If one of the two has been committed.
        """
        if other is self:
            raise ValueError("effects cannot take themselves over")
        if self.committed or other.committed:
            raise RuntimeError("these effects have been made already")
        self.reserve(other.n)
        if other.n:
            memcpy(self.effects + self.n, other.effects, other.n * sizeof(Effect))
            self.n += other.n
            other.n = 0

    def commit(self):
        """Make all effects, or none.

        Raises
        ------
        RuntimeError
            If they have been made already, or something is no longer what it was when it was held:
            an array has another shape or is read-only, a dict has keys that are no strings.
        MemoryError
            If there is no memory for a key that is new.
        """
        cdef Py_ssize_t i
        cdef Effect* effect
        cdef PyObject** slot
        if self.committed:
            raise RuntimeError("these effects have been made already")
        self.untangle()
        self.check()
        # A new key may need memory, so these are first, and are taken out again if there is none.
        for i in range(self.n):
            effect = self.effects + i
            effect.added = False
            if effect.kind == ENTRY and not find(effect):
                try:
                    PyDict_SetItem(<object> effect.owner, <object> effect.key,
                                   <object> effect.value)
                except BaseException:
                    self.take_out(i)
                    raise
                effect.added = True
        # From here on nothing allocates, nothing fails, and no reference goes.
        for i in range(self.n):
            effect = self.effects + i
            if effect.kind == COPY:
                copy_elements(<cnp.ndarray> effect.owner, <cnp.ndarray> effect.value)
            elif effect.kind == ENTRY:
                effect.old = find(effect)
                Py_INCREF(<object> effect.old)
                PyDict_SetItem(<object> effect.owner, <object> effect.key, <object> effect.value)
            elif effect.kind == SLOT:
                slot = <PyObject**> (<char*> effect.owner + effect.offset)
                effect.old = slot[0]
                Py_INCREF(<object> effect.value)
                slot[0] = effect.value
        for i in range(self.n):
            effect = self.effects + i
            # another's entry of this key has made its value another than that before the commit
            if effect.kind == REMOVAL and effect.old and find(effect) == effect.old:
                PyDict_DelItem(<object> effect.owner, <object> effect.key)
        self.committed = True

    def release(self):
        """Let everything go that was held, old values and new; this may run finalizers.

        Effects that have not been made never will be.
        """
        self.drop()

    cdef int add(self, Kind kind, object owner, object key, object value,
                 Py_ssize_t offset) except -1:
        """Hold one effect."""
        cdef Effect* effect
        if self.committed:
            raise RuntimeError("these effects have been made already")
        self.reserve(1)
        effect = self.effects + self.n
        effect.kind, effect.added, effect.offset = kind, False, offset
        effect.owner, effect.key = <PyObject*> owner, <PyObject*> key
        effect.value, effect.old = <PyObject*> value, NULL
        Py_INCREF(owner)
        Py_INCREF(key)
        Py_INCREF(value)
        self.n += 1
        return 0

    cdef int reserve(self, Py_ssize_t more) except -1:
        """Make room for more effects."""
        cdef Py_ssize_t room = self.room
        cdef void* larger
        if self.n + more <= room:
            return 0
        room = max(2 * room, self.n + more, 4)
        larger = PyMem_Realloc(self.effects, room * sizeof(Effect))
        if not larger:
            raise MemoryError()
        self.effects, self.room = <Effect*> larger, room
        return 0

    cdef int untangle(self) except -1:
        """Copy the sources that lie where something is to be written."""
        cdef Py_ssize_t i, n = 0
        cdef Extent* extents
        cdef char* reached = NULL
        cdef char* following = NULL
        for i in range(self.n):
            n += 2 * (self.effects[i].kind == COPY)
        if not n:
            return 0
        extents = <Extent*> PyMem_Malloc(n * sizeof(Extent))
        if not extents:
            raise MemoryError()
        try:
            n = 0
            for i in range(self.n):
                if self.effects[i].kind == COPY:
                    span(<cnp.ndarray> self.effects[i].owner, extents + n)
                    span(<cnp.ndarray> self.effects[i].value, extents + n + 1)
                    extents[n].effect = extents[n + 1].effect = i
                    extents[n].target, extents[n + 1].target = True, False
                    n += 2
            qsort(extents, n, sizeof(Extent), by_low)
            for i in range(n):
                if not extents[i].target:
                    # a target that begins before it reaches into it
                    if reached and extents[i].low < reached:
                        self.copy_source(extents[i].effect)
                elif extents[i].high > extents[i].low and extents[i].high > reached:
                    reached = extents[i].high
            for i in range(n - 1, -1, -1):
                if not extents[i].target:
                    # it reaches into a target that begins behind it
                    if following and following < extents[i].high:
                        self.copy_source(extents[i].effect)
                elif extents[i].high > extents[i].low:
                    following = extents[i].low
        finally:
            PyMem_Free(extents)
        return 0

    cdef int copy_source(self, Py_ssize_t i) except -1:
        """Put a copy in the place of a source."""
        copied = np.array(<object> self.effects[i].value)
        Py_INCREF(copied)
        Py_XDECREF(self.effects[i].value)
        self.effects[i].value = <PyObject*> copied
        return 0

    cdef int check(self) except -1:
        """Refuse what is no longer as it was when it was held."""
        cdef Py_ssize_t i
        cdef Effect* effect
        cdef PyObject* checked = NULL
        for i in range(self.n):
            effect = self.effects + i
            if effect.kind == COPY:
                target, source = <cnp.ndarray> effect.owner, <cnp.ndarray> effect.value
                if not same_shape(target, source) or not cnp.PyArray_ISWRITEABLE(target):
                    raise RuntimeError("an array has been changed since its values were checked")
            elif effect.kind == SLOT or effect.owner == checked:
                continue
            else:
                checked = effect.owner
                if not strings_alone(effect.owner):
                    raise RuntimeError("a dict has been given keys that are no strings")
        for i in range(self.n):
            effect = self.effects + i
            if effect.kind == REMOVAL:
                effect.old = find(effect)
                if effect.old:
                    Py_INCREF(<object> effect.old)
        return 0

    cdef void take_out(self, Py_ssize_t end) noexcept:
        """Take the new keys out again that are before one which there is no memory for."""
        cdef Py_ssize_t i
        for i in range(end):
            if self.effects[i].added:
                self.effects[i].added = False
                PyDict_DelItem(<object> self.effects[i].owner, <object> self.effects[i].key)

    cdef void drop(self) noexcept:
        """Let go what is held; whatever runs on the way finds nothing held."""
        cdef Py_ssize_t i, n = self.n
        cdef Effect* effects = self.effects
        self.effects, self.n, self.room = NULL, 0, 0
        for i in range(n):
            Py_XDECREF(effects[i].owner)
            Py_XDECREF(effects[i].key)
            Py_XDECREF(effects[i].value)
            Py_XDECREF(effects[i].old)
        PyMem_Free(effects)


cdef object MEMBER = MemberDescriptorType
