"""The benchmark's picture: times beside the memory floor, and the time of an element by size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastadam.bench.report import microseconds
from fastadam.cli.extras import load

__all__ = ["check_matplotlib", "save_picture"]

# Okabe and Ito's colours, which people with any kind of colour vision tell apart, and a mark each.
_STYLES = {
    "fastadam": ("#d55e00", "o"),
    "fastadam-link": ("#d55e00", "D"),
    "fastadam-graph": ("#d55e00", "D"),
    "numpy": ("#999999", "s"),
    "torch-fused": ("#0072b2", "^"),
    "torch-foreach": ("#56b4e9", "v"),
    "torch-single": ("#56b4e9", "<"),
    "optax": ("#009e73", "P"),
    "deepspeed": ("#cc79a7", "X"),
    "chainer": ("#000000", "*"),
}
_GREY = "#666666"
_LINES = {1: "-", 100: "--", 10_000: ":"}


def check_matplotlib() -> None:
    """Raise MissingExtra if there is no matplotlib."""
    load("bench", "matplotlib.figure")


def save_picture(path: Path, result: dict[str, Any]) -> None:
    """Draw what was measured into a PNG file.

    Parameters
    ----------
    path : pathlib.Path
        The file to write.
    result : dict
        The command's result. Ratios, the chain, the host's cost and sweeps are drawn.
    """
    # without pyplot: no display is looked for, and the user's backend is left alone
    measured = result["results"]
    rows = [row for what in ("ratios", "host") for row in measured.get(what, ())]
    sweeps = measured.get("sweep", [])
    heights = ([1.2 + 0.6 * len(rows)] if rows else []) + [4.6] * len(sweeps)
    figure = load("bench", "matplotlib.figure").Figure(
        figsize=(9, sum(heights) + 0.6 or 1.0), layout="constrained"
    )
    panels = figure.subplots(len(heights), squeeze=False, height_ratios=heights) if heights else []
    axes = [panel for (panel,) in panels]
    if rows:
        _draw_ratios(axes.pop(0), rows)
    for panel, sweep in zip(axes, sweeps, strict=True):
        _draw_sweep(panel, sweep)
    made_on = result["made_on"]
    figure.supxlabel(
        f"{made_on.get('gpu', made_on['cpu'])}, {made_on['cpus']} CPUs, {made_on['date']}",
        fontsize=8,
        color=_GREY,
    )
    figure.savefig(path, format="png", dpi=130)


def _draw_ratios(axes: Any, rows: list[dict[str, Any]]) -> None:
    """Draw a line of marks for every row: how far each contender is from the floor."""
    shown: set[str] = set()
    for y, row in enumerate(rows):
        floor = row["times_us"]["floor"]["median"]
        axes.axhline(y, color="#eeeeee", linewidth=6, zorder=0)
        for name, times in row["times_us"].items():
            if name == "floor":
                continue
            colour, mark = _STYLES[name]
            axes.plot([times["q1"] / floor, times["q3"] / floor], [y, y], color=colour, zorder=1)
            axes.plot(
                times["median"] / floor,
                y,
                mark,
                color=colour,
                markersize=8 if name == "fastadam" else 6,
                markerfacecolor="none" if name.startswith("fastadam-") else colour,
                label=None if name in shown else name,
                zorder=3 if name == "fastadam" else 2,
            )
            shown.add(name)
    axes.axvline(1, color="#000000", linewidth=1.2, label="memory floor")
    axes.set_yticks(range(len(rows)), [_label(row) for row in rows], fontsize=8)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xscale("log")
    _plain_ticks(axes.xaxis)
    axes.set_xlabel("time of a step, in times of the floor (left is better)")
    axes.legend(frameon=False, fontsize=8, ncols=5, loc="lower center", bbox_to_anchor=(0.4, 1.01))
    _clean(axes)


def _label(row: dict[str, Any]) -> str:
    """Name a row by its case and by what fastadam takes for it."""
    ours = microseconds(row["times_us"]["fastadam"]["median"])
    on_gpu = row.get("device") == "cuda"
    where = "on a GPU" if on_gpu else f"{row['threads']} thread(s)"
    lines = (row["case"], f"{row['variant']} {row['dtype']}, {where}")
    return "\n".join((*lines, f"fastadam: {ours}"))


def _draw_sweep(axes: Any, sweep: dict[str, Any]) -> None:
    """Draw times of an element by size, and the regions."""
    points = sweep["points"]
    for name in points[0]["us"]:
        for count in dict.fromkeys(point["tensors"] for point in points):
            drawn = [point for point in points if point["tensors"] == count]
            if name == "floor" and count != 1:
                continue
            axes.plot(
                [point["elements"] for point in drawn],
                [point["us"][name] * 1000 / point["elements"] for point in drawn],
                _LINES[count],
                color="#000000" if name == "floor" else _STYLES[name][0],
                linewidth=1.2 if name == "floor" else 1.8,
                label="memory floor" if name == "floor" else f"{name}, {count:,} {_tensors(count)}",
            )
    axes.set_xscale("log")
    axes.set_yscale("log")
    _plain_ticks(axes.xaxis)
    _plain_ticks(axes.yaxis)
    left = float(points[0]["elements"])
    right = float(points[-1]["elements"])
    axes.set_xlim(left, right)
    for region in sweep["regions"]:
        end = min(region["up_to"] or right, right)
        if (region["up_to"] is None and region["name"] != "memory") or end <= left:
            continue
        if end < right:
            axes.axvline(end, color=_GREY, linewidth=0.8, linestyle=(0, (2, 3)))
        axes.text(
            (left * end) ** 0.5,
            0.98,
            region["name"],
            transform=axes.get_xaxis_transform(),
            ha="center",
            va="top",
            fontsize=9,
            color=_GREY,
        )
        left = end
    axes.set_xlabel("elements of all tensors together")
    axes.set_ylabel("nanoseconds for an element")
    axes.set_title(
        f"{sweep['variant']} {sweep['dtype']}, {sweep['threads']} thread(s)",
        loc="left",
        fontsize=10,
    )
    axes.legend(frameon=False, fontsize=8, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.05))
    _clean(axes)


def _plain_ticks(axis: Any) -> None:
    """Write numbers, not powers of ten."""
    axis.set_major_formatter(load("bench", "matplotlib.ticker").FuncFormatter(_plain))


def _plain(number: float, position: int) -> str:
    """Write a tick's number."""
    return f"{number:,.0f}" if number >= 1 else f"{number:g}"


def _tensors(count: int) -> str:
    """Use the singular for one."""
    return "tensor" if count == 1 else "tensors"


def _clean(axes: Any) -> None:
    """Leave away what is no information."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_GREY)
    axes.tick_params(which="both", colors=_GREY)
    axes.tick_params(axis="y", which="major", labelcolor="#000000")
