"""A report on a GPU as Markdown, to be pasted into an issue."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from estimated import beside_estimates

from fastadam.bench.cuda_ceilings import NAMES
from fastadam.bench.cuda_host import CASES
from fastadam.bench.report import digits, microseconds, spelled

__all__ = ["text"]

OTHERS = (
    *("fastadam-graph", "graph-alone", "fastadam-torch", "torch-fused", "torch-foreach", "apex"),
    "chainer",
)
# Of names of what failed, no more than this are listed.
MOST = 20


def text(report: dict[str, Any]) -> str:
    """Lay out a report, whatever it has by now."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: dict[str, Any]) -> Iterator[str]:
    results = report["results"]
    environment = results.get("environment") or {}
    yield f"# fastadam on {environment.get('gpu', 'an unknown GPU')}"
    yield ""
    yield from _environment(environment, report["date"])
    if not report["finished"]:
        yield "This report is not finished: the parts that are not reached were still to come."
        yield ""
    yield from _parts(report["parts"])
    yield from _skipped(results)
    bench = results.get("bench") or {}
    if "results" in bench:
        yield from _bench(bench, environment.get("gpu", ""))
    if results.get("profile"):
        yield from _profile(results["profile"])
    yield from _failures(report["parts"])


def _environment(told: dict[str, Any], date: str) -> Iterator[str]:
    """Say on what everything was made."""
    words = [f"{key} {told[key]}" for key in ("driver", "runtime", "nvrtc", "cupy") if key in told]
    if "compute_capability" in told:
        words.insert(0, f"compute capability {told['compute_capability']}")
        words.insert(1, f"{told['multiprocessors']} multiprocessors")
        words.insert(2, f"{told['memory_bytes'] / 1e9:.0f} GB")
    config = told.get("fastadam", {})
    words += [f"fastadam {config['fastadam']}", config["python"]] if config else []
    words += [f"{name} {version}" for name, version in told.get("versions", {}).items()]
    yield ", ".join([*words, date])
    yield ""
    if told.get("nvidia_smi"):
        yield from ("```", told["nvidia_smi"], "```", "")


def table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Lay out rows, of which the first is the head."""
    for i, row in enumerate(rows):
        yield "| " + " | ".join(cell.replace("|", "/") for cell in row) + " |"
        if i == 0:
            yield "|" + "---|" * len(row)
    yield ""


def _parts(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Say how each part ended."""
    lines = [["Part", "Verdict", "What has run", "Seconds", "True if it passes"]]
    for row in rows:
        seconds = f"{row['seconds']:.0f} of {row['limit']:.0f}" if "seconds" in row else ""
        why = f" ({row['why']})" if "why" in row else ""
        verdict, ran = f"**{row['verdict']}**{why}", row.get("ran", "")
        lines.append([row["name"], verdict, ran, seconds, row["about"]])
    yield from table(lines)


def _skipped(results: dict[str, Any]) -> Iterator[str]:
    """Say why tests were skipped, and how many for each reason."""
    lines = [["Part", "Skipped", "Why"]]
    for name, result in results.items():
        for why, number in result.get("skipped", {}).items():
            lines.append([name, f"{number:,}", " ".join(why.split())])
    if len(lines) > 1:
        yield from table(lines)


