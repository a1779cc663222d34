"""What can be saved loads into what it was saved from, by whatever writer and reader."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import round_trips

# FASTADAM_CAMPAIGN runs 5,000
N = 5000 if os.environ.get("FASTADAM_CAMPAIGN") else 60


def test_any_optimizer_comes_back() -> None:
    for seed in range(N):
        round_trips.check(seed)
