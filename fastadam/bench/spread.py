"""Medians, quartiles and ratios of what was measured in rounds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Spread", "ratio", "spread"]


class Spread(NamedTuple):
    """A median, and the quartiles around it."""

    median: float
    q1: float
    q3: float


def spread(values: Sequence[float]) -> Spread:
    """Return the median and the quartiles of at least one value.

    Parameters
    ----------
    values : sequence of float
        One a round.

    Returns
    -------
    Spread
        Quartiles between two values are interpolated, as ``numpy.percentile`` does.

    Examples
    --------
    >>> spread([4.0, 1.0, 2.0, 3.0, 5.0])
    Spread(median=3.0, q1=2.0, q3=4.0)
    """
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    q1, median, q3 = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, q1, q3)


def ratio(above: Sequence[float], below: Sequence[float]) -> Spread:
    """Return the ratio of two medians, with the quartiles of the ratios of each round.

    Parameters
    ----------
    above, below : sequence of float
        In the order of the same rounds. What was measured in one round saw the same machine, so
        that its ratio tells more than those of quartiles.

    Returns
    -------
    Spread
        The median is that of the medians; it need not lie between the quartiles.

    Examples
    --------
    >>> ratio([2.0, 6.0, 4.0], [1.0, 2.0, 2.0])
    Spread(median=2.0, q1=2.0, q3=2.5)
    """
    each = spread([a / b for a, b in zip(above, below, strict=True)])
    return Spread(statistics.median(above) / statistics.median(below), each.q1, each.q3)
