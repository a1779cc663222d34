"""How much memory a step takes beyond what it steps, by the system's own count."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
import torch_memory

MB = 2**20

pytestmark = [
    pytest.mark.serial,
    pytest.mark.slow,
    pytest.mark.skipif(
        sys.platform != "linux" or not os.access(torch_memory.PROCESS / "clear_refs", os.W_OK),
        reason="this system does not tell how much memory a process has had at most",
    ),
    # it counts pages of each CPU by themselves, and adds them up when they are many
    pytest.mark.skipif((os.cpu_count() or 1) > 8, reason="the system's count is too rough"),
]


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    command = [sys.executable, torch_memory.__file__]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_dense_steps_take_no_temporary_arrays(found: dict[str, Any]) -> None:
    # PyTorch's, which makes some, shows that they are seen
    assert found["foreach"] >= 7 * MB
    assert len(found["steps"]) == 27
    assert {name: taken for name, taken in found["steps"].items() if taken > MB} == {}


def test_steps_in_backward_hold_the_gradients_of_a_bucket(found: dict[str, Any]) -> None:
    # each weight has 4 MB
    assert found["passes"]["None"] >= 63 * MB
    assert 3 * MB <= found["passes"]["0"] <= 5 * MB
    assert 7 * MB <= found["passes"][str(8 * MB)] <= 9 * MB