def _bench(bench: dict[str, Any], gpu: str) -> Iterator[str]:
    """Lay out what the benchmark has measured."""
    results = bench["results"]
    copy = None
    for row in results.get("ceilings", []):
        yield "## What the memory gives"
        yield ""
        copy = row["tb_per_s"]["copy"]["median"]
        measured = [[NAMES[name], spelled(row["tb_per_s"][name])] for name in NAMES]
        yield from table([["", "TB/s (quartiles)"], *measured])
    steps = results.get("ratios", []) + results.get("amsgrad", [])
    if steps:
        yield from _ratios(steps, copy)
    if results.get("norm"):
        yield from _norms(results["norm"])
    if results.get("host"):
        yield from _hosts(results["host"])
    estimated = beside_estimates(gpu, results)
    if estimated:
        yield from ("## Beside what was estimated (docs/design/018)", "")
        head = ["Case", "kernel", "TB/s estimated", "measured", "of the estimate"]
        yield from table([head, *estimated])
    if bench["targets"]:
        yield from ("## What is wanted", "")
        lines = [["", "wanted", "measured", "reached"]]
        for one in bench["targets"]:
            reached = "yes" if one["reached"] else "**no**"
            lines.append([one["what"], f"{one['wanted']:g}", f"{one['measured']:.3g}", reached])
        yield from table(lines)
    for one in bench["left_out"]:
        where = f" ({'; '.join(one['where'])})" if one["where"] else ""
        yield f"* Left out: {one['what']}{where}: {one['why']}"
    yield ""


def _ratios(rows: list[dict[str, Any]], copy: float | None) -> Iterator[str]:
    """Lay out the steps: of the others, how many times longer they take than fastadam."""
    yield from ("## Steps; of the others, in times of fastadam's, and TB/s of their own bytes", "")
    names = [name for name in OTHERS if any(name in row["times_us"] for row in rows)]
    lines = [["Case", "fastadam", "TB/s", "of the copy ceiling", "beside its copy", *names]]
    for row in rows:
        us = row["times_us"]["fastadam"]["median"]
        rate = row["bytes_moved"] / us / 1e6
        share = f"{100 * rate / copy:.0f} %" if copy else ""
        others = (_beside(row, name) for name in names)
        floor = digits(row["beside_floor"]["fastadam"]["median"])
        case = f"{row['case']}, {row['variant']} {row['dtype']}"
        lines.append([case, microseconds(us), digits(rate), share, floor, *others])
    yield from table(lines)


def _beside(row: dict[str, Any], name: str) -> str:
    """Say how one of the others did."""
    if name not in row["beside_fastadam"]:
        return ""
    rate = digits(row["tb_per_s"][name]["median"])
    return f"{spelled(row['beside_fastadam'][name])}; {rate} TB/s"


def _norms(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Lay out norms beside reads, and clipping beside the step."""
    yield from ("## The norm beside reading; clipping beside the step", "")
    lines = [["Case", "norm", "TB/s", "beside read", "divided, TB/s", "clipping beside step"]]
    for row in rows:
        lines.append(
            [
                f"{row['case']}, {row['variant']} {row['dtype']}",
                microseconds(row["times_us"]["norm"]["median"]),
                digits(row["tb_per_s"]["norm"]["median"]),
                spelled(row["norm_beside_read"]),
                digits(row["tb_per_s"]["scaled-norm"]["median"]),
                spelled(row["clip_beside_step"]),
            ]
        )
    yield from table(lines)


def _hosts(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Lay out the time of the host."""
    yield from ("## Time of the host for an update", "")
    lines = [["Parameters", *(f"{row['tensors']:,}" for row in rows)]]
    for name in dict.fromkeys(name for row in rows for name in row["times_us"]):
        measured = (row["times_us"].get(name) for row in rows)
        times = (microseconds(one["median"]) if one else "" for one in measured)
        lines.append([CASES.get(name, name), *times])
    yield from table(lines)


def _profile(profile: dict[str, Any]) -> Iterator[str]:
    """Lay out the counters."""
    if profile.get("rows"):
        yield from ("<details><summary>Counters of the kernels</summary>", "")
        head = ["Launch", "Kernel", "Counter", "Unit", "Value"]
        yield from table([head, *([str(cell) for cell in row] for row in profile["rows"])])
        yield from ("</details>", "")


def _failures(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Show what failed, and the last lines of what it printed."""
    for row in rows:
        if "last_lines" not in row:
            continue
        yield from (f"## {row['name']}: {row['verdict']}", "")
        names = row["failed"]
        yield from (f"* {name}" for name in names[:MOST])
        if len(names) > MOST:
            yield f"* and {len(names) - MOST} more"
        yield from ("", "```", *row["last_lines"], "```", "")
