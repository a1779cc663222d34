"""The page of Chainer's faults: all of them, each with tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PAGE = (TESTS.parent / "docs" / "faults.rst").read_text(encoding="utf-8")
ROWS = {row[0]: row for row in re.findall(r"   \* - (B\d+)\n(.*?)(?=\n   \* - |\n\n)", PAGE, re.S)}
LABELS = [f"B{number}" for number in range(1, 27)]


def named(text: str) -> set[tuple[str, str]]:
    """The tests that a text names."""
    return set(re.findall(r"``(test_\w+\.py)::(test_\w+)``", text))


EXISTING = {
    (path.name, node.name)
    for path in TESTS.rglob("test_*.py")
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
}


def test_every_fault_has_a_row() -> None:
    assert list(ROWS) == LABELS
    assert PAGE.count("\n   * - B") == len(LABELS)


@pytest.mark.parametrize("label", LABELS)
def test_row(label: str) -> None:
    cells = ROWS[label][1].split("\n     - ")
    assert len(cells[0].split("     - ", 1)) == 2
    assert len(cells) == 4, "Chainer, fastadam, why, tests"
    assert re.search(r"\b([Ff]ixed|[Kk]ept|yet|Cannot happen)\b", cells[1])
    assert named(cells[3])
    assert not named("".join(cells[:3]))


def test_tests_exist() -> None:
    assert named(PAGE) <= EXISTING
    assert len(named(PAGE)) > 40


def test_tests_of_faults_are_named() -> None:
    ours = {test for test in EXISTING if test[0] == "test_chainer_faults.py"}
    assert ours <= named(PAGE)
    assert len(ours) > 15
