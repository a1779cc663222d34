"""The mutants break what is there, and who is said to have killed one is a test that there is."""

from __future__ import annotations

import collections
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import run_mutants
from mutants import MUTANTS

pytestmark = [
    pytest.mark.docs,
    pytest.mark.skipif(
        not (run_mutants.ROOT / "fastadam").is_dir(), reason="the sources are not beside the tests"
    ),
]


def test_what_mutants_replace_is_there() -> None:
    sources = {m.file: (run_mutants.ROOT / m.file).read_text(encoding="utf-8") for m in MUTANTS}
    missing = [m.name for m in MUTANTS if m.text not in sources[m.file]]
    assert missing == []
    # what is no Python would be killed by whoever imports it
    for m in MUTANTS:
        if m.file.endswith(".py"):
            compile(sources[m.file].replace(m.text, m.replacement, 1), m.name, "exec")


def test_mutants_have_names_of_their_own() -> None:
    counts = collections.Counter(m.name for m in MUTANTS)
    assert [name for name, count in counts.items() if count > 1] == []


def test_who_has_killed_a_mutant_is_written_down() -> None:
    """``python tests/run_mutants.py --record NAME`` does so for a new one."""
    lines = run_mutants.KILLED_BY.read_text(encoding="utf-8").splitlines()
    assert lines == sorted(lines)
    killers = run_mutants.read_killers()
    assert len(killers) == len(lines)
    assert killers.keys() == {m.name for m in MUTANTS}
    assert [name for name, killer in killers.items() if not run_mutants.is_test(killer)] == []


def test_tests_that_compare_texts_kill_nobody() -> None:
    files = {killer.partition("::")[0] for killer in run_mutants.read_killers().values()}
    texts = {file: (run_mutants.ROOT / file).read_text(encoding="utf-8") for file in files}
    assert [file for file, text in texts.items() if "pytest.mark.docs" in text] == []


@pytest.mark.parametrize(
    ("mutated", "first", "early"),
    [
        ("fastadam/files/npz.py", "tests/files/test_npz_files.py", "tests/files/test_limits.py"),
        (
            "fastadam/kernels/cpu/_half.pxi",
            "tests/kernels/cpu/test_half.py",
            "tests/kernels/cpu/test_cpu.py",
        ),
        (
            "fastadam/kernels/cpu/_ops.pxi",
            "tests/kernels/cpu/test_ops.py",
            "tests/kernels/cpu/test_cpu.py",
        ),
    ],
)
def test_the_likeliest_come_first(mutated: str, first: str | None, early: str) -> None:
    stages = run_mutants.stages(mutated)
    assert first in (None, stages[0][0])
    assert early in stages[0]
    tests = [file for stage in stages for file in stage]
    assert len(tests) == len(set(tests))
    assert not [file for file in tests if "/gpu/" in file]
    assert {"tests/update/test_optimizer.py", "tests/files/test_atomic.py"} <= set(tests)


def test_what_steps_pytorchs_tensors_has_tests_of_its_own() -> None:
    first, *others = [
        file for stage in run_mutants.stages("fastadam/torch/groups.py") for file in stage
    ]
    assert first == "tests/against_torch/test_torch_groups.py"
    assert "tests/against_torch/test_torch_states.py" in others
    assert all(file.startswith("tests/against_torch/") for file in others)
    elsewhere = [file for stage in run_mutants.stages("fastadam/update/plan.py") for file in stage]
    assert not [file for file in elsewhere if file.startswith("tests/against_torch/")]


@pytest.mark.parametrize(
    ("output", "test"),
    [
        (
            "tests/a/test_b.py::test_c[x y] FAILED [ 1%]\n"
            "FAILED tests/a/test_b.py::test_c[x y] - assert 1 == 2\n",
            "tests/a/test_b.py::test_c",
        ),
        (
            "tests/test_b.py::T::test_c PASSED [ 1%]\ntests/test_b.py::T::test_d[1] ",
            "tests/test_b.py::T::test_d",
        ),
        ("ERROR tests/test_b.py - ImportError: no\n", "tests/test_b.py"),
        ("ImportError while loading conftest\n", ""),
    ],
    ids=["failed", "ended while it ran", "not collected", "nothing ran"],
)
def test_who_failed(output: str, test: str) -> None:
    assert run_mutants.failed(output) == test
