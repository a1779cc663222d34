"""Where arrays lie in memory, and which of them have elements in common.

Whether two arrays do is found out exactly, but that takes a while, and of many arrays in one block
of memory, such as the columns of a table, nearly every two reach into one another. So most are told
apart by arithmetic: on a ring as long as the greatest common divisor of all strides, an array stays
where it begins, and arrays that lie at different places of the ring have nothing in common.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastadam.kernels.backend import address, is_gpu_array, loaded_cupy, shares_memory
from fastadam.kernels.cpu import _written
from fastadam.kernels.cpu._single import lie_apart

__all__ = [
    "clusters",
    "extent",
    "extents",
    "first_sharing",
    "lie_apart",
    "reach_into_another",
    "sharing",
]

Array = npt.NDArray[Any]


def extent(array: Array) -> tuple[int, int]:
    """First byte and last byte plus one of an array in any layout."""
    if array.size == 0:
        return 0, 0
    low = high = address(array)
    for stride, n in zip(array.strides, array.shape, strict=True):
        if stride < 0:
            low += stride * (n - 1)
        else:
            high += stride * (n - 1)
    return low, high + array.itemsize


def extents(arrays: Sequence[Any]) -> tuple[npt.NDArray[np.uintp], npt.NDArray[np.uintp]]:
    """Return first bytes, and last bytes plus one, of arrays in any layout; 0 of empty ones."""
    low, high = np.empty((2, len(arrays)), np.uintp)
    _written.extents(list(arrays), low, high)
    # without CuPy, none is asked
    for i, array in enumerate(arrays if loaded_cupy() is not None else ()):
        if is_gpu_array(array):
            low[i], high[i] = extent(array)
    return low, high


def reach_into_another(arrays: Sequence[Any]) -> bool:
    """Tell whether the extent of any of these arrays overlaps another's."""
    if loaded_cupy() is None:
        return _written.reach_into_another(list(arrays))
    low, high = extents(arrays)
    order = np.argsort(low)
    return bool(np.any(np.maximum.accumulate(high[order])[:-1] > low[order][1:]))


class _Lattice(NamedTuple):
    """An array's bytes: a run of neighbours, repeated by (stride, number), the smallest first."""

    place: int
    low: int
    run: int
    steps: tuple[tuple[int, int], ...]

    def part(self, kept: int) -> tuple[int, tuple[int, ...]]:
        """Return the run that all but the largest steps stay within, and the strides of these."""
        inner = max(len(self.steps) - kept, 0)
        run = self.run + sum(stride * (n - 1) for stride, n in self.steps[:inner])
        return run, tuple([stride for stride, _ in self.steps[inner:]])


def _lattice(place: int, array: Any) -> _Lattice:
    """Describe where an array's bytes are, in whatever order of the axes."""
    low, _ = extent(array)
    axes = zip(map(abs, array.strides), array.shape, strict=True)
    steps = tuple(sorted((stride, n) for stride, n in axes if stride and n > 1))
    return _Lattice(place, low, array.itemsize, steps)


def clusters(arrays: Sequence[Any]) -> Iterator[list[int]]:
    """Yield the indices of arrays that may have elements in common, apart from all others.

    Arrays of different clusters have none, nor has an array that is in no cluster.
    """
    pending = [[_lattice(i, array) for i, array in enumerate(arrays) if array.size]]
    while pending:
        cluster = pending.pop()
        for kept in range(1 + max((len(each.steps) for each in cluster), default=0)):
            parts = _split(cluster, kept)
            if len(parts) > 1:
                # with fewer strides, the rings of the parts may be longer
                pending += [part for part in parts if len(part) > 1]
                break
        else:
            if len(cluster) > 1:
                yield [each.place for each in cluster]


def _split(cluster: list[_Lattice], kept: int) -> list[list[_Lattice]]:
    """Part arrays that lie apart on the ring of so many strides of each; of none, on a line."""
    parts = [each.part(kept) for each in cluster]
    ring = math.gcd(*[stride for _, strides in parts for stride in strides])
    if (kept and not ring) or any(kept and run >= ring for run, _ in parts):
        return [cluster]
    begins = [each.low % ring if ring else each.low for each in cluster]
    found: list[list[_Lattice]] = []
    reach = 0
    for i in sorted(range(len(cluster)), key=begins.__getitem__):
        if not found or begins[i] >= reach:
            found.append([])
        found[-1].append(cluster[i])
        reach = max(reach, begins[i] + parts[i][0])
    # what is across the end of the ring goes on at its beginning
    while ring and len(found) > 1 and found[0][0].low % ring < reach - ring:
        found[-1] += found.pop(0)
    return found


def first_sharing(
    arrays: Sequence[Any], allowed: Sequence[bool] | None = None
) -> tuple[int, int] | None:
    """Return the first two arrays with an element in common, in the order of their first bytes.

    Parameters
    ----------
    arrays : sequence of array
        In any layout.
    allowed : sequence of bool, optional
        Whether each array may share with others of which this is so. By default, none may.

    Returns
    -------
    tuple of int or None
        The index of the one that begins first, and of the other; None if there are no two.
    """
    if not reach_into_another(arrays):
        return None
    low, high = extents(arrays)
    spans = list(zip(low.tolist(), high.tolist(), range(len(arrays)), strict=True))
    free = [False] * len(arrays) if allowed is None else list(allowed)
    pairs = [_first_in([spans[i] for i in each], arrays, free) for each in clusters(arrays)]
    found = [pair for pair in pairs if pair is not None]
    # clusters have nothing in common
    return min(found, key=lambda pair: spans[pair[1]], default=None)


def _first_in(
    cluster: list[tuple[int, int, int]], arrays: Sequence[Any], free: list[bool]
) -> tuple[int, int] | None:
    """Find the first pair within a cluster; the spans are of its arrays."""
    # of those that may share, no two are looked at, however many there are
    before: dict[bool, list[tuple[int, int, int]]] = {False: [], True: []}
    for span in sorted(cluster):
        low, _, i = span
        for kind in (False, True) if not free[i] else (False,):
            before[kind] = [other for other in before[kind] if other[1] > low]
        near = before[False] if free[i] else sorted(before[False] + before[True])
        for _, _, j in near:
            if shares_memory(arrays[i], arrays[j]):
                return j, i
        before[free[i]].append(span)
    return None


def sharing(arrays: Sequence[Any], written: Sequence[Any]) -> list[int]:
    """Return which arrays have an element in common with one of those that are written."""
    low, high = extents(written)
    order = np.argsort(low)
    reach = np.concatenate([np.zeros(1, np.uintp), np.maximum.accumulate(high[order])])
    begin, end = extents(arrays)
    before = np.searchsorted(low[order], end, side="left")  # those that begin before its end
    near = np.flatnonzero(reach[before] > begin).tolist()
    if not near:
        return []
    found = []
    n = len(near)
    for cluster in clusters([*(arrays[i] for i in near), *written]):
        others = [k - n for k in cluster if k >= n]
        for k in cluster:
            if k < n and any(
                low[j] < end[near[k]]
                and high[j] > begin[near[k]]
                and shares_memory(arrays[near[k]], written[j])
                for j in others
            ):
                found.append(near[k])
    return sorted(found)
