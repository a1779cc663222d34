"""The page of faults names tests that exist, and SECURITY.md is beside it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
ROOT = TESTS.parents[1]
PAGE = ROOT / "docs" / "checkpoints.rst"

pytestmark = pytest.mark.skipif(
    not PAGE.exists(), reason="the documentation is not beside the tests"
)


def test_every_fault_has_a_test() -> None:
    table = PAGE.read_text(encoding="utf-8").partition("What may happen to a file")[2]
    table = table.partition("How this was tried")[0]
    named = re.findall(r"- ``(test_\w+)``", table)
    assert len(named) == table.count("   * - ") - 1 >= 14
    there = {
        node.name
        for path in [*TESTS.glob("test_*.py"), *TESTS.parent.glob("files/test_*.py")]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
    }
    assert set(named) <= there


def test_what_is_promised_is_written_down() -> None:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    for word in ("pickle", "SHA-256", "libhdf5", "Memory is bounded"):
        assert word in text
