"""Fails unless every environment that should have run did, and counts the tests of each.

Usage: python check.py RESULTS_FOLDER EXIT_STATUS_OF_TOX

The last line printed is ``N passed, N failed, N skipped``.
"""

from __future__ import annotations

import json
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

# Environments that run tests: each must report some that passed and none that failed.
TESTED = ("py311", "py312", "py313", "isa-baseline", "noopenmp", "chainer", "gpu", "sdist")
# Environments that only succeed or fail.
CHECKED = ("lint", "types", "docs")


@dataclass
class Counts:
    """What one run of pytest reported; an error in a fixture or at import is a failure."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    without_chainer: int = 0


def read(path: Path) -> Counts:
    """Count the outcomes in a file of JUnit XML."""
    counts = Counts()
    for suite in ElementTree.parse(path).getroot().iter("testsuite"):
        counts.seconds += float(suite.get("time", "0"))
        for case in suite.iter("testcase"):
            skipped = case.find("skipped")
            if case.find("failure") is not None or case.find("error") is not None:
                counts.failed += 1
            elif skipped is not None:
                counts.skipped += 1
                reason = f"{skipped.get('message', '')} {skipped.text or ''}"
                counts.without_chainer += "chainer" in reason.lower()
            else:
                counts.passed += 1
    return counts


def succeeded(tox: Path) -> set[str]:
    """Return the names of the environments that tox ran with success."""
    if not tox.is_file():
        return set()
    environments = json.loads(tox.read_text())["testenvs"]
    return {
        name
        for name, environment in environments.items()
        for result in [environment.get("result", {})]
        if result.get("success") and not result.get("skipped")
    }


def problems(results: dict[str, Counts], checked: set[str], status: int) -> list[str]:
    """Say what is wrong, if anything."""
    found = [] if status == 0 else [f"tox ended with status {status}"]
    for name in TESTED:
        if name not in results:
            found.append(f"{name} did not run")
    for name, counts in results.items():
        if counts.failed:
            found.append(f"{name}: {counts.failed} failed")
        if counts.passed == 0:
            found.append(f"{name}: no test passed")
    for name in CHECKED:
        if name not in checked:
            found.append(f"{name} did not run, or failed")
    if "chainer" in results and results["chainer"].without_chainer:
        skipped = results["chainer"].without_chainer
        found.append(f"chainer: {skipped} skipped for lack of Chainer")
    return found


def main(folder: Path, status: int) -> int:
    """Print the table, the problems and the sum; return 1 if there is a problem."""
    results = {path.stem: read(path) for path in sorted(folder.glob("*.xml"))}
    checked = succeeded(folder / "tox.json")
    print(f"\n{'environment':<16}{'passed':>8}{'failed':>8}{'skipped':>9}{'seconds':>9}")
    for name, counts in results.items():
        numbers = f"{counts.passed:>8}{counts.failed:>8}{counts.skipped:>9}"
        print(f"{name:<16}{numbers}{counts.seconds:>9.1f}")
    for name in CHECKED:
        print(f"{name:<16}{'ok' if name in checked else 'NOT OK':>8}")
    found = problems(results, checked, status)
    for problem in found:
        print(f"problem: {problem}")
    total = [
        sum(getattr(counts, key) for counts in results.values())
        for key in ("passed", "failed", "skipped")
    ]
    print(f"{total[0]} passed, {total[1]} failed, {total[2]} skipped")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
