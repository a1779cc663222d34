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
from typing import Any

# Environments that run tests, and their calls of pytest: in each call some tests must have passed
# and none failed.
TESTED = {
    "oldest": ("oldest", "oldest-serial"),
    "newest": ("newest", "newest-serial"),
    "middle": ("middle",),
    "gpu": ("gpu",),
    "isa": ("isa-baseline",),
    "noopenmp": ("noopenmp", "noopenmp-serial"),
    "sdist": ("sdist",),
    "torch": ("torch", "torch-serial"),
}
# Environments that only succeed or fail; those above must succeed as well.
CHECKED = ("lint", "types", "docs")
# The Pythons that stand behind names.
PYTHONS = {"oldest": "3.11", "middle": "3.12", "newest": "3.13", "gpu": "3.13", "torch": "3.11"}


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


def environments(tox: Path) -> dict[str, dict[str, Any]]:
    """Return what tox says of the environments that it ran with success."""
    if not tox.is_file():
        return {}
    found: dict[str, dict[str, Any]] = json.loads(tox.read_text())["testenvs"]
    return {
        name: environment
        for name, environment in found.items()
        for result in [environment.get("result", {})]
        if result.get("success") and not result.get("skipped")
    }


def problems(
    results: dict[str, Counts], succeeded: dict[str, dict[str, Any]], status: int
) -> list[str]:
    """Say what is wrong, if anything."""
    found = [] if status == 0 else [f"tox ended with status {status}"]
    for calls in TESTED.values():
        found += [f"{call} did not run" for call in calls if call not in results]
    for name, counts in results.items():
        if counts.failed:
            found.append(f"{name}: {counts.failed} failed")
        if counts.passed == 0:
            found.append(f"{name}: no test passed")
        if name.startswith("oldest") and counts.without_chainer:
            found.append(f"{name}: {counts.without_chainer} skipped for lack of Chainer")
    for name in (*TESTED, *CHECKED):
        if name not in succeeded:
            found.append(f"{name} did not run, or failed")
        elif name in PYTHONS:
            numbers = succeeded[name].get("python", {}).get("version_info", [])[:2]
            python = ".".join(map(str, numbers))
            if python != PYTHONS[name]:
                found.append(f"{name} ran with Python {python}, not {PYTHONS[name]}")
    return found


def main(folder: Path, status: int) -> int:
    """Print the table, the problems and the sum; return 1 if there is a problem."""
    results = {path.stem: read(path) for path in sorted(folder.glob("*.xml"))}
    succeeded = environments(folder / "tox.json")
    print(f"\n{'call':<16}{'passed':>8}{'failed':>8}{'skipped':>9}{'seconds':>9}")
    for name, counts in results.items():
        numbers = f"{counts.passed:>8}{counts.failed:>8}{counts.skipped:>9}"
        print(f"{name:<16}{numbers}{counts.seconds:>9.1f}")
    print(f"\n{'environment':<16}{'':>8}{'minutes':>9}")
    for name in (*TESTED, *CHECKED):
        seconds = succeeded.get(name, {}).get("result", {}).get("duration", 0.0)
        print(f"{name:<16}{'ok' if name in succeeded else 'NOT OK':>8}{seconds / 60:>9.1f}")
    found = problems(results, succeeded, status)
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
