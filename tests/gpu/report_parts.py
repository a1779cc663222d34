"""The parts of a report on a GPU: what each runs, and what is read of it."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import re
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import profiled

from fastadam.bench import cuda_plans

__all__ = ["Part", "all_parts", "bench_seconds", "counts"]

FOLDER = Path(__file__).resolve().parent
# Compared bit by bit with the CPU; races; all others are `tests`.
BITS = ("test_gpu_kernels.py", "test_gpu_norm.py")
RACES = ("test_gpu_probes.py", "test_gpu_streams.py", "test_gpu_graphs.py")

Result = dict[str, Any]


class Part(NamedTuple):
    """A program of its own.

    Attributes
    ----------
    name : str
        Of its log file, too.
    about : str
        What is true if it passes.
    command : list of str
        With ``{folder}`` and ``{seconds}`` for where it writes and how long it has.
    share : float
        Of the time that is left for it and all that come after it, beside their shares.
    read : callable
        Makes of the folder and the text that was printed what the report says: in ``failed`` what
        went wrong, in ``ran`` how much was run. With ``nothing``, it says why nothing can be read:
        a failure of a program that has ended by itself; one that was ended may have no result.
    tool : str or None
        The program that has to be on the PATH.
    leaves : tuple of str
        The files that it writes into the folder.
    """

    name: str
    about: str
    command: list[str]
    share: float
    read: Callable[[Path, str], Result]
    tool: str | None = None
    leaves: tuple[str, ...] = ()


def bench_seconds(limit: float) -> int:
    """Return after how many seconds the benchmark begins nothing more, to end within a limit."""
    return max(1, min(cuda_plans.SECONDS, int(0.8 * limit)))


def printed_json(_: Path, text: str) -> Result:
    """Read what a program has printed last."""
    lines = [line for line in text.splitlines() if line.startswith("{")]
    if not lines:
        return {"nothing": "no result"}
    told: Result = json.loads(lines[-1])
    error = [told["error"]] if "error" in told else []
    ran = f"{told['checked']:,} arrays compared" if "checked" in told else ""
    return told | {"failed": error + told.get("differ", []), "ran": ran}


def counts(junit: Path) -> Result:
    """Count what a run of pytest reported, why tests were skipped, and name what failed."""
    found: Result = {"passed": 0, "skipped": {}, "failed": []}
    if not junit.exists():
        return found
    for case in ElementTree.parse(junit).getroot().iter("testcase"):
        if case.find("failure") is not None or case.find("error") is not None:
            found["failed"].append(f"{case.get('classname')}::{case.get('name')}")
        elif (skipped := case.find("skipped")) is not None:
            why = skipped.get("message", "")
            found["skipped"][why] = found["skipped"].get(why, 0) + 1
        else:
            found["passed"] += 1
    return found


def of_tests(name: str) -> Callable[[Path, str], Result]:
    """Return what reads a run of tests; tests that are all skipped have shown nothing."""

    def read(folder: Path, _: str) -> Result:
        found = counts(folder / f"{name}.xml")
        if not found["passed"] and not found["failed"]:
            found["nothing"] = "no test has run"
        skipped = sum(found["skipped"].values())
        return found | {"ran": f"{found['passed']:,} passed, {skipped:,} skipped"}

    return read


def of_bench(folder: Path, _: str) -> Result:
    """Read the benchmark's result, and give its chart the name that it has in the report."""
    written, chart = folder / "bench.json", folder / "chart.part"
    if chart.exists():
        chart.replace(folder / "chart.png")
    if not written.exists():
        return {"nothing": "no result"}
    result: Result = json.loads(written.read_text())
    measured = sum(map(len, result["results"].values()))
    return result | {"ran": f"{measured} measurements, {len(result['left_out'])} things left out"}


def of_sanitizer(_: Path, text: str) -> Result:
    """Read the last line of a tool of compute-sanitizer's, or what it has found before one."""
    summary = [line for line in text.splitlines() if "SUMMARY" in line][-1:]
    if summary:
        clean = " 0 errors" in summary[0] or " 0 hazards" in summary[0]
        return {"failed": [] if clean else summary, "ran": summary[0].strip("= ")}
    found = [line for line in text.splitlines() if re.search("Invalid __|Error: Race", line)]
    return {"failed": found, "nothing": "no summary"}


