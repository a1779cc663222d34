"""Runs the tests in two calls of pytest: most with two workers, then what wants to be alone.

Usage: python suite.py RESULTS_FOLDER NAME MARKERS PYTEST_COMMAND...

MARKERS is an expression for ``-m`` that both calls keep to. The results go to NAME.xml and
NAME-serial.xml. It is no failure if what was asked for (``-k``, a file) leaves one call without
tests, but it is if both have none.
"""

from __future__ import annotations

import os
import subprocess
import sys

NO_TESTS = 5

# Each worker's OpenMP threads would wait for each other by spinning, on CPUs that others need.
QUIET = {"OMP_WAIT_POLICY": "passive"}


def main(results: str, name: str, markers: str, command: list[str]) -> int:
    """Run both calls and return the exit status of the worse."""
    also = f" and ({markers})" if markers else ""
    parallel = ["-m", f"not serial{also}", "-n", "2", "--dist", "loadfile"]
    serial = ["-m", f"serial{also}", "-n", "0"]
    statuses = []
    for file, options, environ in ((name, parallel, QUIET), (f"{name}-serial", serial, {})):
        xml = os.path.join(results, f"{file}.xml")
        # what is asked for comes last, so that it wins
        done = subprocess.run(
            [*command[:1], *options, "--junit-xml", xml, *command[1:]], env=os.environ | environ
        )
        statuses.append(done.returncode)
        if done.returncode == NO_TESTS:
            os.remove(xml)
    if statuses == [NO_TESTS, NO_TESTS]:
        return NO_TESTS
    return next((status for status in statuses if status not in (0, NO_TESTS)), 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:]))
