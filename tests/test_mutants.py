"""The mutants break what is there: what each replaces is in its file still."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.docs

TESTS = Path(__file__).parent
ROOT = TESTS.parent


def _mutants() -> list[Any]:
    spec = importlib.util.spec_from_file_location("mutants", TESTS / "mutants.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: list[Any] = module.MUTANTS
    return found


@pytest.mark.skipif(not (ROOT / "fastadam").is_dir(), reason="the sources are not beside the tests")
def test_what_mutants_replace_is_there() -> None:
    missing = [m.name for m in _mutants() if m.text not in (ROOT / m.file).read_text()]
    assert missing == []
