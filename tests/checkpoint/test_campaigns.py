"""Short campaigns against saved files; ``campaign.py`` runs long ones."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import campaign


@pytest.mark.parametrize(("kind", "n"), [("flips", 60), ("cuts", 60), ("fuzz", 400)])
def test_attacks(kind: str, n: int, suffix: str) -> None:
    done = campaign.run(kind, suffix, n)
    assert sum(done.values()) == n
    assert done["refused"] > n // 2
    assert done["crashes"] == 0


def test_interruptions(suffix: str) -> None:
    assert campaign.interruptions(suffix, 10) == 10


@pytest.mark.skipif(os.environ.get("FASTADAM_CAMPAIGN") != "on", reason="tox -e campaign")
def test_two_hundred_interruptions(suffix: str) -> None:
    assert campaign.interruptions(suffix, 200) == 200
