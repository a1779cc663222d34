"""Report, in a quarter of an hour, what a GPU makes of fastadam: one folder for an issue.

    python tests/gpu/report.py --output DIR [--minutes 15]

Each part is a program with a time of its own; one that fails or takes too long does not stop the
next. After each, report.json and report.md are written anew, whole, so that whatever ends this
program leaves what is known by then. chart.png is the benchmark's. With --stand-in everything is
run, tiny, where there is no GPU: to try this script.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from report_parts import Part, all_parts, bench_seconds
from report_text import text

__all__ = ["main", "run"]

# How many lines of what failed are shown, and how long a program that is interrupted has.
LAST_LINES = 30
GRACE_S = 10.0


def run(parts: Sequence[Part], minutes: float, folder: Path) -> dict[str, Any]:
    """Run parts one after the other, writing the report before the first and after each.

    Returns
    -------
    dict
        The report, as it is in report.json.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for part in parts:
        # what an earlier run has left would be read as this one's
        for name in (f"{part.name}.log", *part.leaves):
            (folder / name).unlink(missing_ok=True)
    rows: list[dict[str, Any]] = [
        {"name": part.name, "about": part.about, "verdict": "not reached"} for part in parts
    ]
    report = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "minutes": minutes,
        "parts": rows,
        "results": {},
        "finished": False,
    }
    write(report, folder)
    ends = time.monotonic() + 60 * minutes
    for i, part in enumerate(parts):
        left = ends - time.monotonic()
        limit = left * part.share / sum(each.share for each in parts[i:])
        if part.tool is not None and shutil.which(part.tool) is None:
            row: dict[str, Any] = {"verdict": "not there", "why": f"{part.tool} is not on the PATH"}
        elif rows[0]["verdict"] == "failed":
            row = {"verdict": "not there", "why": f"{parts[0].name} failed"}
        else:
            print(f"{part.name}: at most {limit:.0f} s", flush=True)
            row, report["results"][part.name] = run_part(part, limit, folder)
        rows[i] |= row
        print(f"{part.name}: {row['verdict']}", flush=True)
        report["finished"] = i == len(parts) - 1
        write(report, folder)
    return report


def run_part(part: Part, limit: float, folder: Path) -> tuple[dict[str, Any], Any]:
    """Run one part; return its row of the report, and what was read of it."""
    known = {"{folder}": str(folder), "{seconds}": str(bench_seconds(limit))}
    command = [replaced(word, known) for word in part.command]
    log = folder / f"{part.name}.log"
    began = time.monotonic()
    status = wait_for(command, limit, log)
    row: dict[str, Any] = {
        "seconds": round(time.monotonic() - began, 1),
        "limit": round(limit, 1),
        "command": command,
        "exit_status": status,
    }
    printed = log.read_text(errors="replace")
    try:
        result = part.read(folder, printed)
    except Exception as error:
        # whatever a program has left half-written
        result = {"nothing": f"unreadable result: {type(error).__name__}: {error}"}
    row |= {"failed": result.get("failed", []), "ran": result.get("ran", "")}
    if "not_there" in result:
        row |= {"verdict": "not there", "why": result["not_there"]}
    elif status is None:
        # what was found by then is a failure all the same
        row |= {"verdict": "failed", "why": "and out of time"} if row["failed"] else {}
        row.setdefault("verdict", "out of time")
    else:
        row["failed"] += [result["nothing"]] if "nothing" in result else []
        row["verdict"] = "failed" if status or row["failed"] else "passed"
    if row["verdict"] in ("failed", "out of time"):
        row["last_lines"] = printed.splitlines()[-LAST_LINES:]
    return row, result


def replaced(word: str, known: dict[str, str]) -> str:
    """Return a word of a command with what is known by now."""
    for name, value in known.items():
        word = word.replace(name, value)
    return word


def wait_for(command: list[str], limit: float, log: Path) -> int | None:
    """Run a program; return its exit status, None if it had to be ended for taking too long."""
    with log.open("wb") as out:
        # a group of its own, so that what it has started ends with it
        process = subprocess.Popen(
            command,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # what it has printed is there even if it is killed
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        try:
            return process.wait(max(limit, 0.0))
        except subprocess.TimeoutExpired:
            # pytest writes what it knows when it is interrupted
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(min(GRACE_S, max(limit, 1.0)))
            return None
        finally:
            end_group(process)


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End what is left of a program and of what it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def write(report: dict[str, Any], folder: Path) -> None:
    """Write both forms of the report, each the whole old or the whole new one at any time."""
    for name, content in (
        ("report.json", json.dumps(report, indent=1) + "\n"),
        ("report.md", text(report)),
    ):
        part = folder / f"{name}.part"
        part.write_text(content, encoding="utf-8")
        part.replace(folder / name)


def main(argv: list[str]) -> int:
    """Run all parts; return 1 if one of them failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--minutes", type=minutes, default=15.0, metavar="N")
    parser.add_argument("--stand-in", action="store_true")
    args = parser.parse_args(argv)
    # Whoever ends this ends the part that runs, too, which a closed terminal does not reach.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # nohup has it ignored
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda number, _: sys.exit(128 + number))
    report = run(all_parts(args.stand_in), args.minutes, args.output.resolve())
    print((args.output / "report.md").read_text(encoding="utf-8"))
    return int(any(row["verdict"] == "failed" for row in report["parts"]))


def minutes(text: str) -> float:
    """Read a number of minutes."""
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no number of minutes above 0")
    return number


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
