"""Chooses among the cases of tests, for ``--combinations N``."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterable

import pytest

__all__ = ["few"]

# Where all cases are run: nothing else in a run of ``tox`` compares with Chainer.
WHOLE = "against_chainer"


def few(items: Iterable[pytest.Item], n: int) -> set[pytest.Item]:
    """Choose cases of each test until every combination of values of n parameters is there.

    With 1, every value of every parameter is in one of them. A row of several parameters that
    stands in a list is one value.
    """
    tests: dict[str, list[pytest.Item]] = {}
    for item in items:
        tests.setdefault(item.nodeid.partition("[")[0], []).append(item)
    return {
        item
        for cases in tests.values()
        for item in (cases if WHOLE in cases[0].path.parts else _covering(cases, n))
    }


def _covering(cases: list[pytest.Item], n: int) -> list[pytest.Item]:
    """Choose, one after the other, the case that has most of what is not there yet."""
    # in another order for each test, and the same in every process
    cases = sorted(cases, key=lambda item: zlib.crc32(item.nodeid.encode()))
    left = {item: _combinations(item, n) for item in cases}
    chosen = []
    while left:
        best = max(left, key=lambda item: len(left[item]))
        new = left.pop(best)
        chosen.append(best)
        left = {item: rest for item, has in left.items() if (rest := has - new)}
    return chosen


def _combinations(item: pytest.Item, n: int) -> set[object]:
    """Return the combinations of n values that a case has; all of its values if they are fewer."""
    callspec = getattr(item, "callspec", None)
    params = dict(callspec.params) if callspec else {}
    values = []
    for mark in item.iter_markers("parametrize"):
        given = mark.args[0] if mark.args else mark.kwargs["argnames"]
        names = given.split(",") if isinstance(given, str) else given
        values.append(tuple((name.strip(), id(params.pop(name.strip(), None))) for name in names))
    values += [((name, id(value)),) for name, value in params.items()]
    return set(itertools.combinations(sorted(values), min(n, len(values))))
