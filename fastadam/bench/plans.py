"""Everything that one run of the benchmark measures, from its options."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from fastadam.bench.cases import Case, many
from fastadam.bench.chain import compare_chains
from fastadam.bench.memory import extra_memory
from fastadam.bench.peers import Roster
from fastadam.bench.ratios import compare
from fastadam.bench.subnormal import compare_states
from fastadam.bench.sweep import sweep
from fastadam.bench.timing import Plan
from fastadam.cli import output

__all__ = ["QUICK", "THOROUGH", "WHAT", "Options", "Sizes", "run"]


class Sizes(NamedTuple):
    """How long and on what to measure, where the options do not say it.

    Attributes
    ----------
    plan : Plan
        How long every comparison takes.
    cases : tuple of str
        Which of ``cases.CASES`` are compared.
    host, memory, subnormal, sweep : int
        Parameters of the host cost; elements of the others, at most.
    """

    plan: Plan
    cases: tuple[str, ...]
    host: int
    memory: int
    subnormal: int
    sweep: int


THOROUGH = Sizes(
    plan=Plan(),
    cases=("mlp", "many", "many-fresh", "resnet50", "gpt2", "20m", "100m"),
    host=1000,
    memory=100_000_000,
    subnormal=1_000_000,
    sweep=100_000_000,
)
QUICK = Sizes(
    plan=Plan(rounds=5, block_s=0.005, settle_s=0.005),
    cases=("mlp", "many", "many-fresh"),
    host=1000,
    memory=1_000_000,
    subnormal=100_000,
    sweep=100_000,
)


class Options(NamedTuple):
    """What to measure.

    Attributes
    ----------
    what : sequence of str
        Of `WHAT`.
    cases : sequence of Case
        For ratios and the chain.
    variants : sequence of str
        Of ``settings.VARIANTS``.
    dtypes : sequence of (str or None)
        None for each tensor's own.
    threads : sequence of int
        One run of everything for each.
    sizes : Sizes
        The rest.
    """

    what: Sequence[str]
    cases: Sequence[Case]
    variants: Sequence[str]
    dtypes: Sequence[str | None]
    threads: Sequence[int]
    sizes: Sizes


def run(roster: Roster, options: Options) -> dict[str, list[dict[str, Any]]]:
    """Measure; return the results by what was measured, ready for JSON."""
    results: dict[str, list[dict[str, Any]]] = {}
    for what in options.what:
        results[what] = []
        for n_threads in options.threads:
            for variant in options.variants:
                for dtype in options.dtypes:
                    results[what] += WHAT[what](roster, options, variant, dtype, n_threads)
    return results


_Rows = list[dict[str, Any]]


def _ratios(
    roster: Roster, options: Options, variant: str, dtype: str | None, n_threads: int
) -> _Rows:
    """Compare on every case."""
    rows = []
    for case in options.cases:
        _say("ratios", case.name, variant, dtype, n_threads)
        rows.append(compare(roster, case, variant, dtype, n_threads, options.sizes.plan))
    return [row for row in rows if row is not None]


def _chain(
    roster: Roster, options: Options, variant: str, dtype: str | None, n_threads: int
) -> _Rows:
    """Compare the chains on every case."""
    rows = []
    for case in options.cases:
        _say("chain", case.name, variant, dtype, n_threads)
        rows.append(compare_chains(roster, case, variant, dtype, n_threads, options.sizes.plan))
    return [row for row in rows if row is not None]


def _host(
    roster: Roster, options: Options, variant: str, dtype: str | None, n_threads: int
) -> _Rows:
    """Compare on parameters of one element, where all else is what the host costs."""
    rows = []
    n = options.sizes.host
    for fresh in (False, True):
        _say("host", "fresh gradients" if fresh else "kept gradients", variant, dtype, n_threads)
        case = many(fresh, n, 1)
        row = compare(roster, case, variant, dtype or "float32", n_threads, options.sizes.plan)
        if row is not None:
            medians = {name: times["median"] / n for name, times in row["times_us"].items()}
            rows.append({**row, "case": f"host-{row['gradients']}", "us_per_parameter": medians})
    return rows


def _memory(
    roster: Roster, options: Options, variant: str, dtype: str | None, n_threads: int
) -> _Rows:
    """Measure what an update needs beyond its arrays."""
    elements = options.sizes.memory
    _say("memory", f"{elements:,} elements", variant, dtype, n_threads)
    return extra_memory(roster, elements, variant, dtype or "float32", n_threads)


def _subnormal(
    roster: Roster, options: Options, variant: str, dtype: str | None, n_threads: int
) -> _Rows:
    """Compare the two kinds of state."""
    sizes = options.sizes
    _say("subnormal", f"{sizes.subnormal:,} elements", variant, dtype, n_threads)
    return [
        compare_states(roster, sizes.subnormal, variant, dtype or "float32", n_threads, sizes.plan)
    ]


def _sweep(
    roster: Roster, options: Options, variant: str, dtype: str | None, n_threads: int
) -> _Rows:
    """Measure over sizes and numbers of tensors."""
    sizes = options.sizes
    # of its many points none needs many rounds
    plan = sizes.plan._replace(rounds=min(sizes.plan.rounds, 5), block_s=0.01)
    return [sweep(roster, sizes.sweep, variant, dtype or "float32", n_threads, plan)]


def _say(what: str, on: str, variant: str, dtype: str | None, n_threads: int) -> None:
    """Tell what is being measured."""
    kind = dtype or "its own dtypes"
    output.progress(f"{what}: {on}, {variant}, {kind}, {n_threads} thread(s)")


# By the names of --what.
WHAT: dict[str, Callable[[Roster, Options, str, str | None, int], _Rows]] = {
    "ratios": _ratios,
    "chain": _chain,
    "host": _host,
    "memory": _memory,
    "subnormal": _subnormal,
    "sweep": _sweep,
}
