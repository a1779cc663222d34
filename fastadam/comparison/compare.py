"""Where two optimizers, targets or runs differ: ``fastadam.compare``."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy.typing as npt

from fastadam.comparison.differences import Absent, Difference, Differences
from fastadam.kernels.bits import array_difference
from fastadam.update.hyperparameter import same_value
from fastadam.update.snapshot import PARAM, SHARED, Snapshot, describe, looked

__all__ = ["compare"]

Array = npt.NDArray[Any]


def compare(a: Any, b: Any) -> Differences:
    """List every difference of two optimizers, targets, snapshots or runs.

    Of optimizers, everything is compared that ``==`` compares, and the parameters' values as well.
    Of modules, so are persistent buffers; of links, the persistent values are not.
    Of runs, the first step at which they differ is found, and everything that differs there.

    Parameters
    ----------
    a, b : Optimizer, target, Snapshot, or run
        A target is what `setup` takes: a link, an array, a dict or list of arrays. A run is an
        iterator that yields one of the others after every step, or a list of snapshots. Iterators
        are advanced in turn, no further than to the first difference, and nothing is kept.

    Returns
    -------
    Differences
        A sequence of :class:`fastadam.comparison.differences.Difference`, empty (and so false) if
        there is
        none.

    Raises
    ------
    TypeError
        If the two are not of one sort.
    ValueError
        If two runs train the same arrays; if a target cannot be one.

    Examples
    --------
    >>> import numpy as np
    >>> import fastadam
    >>> a, b = {'w': np.ones(3)}, {'w': np.ones(3)}
    >>> bool(fastadam.compare(a, b))
    False
    >>> b['w'][1] += 2 * np.spacing(1.0)
    >>> difference = fastadam.compare(a, b)[0]
    >>> difference.where, difference.what, difference.first_index, difference.ulps
    ('w', 'param', (1,), 2)
    """
    if _is_run(a) and _is_run(b):
        return _compare_runs(iter(a), iter(b))
    if _is_run(a) or _is_run(b):
        raise TypeError(f"cannot compare {_sort(a)} with {_sort(b)}: give two runs")
    return Differences(looked(a, b, lambda: tuple(_differences(a, b))))


def _is_run(obj: Any) -> bool:
    """Tell whether an object is a run: an iterator, or a list of snapshots."""
    if isinstance(obj, (list, tuple)):
        return all(isinstance(item, Snapshot) for item in obj)
    return isinstance(obj, Iterator)


def _sort(obj: Any) -> str:
    """Name the sort of an argument."""
    return "a run" if _is_run(obj) else type(obj).__name__


def _compare_runs(a: Iterator[Any], b: Iterator[Any]) -> Differences:
    """Walk two runs in step, up to the first difference."""
    agreed = 0
    for x, y in itertools.zip_longest(a, b, fillvalue=Absent.ABSENT):
        if isinstance(x, Absent) or isinstance(y, Absent):
            more, fewer = f"at least {agreed + 1}", f"{agreed}"
            ends = (fewer, more) if isinstance(x, Absent) else (more, fewer)
            return Differences((Difference("", "steps", *ends),), agreed=agreed)
        t, found = looked(x, y, partial(_compared, x, y))
        if found:
            return Differences(found, t, agreed)
        agreed += 1
    return Differences((), agreed=agreed)


def _compared(x: Any, y: Any) -> tuple[int | None, tuple[Difference, ...]]:
    """Return the count of two runs at one step, and how they differ."""
    first, second = _described(x), _described(y)
    if not isinstance(x, Snapshot):
        _refuse_shared_arrays(first, second)
    return first.t, tuple(_differences(first, second))


def _refuse_shared_arrays(a: Snapshot, b: Snapshot) -> None:
    """Refuse runs that train the same arrays: they would seem equal where they are not."""
    for key, array in a.arrays.items():
        if array is b.arrays.get(key):
            raise ValueError(
                f"both runs have the same array as {key[1]!r} of {key[0]!r}; each needs an "
                "optimizer and parameters of its own"
            )


def _described(obj: Any) -> Snapshot:
    """Describe an argument, or say what can be compared."""
    try:
        return describe(obj)
    except TypeError as error:
        raise TypeError(
            "compare takes optimizers, targets, snapshots, and iterators or lists of snapshots; "
            f"{error}"
        ) from error


def _differences(a: Any, b: Any) -> Iterator[Difference]:
    """Yield every difference, facts first, then arrays."""
    x, y = _described(a), _described(b)
    if (x.kind is None) != (y.kind is None):
        raise TypeError(
            "cannot compare an optimizer with a target; compare the optimizer's target, or two "
            "optimizers"
        )
    lone = set(x.paths) ^ set(y.paths)
    for key in dict.fromkeys((*x.facts, *y.facts)):
        first, second = (s.facts.get(key, Absent.ABSENT) for s in (x, y))
        told = key[0] not in lone or key[1] == SHARED
        if told and not same_value(first, second):
            yield Difference(*key, first, second)
    for path in dict.fromkeys((*x.paths, *y.paths)):
        if path in lone:
            there = "present", Absent.ABSENT
            yield Difference(path, "parameter", *(there if path in x.paths else there[::-1]))
    for key in _in_order(x, y):
        if key[0] not in lone:
            yield from _array_differences(key, x.arrays.get(key), y.arrays.get(key))


def _in_order(x: Snapshot, y: Snapshot) -> list[tuple[str, str]]:
    """Return the keys of both sides' arrays by path; state before master before parameter."""
    rank = {"fp32_param": 1, PARAM: 2}
    keys = dict.fromkeys((*x.arrays, *y.arrays))
    paths = {path: i for i, path in enumerate(dict.fromkeys((*x.paths, *y.paths)))}
    # what is no parameter comes last
    return sorted(keys, key=lambda key: (paths.get(key[0], len(paths)), rank.get(key[1], 0)))


def _array_differences(
    key: tuple[str, str], a: Array | None, b: Array | None
) -> Iterator[Difference]:
    """Yield how two arrays differ: by presence, by shape and dtype, or by elements."""
    path, what = key
    if a is None or b is None:
        x, y = (Absent.ABSENT if side is None else f"{side.dtype} {side.shape}" for side in (a, b))
        yield Difference(path, what, x, y)
        return
    if a.shape != b.shape:
        yield Difference(path, f"{what}.shape", a.shape, b.shape)
    if a.dtype != b.dtype:
        yield Difference(path, f"{what}.dtype", a.dtype, b.dtype)
    if a.shape != b.shape or a.dtype != b.dtype:
        return
    found = array_difference(a, b)
    if found is not None:
        yield Difference(
            path,
            what,
            found.a,
            found.b,
            found.count,
            a.size,
            found.ulps,
            found.relative,
            found.absolute,
            found.first,
        )
