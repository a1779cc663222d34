"""The benchmark's picture: times beside the memory floor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from fastadam.bench.ratios import FLOOR
from fastadam.bench.report import microseconds, where
from fastadam.cli.extras import load

__all__ = ["GREY", "STYLES", "Panel", "clean", "plain_ticks", "save_picture"]

# Okabe and Ito's colours, which people with any kind of colour vision tell apart, and a mark each.
STYLES = {
    "fastadam": ("#d55e00", "o"),
    "fastadam-link": ("#d55e00", "D"),
    "fastadam-graph": ("#d55e00", "D"),
    "graph-alone": ("#d55e00", "x"),
    "fastadam-torch": ("#d55e00", "^"),
    "numpy": ("#999999", "s"),
    "torch-fused": ("#0072b2", "^"),
    "torch-foreach": ("#56b4e9", "v"),
    "torch-single": ("#56b4e9", "<"),
    "optax": ("#009e73", "P"),
    "deepspeed": ("#cc79a7", "X"),
    "chainer": ("#000000", "*"),
    "apex": ("#cc79a7", "P"),
}
GREY = "#666666"


# The height in inches and what draws into its axes.
Panel = tuple[float, Callable[[Any], None]]


def save_picture(path: Path, result: dict[str, Any], more: Sequence[Panel] = ()) -> None:
    """Draw the ratios and the host's cost of a result into a PNG file, and more panels below."""
    compared = [row for what in ("ratios", "host") for row in result["results"].get(what, ())]
    rows = [row for row in compared if FLOOR in row["times_us"]]
    panels = list(more)
    if rows:
        panels.insert(0, (1.2 + 0.6 * len(rows), partial(_draw_ratios, rows)))
    heights = [height for height, _ in panels]
    # without pyplot: no display is looked for, and the user's backend is left alone
    figure = load("bench", "matplotlib.figure").Figure(
        figsize=(9, sum(heights) + 0.6 or 1.0), layout="constrained"
    )
    if panels:
        axes = figure.subplots(len(panels), squeeze=False, height_ratios=heights)
        for (panel,), (_, draw) in zip(axes, panels, strict=True):
            draw(panel)
    made_on = result["made_on"]
    figure.supxlabel(
        f"{made_on.get('gpu', made_on['cpu'])}, {made_on['cpus']} CPUs, {made_on['date']}",
        fontsize=8,
        color=GREY,
    )
    figure.savefig(path, format="png", dpi=130)


def _draw_ratios(rows: list[dict[str, Any]], axes: Any) -> None:
    """Draw a line of marks for every row: how far each contender is from the floor."""
    shown: set[str] = set()
    for y, row in enumerate(rows):
        floor = row["times_us"][FLOOR]["median"]
        axes.axhline(y, color="#eeeeee", linewidth=6, zorder=0)
        for name, times in row["times_us"].items():
            if name == FLOOR:
                continue
            colour, mark = STYLES[name]
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
    plain_ticks(axes.xaxis)
    axes.set_xlabel("time of a step, in times of the floor (left is better)")
    axes.legend(frameon=False, fontsize=8, ncols=5, loc="lower center", bbox_to_anchor=(0.4, 1.01))
    clean(axes)


def _label(row: dict[str, Any]) -> str:
    """Name a row by its case and by what fastadam takes for it."""
    ours = microseconds(row["times_us"]["fastadam"]["median"])
    return f"{row['case']}\n{row['variant']} {row['dtype']}, {where(row)}\nfastadam: {ours}"


def plain_ticks(axis: Any) -> None:
    """Write numbers, not powers of ten."""
    # what is given a function formats with it
    axis.set_major_formatter(lambda x, position: f"{x:,.0f}" if x >= 1 else f"{x:g}")


def clean(axes: Any) -> None:
    """Leave away what is no information."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.tick_params(which="both", colors=GREY)
    axes.tick_params(axis="y", which="major", labelcolor="#000000")