def of_profiler(_: Path, text: str) -> Result:
    """Read ncu's table: a row for each kernel and metric."""
    if "ERR_NVGPUCTRPERM" in text:
        return {"not_there": "the driver lets administrators alone read counters"}
    lines = [line for line in text.splitlines() if line.startswith('"')]
    keys = "ID", "Kernel Name", "Metric Name", "Metric Unit", "Metric Value"
    rows = [[row.get(key) for key in keys] for row in csv.DictReader(lines)]
    if not rows:
        return {"nothing": "no kernel was seen"}
    launches = len({row[0] for row in rows})
    return {"rows": rows, "ran": f"{len(rows)} counters of {launches} launches"}


def all_parts(stand_in: bool = False) -> list[Part]:
    """Return all parts, in the order in which they tell most; with the stand-in, tiny."""
    python = [sys.executable, *([str(FOLDER / "on_stand_in.py")] if stand_in else [])]
    small = ["--small"] if stand_in else []
    bench = ["--quick", "--cases", "tiny", "--rounds", "2"] if stand_in else []
    if importlib.util.find_spec("matplotlib") is not None:
        bench += ["--png", "{folder}/chart.part"]

    def tests(name: str, about: str, files: list[str], share: float) -> Part:
        chosen = ["--combinations", "2", "-p", "no:cacheprovider"]
        if stand_in:
            chosen += ["-k", "masters or sums_have or capture or example"]
        elif importlib.util.find_spec("xdist") is not None:
            # compiling is the processor's work
            chosen += ["-n", str(min(4, os.cpu_count() or 1)), "--dist", "loadfile"]
        pytest = [*python, "-m", "pytest", "-q", "-m", "gpu", *chosen]
        junit = ["--junit-xml", f"{{folder}}/{name}.xml"]
        command = [*pytest, *junit, *files]
        return Part(name, about, command, share, of_tests(name), leaves=(f"{name}.xml",))

    def named(files: tuple[str, ...]) -> list[str]:
        return [str(FOLDER / file) for file in files]

    others = [f"--ignore={path}" for path in named(BITS + RACES)]
    bits = str(FOLDER / "bits.py")
    parts = [
        Part(
            "environment",
            "there is a GPU, and CuPy finds it",
            [*python, str(FOLDER / "environment.py")],
            0.04,
            printed_json,
        ),
        Part(
            "bits", "updates have the bits of the CPU", [*python, bits, *small], 0.1, printed_json
        ),
        tests("bit-tests", "kernels and norms have the bits of the definition", named(BITS), 0.1),
        tests("races", "streams and graphs, with updates in flight", named(RACES), 0.07),
        tests("tests", "all other tests for a GPU", [*others, str(FOLDER)], 0.12),
        Part(
            "bench",
            "ceilings, host, ratios, norms",
            [
                *(*python, "-m", "fastadam", "bench", "--cuda", "--seconds", "{seconds}", *bench),
                *("--output", "{folder}/bench.json"),
            ],
            0.42,
            of_bench,
            leaves=("bench.json", "chart.part", "chart.png"),
        ),
    ]
    for tool, about in (
        ("memcheck", "no access outside of memory"),
        ("racecheck", "no race in shared memory"),
    ):
        options = ["--tool", tool, "--error-exitcode", "9"]
        command = ["compute-sanitizer", *options, *python, bits, "--small"]
        parts.append(Part(tool, about, command, 0.06, of_sanitizer, "compute-sanitizer"))
    launches = str(2 * 3 * profiled.UPDATES)
    options = ["--clock-control", "none", "-k", profiled.KERNELS, "--launch-count", launches]
    options += ["--csv", "--metrics", ",".join(profiled.METRICS)]
    command = ["ncu", *options, *python, str(FOLDER / "profiled.py")]
    parts.append(Part("profile", "counters of the kernels", command, 0.05, of_profiler, "ncu"))
    return parts
