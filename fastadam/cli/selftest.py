"""Check the results of this installation, bit for bit, on this machine.

1000 steps of every variant, in float32 and float64, from inputs that are the same everywhere, on
one thread and on several, in one call and parameter by parameter, give one SHA-256, which is
compared with the published one. A shorter run of half precision, hooks, loss scales, NaN, numbers
at the edge and betas whose powers are not exact gives a second SHA-256. And a run is compared with
the formula in array operations.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from typing import Any

from fastadam._version import __version__
from fastadam.cli import fixed_run, hard_run, output, powers, selftest_checks
from fastadam.kernels.cpu import _cpu_features, _openmp, engine

__all__ = ["SUMMARY", "add_arguments", "run"]

SUMMARY = "check that results are the published ones, bit for bit (under half a minute)"

# What a subprocess runs: the same package from the same places, in one instruction set.
_CHILD = (
    "import sys; sys.path[:] = {path!r}; from fastadam.__main__ import main; "
    "sys.exit(main(['selftest', '--json']))"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "--isa",
        choices=("all",),
        help="check every instruction set that this machine runs, each in a process of its own",
    )


def run(args: argparse.Namespace) -> int:
    """Run the checks and print what they found; return 0 if all is good, else 1."""
    say = output.progress if args.json else print
    say(
        f"fastadam {__version__} selftest: {fixed_run.N_STEPS} steps of "
        f"{', '.join(fixed_run.VARIANTS)}, each in {' and '.join(fixed_run.DTYPES)}; and "
        f"{hard_run.N_STEPS} of what these do not see"
    )
    result = _check_every_isa(say) if args.isa == "all" else _check(say)
    if args.json:
        output.print_json(result)
    else:
        for difference in result["differences"]:
            print(f"  {difference}")
        print("passed" if result["passed"] else "FAILED", f"in {result['seconds']} s")
    return 0 if result["passed"] else 1


def _check(say: Any) -> dict[str, Any]:
    """Run all checks in this process."""
    started = time.perf_counter()
    threads = [1, fixed_run.THREADS] if _openmp.version() else [1]
    say(
        f"instruction set: {engine.instruction_set()}; "
        f"threads: {' and '.join(map(str, threads))}"
        f"{'' if _openmp.version() else ' (built without OpenMP)'}"
    )
    differences = selftest_checks.check_reference()
    say(f"  {'array formula':17} {'different' if differences else 'equal'}")
    known = selftest_checks.known_to_differ()

    def report(part: str, good: bool) -> None:
        different = "different, as known of this machine" if part in known else "different"
        say(f"  {part:17} {'equal' if good else different}")

    sha, more = selftest_checks.check_digest(report)
    differences += more
    second, more = selftest_checks.check_second_digest(report)
    differences += more
    rounded = powers.not_nearest()
    say(
        f"powers of betas: {len(rounded)} of {len(powers.BETAS) * powers.N_STEPS} are not the "
        "nearest float64, by this machine's C library"
    )
    say(f"sha256     {sha}\npublished  {selftest_checks.PUBLISHED}")
    say(f"second     {second}\npublished  {selftest_checks.PUBLISHED_SECOND}")
    return {
        "passed": not differences,
        "sha256": sha,
        "published": selftest_checks.PUBLISHED,
        "second": second,
        "second_published": selftest_checks.PUBLISHED_SECOND,
        "powers_not_nearest": rounded,
        "fastadam": __version__,
        "instruction_set": engine.instruction_set(),
        "threads": threads,
        "steps": fixed_run.N_STEPS,
        "seconds": round(time.perf_counter() - started, 2),
        "differences": differences,
    }


def _check_every_isa(say: Any) -> dict[str, Any]:
    """Run the checks in a process per instruction set, and name those that cannot run here."""
    started = time.perf_counter()
    supported = _cpu_features.supported()
    runs: dict[str, dict[str, Any]] = {}
    not_run: dict[str, str] = {}
    differences: list[str] = []
    for isa in engine.built_instruction_sets():
        if isa not in supported:
            not_run[isa] = "this CPU does not run it"
            say(f"{isa:9} not run: {not_run[isa]}")
            continue
        runs[isa] = _check_in_process(isa)
        differences += [f"{isa}: {text}" for text in runs[isa]["differences"]]
        good = "good" if runs[isa]["passed"] else "different"
        say(f"{isa:9} {runs[isa].get('sha256', 'no digest')}  {good}")
        say(f"{'':9} {runs[isa].get('second', 'no digest')}")
    digests = {(single.get("sha256"), single.get("second")) for single in runs.values()}
    say(f"{'published':9} {selftest_checks.PUBLISHED}")
    say(f"{'':9} {selftest_checks.PUBLISHED_SECOND}")
    return {
        "passed": all(single["passed"] for single in runs.values()) and len(digests) == 1,
        "agree": len(digests) == 1,
        "published": selftest_checks.PUBLISHED,
        "second_published": selftest_checks.PUBLISHED_SECOND,
        "runs": runs,
        "not_run": not_run,
        "seconds": round(time.perf_counter() - started, 2),
        "differences": differences,
    }


def _check_in_process(isa: str) -> dict[str, Any]:
    """Run the checks with one instruction set; a crash is a difference too."""
    child = subprocess.run(
        [sys.executable, "-c", _CHILD.format(path=sys.path)],
        env={**os.environ, "FASTADAM_ISA": isa},
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        result: dict[str, Any] = json.loads(child.stdout)
    except ValueError:
        last = (child.stderr.strip().splitlines() or ["no message"])[-1]
        return {
            "passed": False,
            "differences": [f"the process ended with status {child.returncode}: {last}"],
        }
    return result
