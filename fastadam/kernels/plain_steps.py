"""Steps of arrays that belong to nobody: checked, and made in one call."""

from __future__ import annotations

from collections.abc import Sequence

from fastadam.kernels._source import ArraySource
from fastadam.kernels.grouping import coefficients_of
from fastadam.kernels.multi_tensor import MultiTensorStep
from fastadam.kernels.table import Step

__all__ = ["adam_batch"]


def adam_batch(steps: Sequence[Step]) -> None:
    """Make one step of the Adam family on every parameter, in place.

    All steps are checked before the first array is written. Gradients are read as they were when
    the call began, even where one shares memory with what is written; parameters that share memory
    are stepped one after the other.

    Raises
    ------
    TypeError, ValueError
        As ``arrays.check_arrays``, naming the parameter; also if states share memory, or share it
        with a parameter, and if a number is not one of the parameter's computing dtype.
    """
    source = ArraySource(list(steps), [])
    made = MultiTensorStep(source, steps)
    made.read(coefficients_of(steps))
    made.step({}, {}, ())
