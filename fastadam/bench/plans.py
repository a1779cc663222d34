"""Everything that one run of the benchmark measures, from its options."""

from __future__ import annotations

import gc
import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

from fastadam.bench import report
from fastadam.bench.cases import Case, many
from fastadam.bench.peers import Roster
from fastadam.bench.ratios import compare
from fastadam.bench.timing import Plan
from fastadam.cli import output

__all__ = [
    "QUICK",
    "THOROUGH",
    "WHAT",
    "Measurement",
    "Options",
    "Rows",
    "Sizes",
    "attempt",
    "ratios",
    "run",
]

Rows = list[dict[str, Any]]
Made = TypeVar("Made")


class Sizes(NamedTuple):
    """How long and on what to measure, where the options do not say it.

    Attributes
    ----------
    plan : Plan
        How long every comparison takes.
    cases : tuple of str
        Which of ``cases.CASES`` are compared.
    host : int
        Parameters of the host cost.
    quick : bool
        Whether these are the small ones.
    """

    plan: Plan
    cases: tuple[str, ...]
    host: int = 1000
    quick: bool = False


THOROUGH = Sizes(Plan(), ("mlp", "many", "many-fresh", "resnet50", "gpt2", "20m", "100m"))
QUICK = Sizes(
    Plan(rounds=5, block_s=0.005, settle_s=0.005), ("mlp", "many", "many-fresh"), quick=True
)


class Options(NamedTuple):
    """What to measure; a dtype of None is each tensor's own."""

    cases: Sequence[Case]
    variants: Sequence[str]
    dtypes: Sequence[str | None]
    threads: Sequence[int]
    sizes: Sizes


class Measurement(NamedTuple):
    """One of the names of ``--what``: what makes its rows, and what lays them out as text."""

    rows: Callable[[Roster, Options, str, str | None, int], Iterable[dict[str, Any] | None]]
    text: Callable[[Rows], Iterator[str]] = report.text


def run(
    roster: Roster, measurements: Mapping[str, Measurement], options: Options
) -> Iterator[tuple[str, dict[str, Any] | None]]:
    """Measure; yield what was measured and each row, ready for JSON, as soon as it is known.

    A row is None where nothing could be measured. Where time is limited, measurements take turns,
    so that something of each is known when it ends.
    """
    ways = list(itertools.product(options.threads, options.variants, options.dtypes))

    def rows(what: str) -> Iterator[tuple[str, dict[str, Any] | None]]:
        for n_threads, variant, dtype in ways:
            for row in measurements[what].rows(roster, options, variant, dtype, n_threads):
                yield what, row

    left = [rows(what) for what in measurements]
    while left:
        one = left.pop(0)
        for row in one:
            yield row
            if roster.until < math.inf:
                left.append(one)
                break


def ratios(
    roster: Roster, options: Options, variant: str, dtype: str | None, n_threads: int
) -> Iterator[dict[str, Any] | None]:
    """Compare on every case."""
    for case in options.cases:
        way = variant, dtype, n_threads
        make = partial(compare, roster, case, *way, options.sizes.plan)
        yield attempt(roster, "ratios", case.name, *way, make)


def _host(
    roster: Roster, options: Options, variant: str, dtype: str | None, n_threads: int
) -> Iterator[dict[str, Any]]:
    """Compare on parameters of one element, where all else is what the host costs."""
    n = options.sizes.host
    for fresh in (False, True):
        on = "fresh gradients" if fresh else "kept gradients"
        way = variant, dtype or "float32", n_threads
        make = partial(compare, roster, many(fresh, n, 1), *way, options.sizes.plan)
        row = attempt(roster, "host", on, *way, make)
        if row is not None:
            medians = {name: times["median"] / n for name, times in row["times_us"].items()}
            yield {**row, "case": f"host-{row['gradients']}", "us_per_parameter": medians}


def attempt(
    roster: Roster,
    what: str,
    on: str,
    variant: str,
    dtype: str | None,
    n_threads: int,
    make: Callable[[], Made],
) -> Made | None:
    """Measure, and tell what before, on standard error.

    Returns
    -------
    object
        What `make` returns. None, with a note in the roster, if no time is left for it, or if it
        ends with one of the roster's failures.
    """
    where = f"{on}, {variant}, {dtype or 'its own dtypes'}, {roster.place(n_threads)}"
    if time.perf_counter() > roster.until:
        roster.leave_out(what, "no time was left for it; --seconds gives more", where)
        return None
    output.progress(f"{what}: {where}")
    try:
        return make()
    except roster.failures as error:
        roster.fail(what, f"{type(error).__name__}: {error}", where)
        return None
    finally:
        # what the next needs; of a failure, after the frames have gone that held it
        gc.collect()
        roster.release()


# By the names of --what.
WHAT = {"ratios": Measurement(ratios), "host": Measurement(_host)}
