"""Run, on a machine with a GPU, all tests and the benchmark; one JSON file and one picture.

Usage: python everything.py --output cuda.json --png cuda.png [options of the benchmark]

The tests are those marked ``gpu``, by themselves, and under each tool of compute-sanitizer where
that is on the PATH.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
TOOLS = ("memcheck", "racecheck", "synccheck", "initcheck")
# Under a sanitizer a launch takes a hundred times as long: what differs is in these.
SANITIZED = ("test_gpu_kernels.py", "test_gpu_norm.py")


def counts(junit: Path) -> dict[str, int]:
    """Count what a run of pytest reported."""
    found = {"passed": 0, "failed": 0, "skipped": 0}
    if not junit.exists():
        return found
    for case in ElementTree.parse(junit).getroot().iter("testcase"):
        bad = case.find("failure") is not None or case.find("error") is not None
        outcome = "failed" if bad else "skipped" if case.find("skipped") is not None else "passed"
        found[outcome] += 1
    return found


def run_tests(before: list[str], files: list[str], folder: Path) -> dict[str, Any]:
    """Run the tests for a GPU."""
    junit = folder / "junit.xml"
    junit.unlink(missing_ok=True)
    pytest = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "--junit-xml", str(junit)]
    done = subprocess.run([*before, *pytest, *files])
    return {**counts(junit), "exit_status": done.returncode}


def sanitizers() -> list[str]:
    """Return the tools of compute-sanitizer that can be run."""
    return list(TOOLS) if shutil.which("compute-sanitizer") else []


def main(argv: list[str]) -> int:
    """Run everything; return 1 if any test failed or the benchmark could not run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--png", type=Path, required=True)
    args, options = parser.parse_known_args(argv)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tests = {"tests": run_tests([], [str(FOLDER)], folder)}
        for tool in sanitizers():
            before = ["compute-sanitizer", "--tool", tool, "--error-exitcode", "9"]
            files = [str(FOLDER / file) for file in SANITIZED]
            tests[tool] = run_tests(before, files, folder)
        bench = [sys.executable, "-m", "fastadam", "bench", "--cuda"]
        written = folder / "bench.json"
        made = subprocess.run([*bench, "--output", str(written), "--png", str(args.png), *options])
        result = json.loads(written.read_text()) if written.exists() else None
    args.output.write_text(json.dumps({"tests": tests, "bench": result}, indent=2) + "\n")
    print(json.dumps(tests, indent=2))
    failed = any(each["exit_status"] or not each["passed"] for each in tests.values())
    return int(failed or made.returncode != 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
