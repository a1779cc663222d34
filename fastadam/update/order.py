"""Equality and order of optimizers: ``==``, ``<`` and their relatives."""

from __future__ import annotations

from typing import Any

from fastadam.algorithms.table import FLAGS
from fastadam.kernels.bits import same_bits
from fastadam.update.hyperparameter import same_value
from fastadam.update.snapshot import KEPT, PARAM, Snapshot, describe, looked

__all__ = ["Comparable"]


class Comparable:
    """What gives optimizers their comparisons, which are those of sets: equality and inclusion.

    Two optimizers are equal if they would treat the next gradients alike; one is less than the
    other if it is at an earlier point of the same training. See the methods.
    """

    # != is the negation of ==, by Python's own rule

    def __eq__(self, other: object) -> bool:
        """Tell whether two optimizers agree in everything but the values of their parameters.

        That is: class; hyperparameters, those of the rules too; `t` and `epoch`; paths, shapes
        and dtypes of the parameters; names, timing and order of hooks; loss scaling and fp32
        settings; and the state, bit for bit, where NaN equals NaN. Arrays are looked at last.

        Parameters
        ----------
        other : object
            Anything; what is no optimizer is not equal.
        """
        if self is other:
            return True
        if not isinstance(other, Comparable):
            return NotImplemented
        return type(self) is type(other) and looked(
            self, other, lambda: _agree(describe(self), describe(other))
        )

    def __hash__(self) -> int:
        """Return the hash of the class: that of an optimizer must not change as it learns."""
        return hash(type(self))

    def __lt__(self, other: object) -> bool:
        """Tell whether this optimizer is at an earlier point of the same training.

        The point is (`epoch`, `t`). The training is the same for equal classes, paths and shapes
        of parameters, `amsgrad` and `adabound`; otherwise neither is less. Numbers that a
        schedule may change, such as `alpha`, do not count.

        Parameters
        ----------
        other : Optimizer
            Another optimizer.

        Raises
        ------
        TypeError
            If it is none.
        """
        if not isinstance(other, Comparable):
            return NotImplemented
        return looked(self, other, lambda: _less(self, other))

    def __le__(self, other: object) -> bool:
        """Tell whether this optimizer is less than the other or equal to it."""
        if not isinstance(other, Comparable):
            return NotImplemented
        return looked(self, other, lambda: _less(self, other) or self == other)

    def __gt__(self, other: object) -> bool:
        """Tell whether the other optimizer is less than this one."""
        if not isinstance(other, Comparable):
            return NotImplemented
        return looked(self, other, lambda: _less(other, self))

    def __ge__(self, other: object) -> bool:
        """Tell whether the other optimizer is less than this one or equal to it."""
        if not isinstance(other, Comparable):
            return NotImplemented
        return looked(self, other, lambda: _less(other, self) or self == other)


def _agree(a: Snapshot, b: Snapshot) -> bool:
    """Tell whether two descriptions agree, but for the parameters' values: cheap things first."""
    mine, others = (
        {key: array for key, array in found.arrays.items() if key[1] != KEPT} for found in (a, b)
    )
    if a.facts.keys() != b.facts.keys() or mine.keys() != others.keys():
        return False
    if not all(same_value(value, b.facts[key]) for key, value in a.facts.items()):
        return False
    pairs = [(key, array, others[key]) for key, array in mine.items()]
    if any(x.shape != y.shape or x.dtype != y.dtype for _, x, y in pairs):
        return False
    return all(same_bits(x, y) for (_, what), x, y in pairs if what != PARAM)


def _less(a: Any, b: Any) -> bool:
    """Tell whether an optimizer is at an earlier point of another's training."""
    later = (a.epoch, a.t) < (b.epoch, b.t)
    return later and type(a) is type(b) and _training(a) == _training(b)


def _training(opt: Any) -> tuple[list[bool], dict[str, Any]]:
    """Return what all points of one training have: flags, and shapes of parameters by path."""
    hyperparam = getattr(opt, "hyperparam", None)
    flags = [bool(getattr(hyperparam, name, False)) for name in FLAGS]
    found = describe(opt)
    shapes = {key[0]: array.shape for key, array in found.arrays.items() if key[1] == PARAM}
    # None for one without an array yet
    return flags, {path: shapes.get(path) for path in found.paths}
