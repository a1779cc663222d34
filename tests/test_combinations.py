"""The choice among the cases of a test: no value of a parameter is left out."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from combinations import few

pytestmark = pytest.mark.docs


class Case:
    """As much of a test as is looked at."""

    def __init__(self, index: object, marks: list[Any], folder: str = "", **params: Any) -> None:
        self.nodeid = f"tests/{folder}/test_some.py::test_it[{index}]"
        self.path = Path("tests", folder, "test_some.py")
        self.callspec = SimpleNamespace(params=params)
        self.marks = marks

    def iter_markers(self, name: str) -> list[Any]:
        assert name == "parametrize"
        return self.marks


# Those of a fixture have no marker.
LETTERS, ROWS, NUMBERS, FLAGS = "xyz", [(1, 1), (1, 2), (2, 1)], range(7), (False, True)
MARKS = [pytest.mark.parametrize(names, []).mark for names in (("row", "column"), "number", "flag")]


def cases(folder: str = "") -> list[Any]:
    return [
        Case(i, MARKS, folder, letter=letter, row=row, column=column, number=number, flag=flag)
        for i, (letter, (row, column), number, flag) in enumerate(
            itertools.product(LETTERS, ROWS, NUMBERS, FLAGS)
        )
    ]


def values(case: Any) -> tuple[Any, ...]:
    params = case.callspec.params
    return params["letter"], (params["row"], params["column"]), params["number"], params["flag"]


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_every_combination_is_there(n: int) -> None:
    everything = cases()
    chosen = few(everything, n)
    for columns in itertools.combinations(range(4), min(n, 4)):
        seen = {tuple(values(case)[i] for i in columns) for case in chosen}
        assert seen == {tuple(values(case)[i] for i in columns) for case in everything}
    # as many as the longest lists make, and few more
    least = (7, 7 * 3, 7 * 3 * 3, len(everything), len(everything))[n - 1]
    assert least <= len(chosen) <= 1.3 * least


def test_the_choice_is_the_same_in_every_process() -> None:
    one, other = cases(), cases()
    random.Random(1).shuffle(other)
    assert {case.nodeid for case in few(one, 2)} == {case.nodeid for case in few(other, 2)}


def test_what_has_no_parameters_or_one_is_run() -> None:
    alone = [Case("", []), *(Case(i, [], "of a list", one=i) for i in range(9))]
    assert few(alone, 2) == set(alone)


def test_all_cases_beside_chainer_are_run() -> None:
    everything = cases("against_chainer")
    assert few(everything, 1) == set(everything)
