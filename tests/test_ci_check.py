"""The check behind continuous integration: green must mean that the tests ran."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.docs

CHECK = Path(__file__).resolve().parents[1] / ".ci" / "check.py"
CALLS = (
    *("oldest", "oldest-serial", "newest", "newest-serial", "middle"),
    *("gpu", "isa-baseline", "noopenmp", "noopenmp-serial", "sdist"),
    *("torch", "torch-serial"),
)
TESTED = ("oldest", "newest", "middle", "gpu", "isa", "noopenmp", "sdist", "torch")
CHECKED = ("lint", "types", "docs")
PYTHONS = {"oldest": 11, "middle": 12, "newest": 13, "gpu": 13, "torch": 11}

PASSED = '<testcase name="p"/>'
FAILED = '<testcase name="f"><failure message="no"/></testcase>'
ERROR = '<testcase name="e"><error message="import"/></testcase>'
SKIPPED = '<testcase name="s"><skipped message="needs {}"/></testcase>'


def report(folder: Path, name: str, *cases: str) -> None:
    """Write the results of one environment."""
    text = f'<testsuites><testsuite time="1.5">{"".join(cases)}</testsuite></testsuites>'
    (folder / f"{name}.xml").write_text(text)


def tox_results(folder: Path, **results: dict[str, bool]) -> None:
    """Write what tox says of the environments; all well unless told."""
    well = {name: {"success": True, "skipped": False} for name in (*TESTED, *CHECKED)}
    environments = {
        name: {"result": result, "python": {"version_info": [3, PYTHONS.get(name, 11), 1]}}
        for name, result in (well | results).items()
    }
    (folder / "tox.json").write_text(json.dumps({"testenvs": environments}))


@pytest.fixture
def folder(tmp_path):
    """Return a folder of results in which everything is well."""
    for name in CALLS:
        report(tmp_path, name, PASSED, PASSED, SKIPPED.format("a GPU"))
    tox_results(tmp_path)
    return tmp_path


def check(folder: Path, status: int = 0) -> tuple[int, list[str]]:
    """Run the check and return its exit status and its lines."""
    command = [sys.executable, str(CHECK), str(folder), str(status)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout.splitlines()


def test_all_is_well(folder):
    status, lines = check(folder)
    assert status == 0
    assert lines[-1] == "24 passed, 0 failed, 12 skipped"


@pytest.mark.parametrize("name", CALLS)
def test_an_environment_that_did_not_run(folder, name):
    (folder / f"{name}.xml").unlink()
    status, lines = check(folder)
    assert status == 1
    assert f"problem: {name} did not run" in lines


@pytest.mark.parametrize("case", [FAILED, ERROR])
def test_a_failure_or_an_error(folder, case):
    report(folder, "middle", PASSED, case)
    status, lines = check(folder)
    assert status == 1
    assert "problem: middle: 1 failed" in lines
    assert lines[-1] == "23 passed, 1 failed, 11 skipped"


def test_an_environment_in_which_nothing_passed(folder):
    report(folder, "newest-serial", SKIPPED.format("luck"))
    status, lines = check(folder)
    assert status == 1
    assert "problem: newest-serial: no test passed" in lines


@pytest.mark.parametrize("name", ["oldest", "oldest-serial"])
def test_a_skip_for_lack_of_chainer_beside_chainer(folder, name):
    report(folder, name, PASSED, SKIPPED.format("Chainer 7.8.1"))
    status, lines = check(folder)
    assert status == 1
    assert f"problem: {name}: 1 skipped for lack of Chainer" in lines


def test_a_skip_for_lack_of_chainer_elsewhere(folder):
    report(folder, "newest", PASSED, SKIPPED.format("Chainer 7.8.1"))
    assert check(folder)[0] == 0


@pytest.mark.parametrize("name", PYTHONS)
def test_another_python(folder, name):
    results = json.loads((folder / "tox.json").read_text())
    results["testenvs"][name]["python"]["version_info"] = [3, 14, 0]
    (folder / "tox.json").write_text(json.dumps(results))
    status, lines = check(folder)
    assert status == 1
    assert f"problem: {name} ran with Python 3.14, not 3.{PYTHONS[name]}" in lines


@pytest.mark.parametrize("name", [*TESTED, *CHECKED])
@pytest.mark.parametrize(
    "result", [{"success": False, "skipped": False}, {"success": True, "skipped": True}, {}]
)
def test_an_environment_that_failed_or_was_skipped(folder, name, result):
    tox_results(folder, **{name: result})
    status, lines = check(folder)
    assert status == 1
    assert f"problem: {name} did not run, or failed" in lines


def test_the_exit_status_of_tox_counts(folder):
    status, lines = check(folder, status=2)
    assert status == 1
    assert "problem: tox ended with status 2" in lines


def test_nothing_at_all(tmp_path):
    status, lines = check(tmp_path)
    assert status == 1
    assert lines[-1] == "0 passed, 0 failed, 0 skipped"
