"""The door to the tables of one step on the CPU: read anew, run, and committed, all in C."""

cimport numpy as cnp
from cpython.dict cimport PyDict_SetItem
from cpython.object cimport PyObject_GenericSetAttr

from fastadam.kernels._source cimport Source
from fastadam.kernels.cpu._rows cimport Rows
from fastadam.kernels.cpu._written cimport Written

cnp.import_array()


def refresh(list tables, Written written, list coefficients, bint loose, object convert):
    """Read everything anew from its owner, as far as it is on the CPU.

    Parameters
    ----------
    tables : list of Rows
        All that one step is made on.
    written : Written
        Where the arrays lie that they write; brought up to date where any has moved.
    coefficients : list of Coefficients
        What each of the sets is now.
    loose : bool
        Whether arrays that are written reach into one another, as they are described, and must not
        move.
    convert : callable
        Returns a gradient, of a parameter's array and a gradient, that the loops can walk.

    Returns
    -------
    bool
        False if something is not what was described: another number of elements, dtype, layout or
        variant, arrays that reach into one another now, numbers that the loops cannot take.
    """
    cdef bint ended = False
    try:
        ended = refreshed(tables, written, coefficients, loose, convert)
    finally:
        if not ended:
            # what has been read so far is not what is noted as written
            written.n = 0
    return ended


cdef bint refreshed(
    list tables, Written written, list coefficients, bint loose, object convert
) except -1:
    """Read everything; False if something is not what was described."""
    cdef Rows rows
    cdef bint first, tangled = False, moved = written.n == 0
    for rows in tables:
        if not (
            rows.can_take(coefficients)
            and rows.read(convert, True)
            and rows.same_variants(coefficients)
        ):
            return False
        moved |= rows.moved
    if moved:
        first = written.n == 0
        written.n = 0
        for rows in tables:
            rows.note_written(written)
        if not written.sort() and not (loose and first) or (loose and not first):
            # whoever is in the way is named where they are described
            return False
    for rows in tables:
        tangled |= rows.is_tangled(written)
    if tangled:
        for rows in tables:
            if not rows.read(convert, False):
                return False
    for rows in tables:
        rows.untangle(written, convert)
    return True


def reaches(Written written, list arrays, list more):
    """Tell whether one of NumPy's arrays reaches into what is written, or into one of some more."""
    cdef object array, other
    cdef Written others = None
    if more:
        others = Written()
        for other in more:
            if cnp.PyArray_Check(other):
                others.add(other)
        others.sort()
    for array in arrays:
        if cnp.PyArray_Check(array) and (
            written.has_part(array) or (others is not None and others.has_part(array))
        ):
            return True
    return False


def run(list tables, list n_threads, list coefficients, bint serial):
    """Make the step on all rows, with coefficients that are each rounded once."""
    cdef Py_ssize_t i
    for i in range(len(tables)):
        (<Rows> tables[i]).run(coefficients, n_threads[i], serial)


def commit(Source source, dict owner, dict noted, list unscaled):
    """Store what belongs to the step that has been made.

    The source commits, the entries `owner` become those `noted`, and the loss scale of the
    parameters `unscaled` None. What they were goes last of all. All in C, so that neither Ctrl-C
    nor a finalizer comes in between.
    """
    cdef list before = [owner.get(name) for name in noted]
    source.hold()
    store(source, owner, noted, unscaled)
    source.release()
    before.clear()


cdef int store(Source source, dict owner, dict noted, list unscaled) except -1:
    """Store it all."""
    cdef object name, value, param
    source.commit()
    for name, value in noted.items():
        PyDict_SetItem(owner, name, value)
    for param in unscaled:
        PyObject_GenericSetAttr(param, "_loss_scale", None)
    return 0


def step_and_commit(
    list tables,
    list n_threads,
    list coefficients,
    bint serial,
    Source source,
    dict owner,
    dict noted,
    list unscaled,
    list launches,
):
    """Make the step that was refreshed, and commit it, with nothing in between.

    What is on a GPU is launched first, by functions that are compiled: they run no line of
    Python's after the launch, and if one raises, nothing has been stepped but by those before it.
    """
    cdef Py_ssize_t i
    cdef object function, grid, block, arguments
    cdef list before = [owner.get(name) for name in noted]
    source.hold()
    for function, grid, block, arguments in launches:
        function(grid, block, arguments)
    for i in range(len(tables)):
        (<Rows> tables[i]).run(coefficients, n_threads[i], serial)
    store(source, owner, noted, unscaled)
    source.release()
    before.clear()
