"""What a GPU's chart has beside the ratios: bandwidth, and the time of the host."""

from __future__ import annotations

from functools import partial
from typing import Any

from fastadam.bench.cuda_ceilings import NAMES
from fastadam.bench.picture import GREY, STYLES, Panel, clean, plain_ticks

__all__ = ["panels"]


def panels(result: dict[str, Any]) -> list[Panel]:
    """Return what there is to draw of a result."""
    results = result["results"]
    made: list[Panel] = []
    ceilings = results.get("ceilings", [])
    reached = _reached(results)
    if ceilings:
        height = 1.0 + 0.25 * (len(NAMES) + len(reached))
        made.append((height, partial(_draw_bandwidth, ceilings[0], reached)))
    rows = [row for row in results.get("host", []) if row.get("device") == "cuda"]
    if rows:
        made.append((3.2, partial(_draw_host, rows)))
    return made


def _reached(results: dict[str, Any]) -> list[tuple[str, float]]:
    """Return the TB/s of fastadam's large steps and norms, by what they are called."""
    found = []
    for row in results.get("ratios", []):
        times = row["times_us"]
        ours = [times[name]["median"] for name in times if name.startswith("fastadam")]
        if row["elements"] >= 1_000_000:
            what = f"step, {row['case']} {row['dtype']}"
            found.append((what, row["bytes_moved"] / min(ours) / 1e6))
    for row in results.get("norm", []):
        if row["elements"] >= 1_000_000:
            what = f"norm, {row['case']} {row['dtype']}"
            found.append((what, row["tb_per_s"]["norm"]["median"]))
    return found


def _draw_bandwidth(row: dict[str, Any], reached: list[tuple[str, float]], axes: Any) -> None:
    """Draw a bar for each of the ceilings, and for what has been reached."""
    bars = [(words, row["tb_per_s"][name]["median"]) for name, words in NAMES.items()]
    names, values = zip(*bars, *reached, strict=True)
    colours = [GREY] * len(bars) + [STYLES["fastadam"][0]] * len(reached)
    places = range(len(names))
    axes.barh(places, values, color=colours, height=0.6)
    axes.set_yticks(places, names, fontsize=8)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlabel("TB/s (right is better); grey: what memory gives")
    clean(axes)


def _draw_host(rows: list[dict[str, Any]], axes: Any) -> None:
    """Draw a line for each way to update, over the number of parameters."""
    own = [row for row in rows if row["variant"] == rows[0]["variant"]]
    for name in dict.fromkeys(name for row in own for name in row["times_us"]):
        points = [
            (row["tensors"], row["times_us"][name]["median"])
            for row in own
            if name in row["times_us"]
        ]
        colour, mark = STYLES.get(name, (None, "o"))
        axes.plot(*zip(*points, strict=True), mark, linestyle="-", color=colour, label=name)
    axes.set_xscale("log")
    axes.set_yscale("log")
    plain_ticks(axes.xaxis)
    plain_ticks(axes.yaxis)
    axes.set_xlabel("parameters")
    axes.set_ylabel("µs of the host for an update")
    axes.legend(frameon=False, fontsize=8, ncols=2)
    clean(axes)
