"""Hyperparameters of rules, and the scalars of those whose next step has the same ones.

They are read, and compared with what they were, before every step: in C, since every parameter may
have some of its own.
"""

from libc.math cimport isfinite

import numpy as np

from fastadam.algorithms._coefficients import coefficients_at, with_alpha
from fastadam.algorithms.coefficients import constants
from fastadam.kernels._noted import Noted
from fastadam.update.hyperparameter import Hyperparameter

cdef extern from "Python.h":
    # an object's dict, past the `__getattr__` of its class
    object PyObject_GenericGetDict(object obj, void* context)

# Numbers that nobody's code takes part in, and that cannot change in place; and what else cannot.
NUMBERS = {int, float, bool, np.float64, np.float32}
LASTING = NUMBERS | {str}

# As it is here, not as it may be patched.
cdef object GET_DICT = Hyperparameter.get_dict


def bags(hyperparam):
    """Return a bag of hyperparameters and those on which it falls back; the last is the root."""
    cdef list found = [hyperparam]
    cdef object parent = hyperparam.parent
    while parent is not None:
        found.append(parent)
        parent = parent.parent
    return found


def stored_values(hyperparam):
    """Return what `get_dict` returns; None if a bag is of a class that may have ways of its own."""
    cdef list found = []
    cdef dict entries = {}
    cdef object bag = hyperparam
    if Hyperparameter.get_dict is not GET_DICT:
        return None
    while bag is not None:
        if type(bag) is not Hyperparameter:
            return None
        found.append(PyObject_GenericGetDict(bag, NULL))
        bag = bag._parent
    for own in reversed(found):
        entries.update(own)
    return entries


cdef bint all_lasting(dict values):
    """Whether none of the values can change in place."""
    for value in values.values():
        if type(value) not in LASTING:
            return False
    return True


cdef class Scalars:
    """The scalars that rules share whose next step has the same ones.

    Parameters
    ----------
    hyperparam : Hyperparameter
        The hyperparameters of the first of them.
    place : int
        Which of all rules it is.
    door : str
        Where numbers are looked at, for messages.
    first_alpha : callable
        Returns the alpha against which AdaBound measures schedules.
    fixed : float or None
        What it returns, if that is noted with the rule; None where it may be something else.
    """

    cdef object hyperparam, root, constants
    cdef Py_ssize_t place
    cdef readonly object first_alpha
    cdef object fixed
    cdef bint adabound
    # what all rules share; None where it may change without anybody's notice
    cdef object noted
    cdef dict values
    cdef str door

    def __init__(self, hyperparam, Py_ssize_t place, str door, first_alpha, fixed):
        self.hyperparam = hyperparam
        self.place = place
        self.door = door
        self.first_alpha = first_alpha
        self.fixed = fixed
        self.root = hyperparam
        while self.root.parent is not None:
            self.root = self.root.parent

    def __reduce__(self):
        raise TypeError("what is compared by identity cannot be copied")

    def at(self, t):
        """Return the coefficients of step `t`."""
        cdef object start = None
        # what a single rule has of its own is compared with everything else of the rule
        if not self.is_same():
            values = stored_values(self.hyperparam)
            if values is None:
                values = dict(self.hyperparam.get_dict())
            if not self.take_alpha(values):
                self.look(values)
        if self.adabound:
            start = self.first_alpha() if self.fixed is None else self.fixed
        return coefficients_at(self.constants, t, start)

    cpdef bint is_same(self):
        """Tell whether what all rules share is known to be what it was."""
        return self.noted is not None and self.noted.same()

    cdef bint take_alpha(self, dict values) except -1:
        """Take over another alpha, if that is all that has changed, as schedules do."""
        cdef dict before = self.values
        cdef object alpha = values.get("alpha")
        if self.noted is None or type(alpha) is not float or not isfinite(<double> alpha):
            return False
        if values.get("decay_mode") == "alpha" and self.constants.decay:
            return False
        if before.keys() != values.keys():
            return False
        for name, value in values.items():
            if value is not before[name] and name != "alpha":
                return False
        self.constants = with_alpha(self.constants, alpha)
        self.values = values
        # last: what is noted is taken for done
        self.noted.renew()
        return True

    cdef int look(self, dict values) except -1:
        """Check all hyperparameters, and note them."""
        self.noted = None
        noted = Noted()
        noted.instance(self.root)
        noted.entries(PyObject_GenericGetDict(self.root, NULL))
        self.constants = constants(values, self.door)
        self.adabound = self.constants.adabound
        # an array may change its value without anybody's notice
        if all_lasting(values):
            self.noted, self.values = noted, values
        return 0


def coefficients_of(list groups, list ts):
    """Return the coefficients of the next step of every group, after so many steps of all rules."""
    cdef Scalars group
    return [group.at(ts[group.place] + 1) for group in groups]
