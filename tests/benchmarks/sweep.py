"""The time of an element over sizes and numbers of tensors."""

from __future__ import annotations

import gc
import statistics
from collections.abc import Iterator
from typing import Any

from fastadam.bench import arrays, machine, picture, report
from fastadam.bench.cases import many
from fastadam.bench.contender import Contender
from fastadam.bench.floor import Floor
from fastadam.bench.libraries import TorchFused
from fastadam.bench.own import FastadamArrays
from fastadam.bench.peers import Roster
from fastadam.bench.ratios import FLOOR, fits, subject
from fastadam.bench.settings import VARIANTS
from fastadam.bench.timing import Plan, Subject, measure
from fastadam.cli import output

# Numbers of tensors over which the elements are spread evenly.
COUNTS = (1, 100, 10_000)
LINES = {1: "-", 100: "--", 10_000: ":"}


def sizes(largest: int) -> list[int]:
    """Return numbers of elements from 1000 up, three in each power of ten.

    Examples
    --------
    >>> sizes(30_000)
    [1000, 2000, 5000, 10000, 20000]
    """
    found = []
    power = 1000
    while power <= largest:
        found += [factor * power for factor in (1, 2, 5) if factor * power <= largest]
        power *= 10
    return found


def sweep(
    roster: Roster, largest: int, variant: str, dtype: str, n_threads: int, plan: Plan
) -> dict[str, Any]:
    """Measure fastadam, the floor and PyTorch's fused step at every size.

    Parameters
    ----------
    roster : Roster
        Who is here.
    largest : int
        The most elements of all tensors together.
    variant, dtype, n_threads, plan
        As for ``ratios.compare``.

    Returns
    -------
    dict
        ``points``: for every number of elements and tensors the median times in microseconds by
        name; ``regions`` as `regions` returns them.
    """
    ready = roster.ready(variant, [dtype], n_threads)
    kinds: list[type[Contender]] = [k for k in (FastadamArrays, TorchFused) if k in ready]
    points: list[dict[str, Any]] = []
    for elements in sizes(largest):
        for count in COUNTS:
            case = many(n=count, size=elements // count)
            where = f"the sweep at {elements:,} elements"
            if count > elements or not fits(roster, case, variant, dtype, 2, where):
                continue
            output.progress(f"sweep: {elements:,} elements in {count:,} tensors")
            grads = arrays.gradients(case, dtype)
            floor = Floor(case, dtype, VARIANTS[variant], grads)
            subjects = [Subject(FLOOR, floor.step)] + [
                subject(kind(VARIANTS[variant], arrays.parameters(case, dtype)), grads, False)
                for kind in kinds
            ]
            times = measure(subjects, plan)
            medians = {name: statistics.median(each) for name, each in times.items()}
            points.append({"elements": elements, "tensors": count, "us": medians})
            del subjects, floor, grads
            gc.collect()
    stored, state = arrays.state_bytes(many(n=1, size=1), dtype, VARIANTS[variant])
    return {
        "variant": variant,
        "dtype": dtype,
        "threads": n_threads,
        "points": points,
        "regions": regions(points, 2 * stored + state, n_threads, machine.cache_bytes()),
    }


def regions(
    points: list[dict[str, Any]], element_bytes: int, n_threads: int, caches: dict[str, int]
) -> list[dict[str, Any]]:
    """Name what the time of a step of one tensor is, from the smallest size to the largest.

    Parameters
    ----------
    points : list of dict
        As `sweep` returns them.
    element_bytes : int
        Of parameter, gradient and state together.
    n_threads : int
        Each brings a second-level cache of its own, where steps are large enough for threads.
    caches : dict of str to int
        As ``machine.cache_bytes``.

    Returns
    -------
    list of dict
        ``name`` ('overhead', 'L2', 'L3', 'memory'), and ``up_to``, the number of elements where it
        ends: of 'overhead' that where a step takes twice the time of the smallest one, of a cache
        that which it holds; None for the last, and for caches whose sizes the system does not say.
    """
    found: list[dict[str, Any]] = []
    single = [(p["elements"], p["us"]["fastadam"]) for p in points if p["tensors"] == 1]
    doubled = [n for n, us in single if us >= 2 * single[0][1]]
    end = doubled[0] if doubled else None
    found.append({"name": "overhead", "up_to": end})
    for name, shares in (("L2", n_threads), ("L3", 1)):
        size = caches.get(name)
        up_to = size * shares // element_bytes if size else None
        # a cache that is smaller than what overhead hides has no region
        if up_to is None or end is None or up_to > end:
            found.append({"name": name, "up_to": up_to})
            end = up_to or end
    found.append({"name": "memory", "up_to": None})
    return found


def text(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Lay out times by size, in nanoseconds for an element."""
    for row in rows:
        yield f"nanoseconds for an element: {report.heading(row)}"
        names = list(row["points"][0]["us"])
        table = [["elements", "tensors", *names]]
        for point in row["points"]:
            each = [point["us"][name] * 1000 / point["elements"] for name in names]
            table.append(
                [f"{point['elements']:,}", f"{point['tensors']:,}", *map(report.digits, each)]
            )
        yield from (f"  {line}" for line in output.table(table, "r" * len(table[0])))
        ends = [
            f"{region['name']} up to {region['up_to']:,}"
            if region["up_to"]
            else f"{region['name']} (size unknown)"
            for region in row["regions"][:-1]
        ]
        yield f"  what the time of one tensor is: {', '.join(ends)}, then memory"
        yield ""


def draw(sweep: dict[str, Any], axes: Any) -> None:
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
                LINES[count],
                color="#000000" if name == "floor" else picture.STYLES[name][0],
                linewidth=1.2 if name == "floor" else 1.8,
                label="memory floor" if name == "floor" else f"{name}, {count:,} tensor(s)",
            )
    axes.set_xscale("log")
    axes.set_yscale("log")
    picture.plain_ticks(axes.xaxis)
    picture.plain_ticks(axes.yaxis)
    left = float(points[0]["elements"])
    right = float(points[-1]["elements"])
    axes.set_xlim(left, right)
    for region in sweep["regions"]:
        end = min(region["up_to"] or right, right)
        if (region["up_to"] is None and region["name"] != "memory") or end <= left:
            continue
        if end < right:
            axes.axvline(end, color=picture.GREY, linewidth=0.8, linestyle=(0, (2, 3)))
        axes.text(
            (left * end) ** 0.5,
            0.98,
            region["name"],
            transform=axes.get_xaxis_transform(),
            ha="center",
            va="top",
            fontsize=9,
            color=picture.GREY,
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
    picture.clean(axes)
