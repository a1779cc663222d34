"""Time what the command `bench` leaves out: chains, memory, subnormal state, and sizes.

Usage: python tests/benchmarks/campaigns.py --what chain,memory,subnormal,sweep --png chart.png

All options of ``python -m fastadam bench`` are here, too.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from typing import Any, ClassVar, NamedTuple

import chain
import memory
import subnormal
import sweep

from fastadam.bench.command import Bench
from fastadam.bench.peers import Roster
from fastadam.bench.picture import Panel
from fastadam.bench.plans import Measurement, Options, Rows, attempt


class Elements(NamedTuple):
    """How many elements are stepped, at most."""

    memory: int = 100_000_000
    subnormal: int = 1_000_000
    sweep: int = 100_000_000


THOROUGH = Elements()
QUICK = Elements(1_000_000, 100_000, 100_000)


def elements(options: Options) -> Elements:
    return QUICK if options.sizes.quick else THOROUGH


def chains(
    roster: Roster, options: Options, variant: str, dtype: str | None, n_threads: int
) -> Rows:
    """Compare the chains on every case."""
    plan, rows = options.sizes.plan, []
    way = variant, dtype, n_threads
    for case in options.cases:
        make = partial(chain.compare_chains, roster, case, *way, plan)
        rows.append(attempt(roster, "chain", case.name, *way, make))
    return [row for row in rows if row is not None]


def extra_memory(
    roster: Roster, options: Options, variant: str, dtype: str | None, n_threads: int
) -> Rows:
    """Measure what an update needs beyond its arrays."""
    n = elements(options).memory
    way = variant, dtype or "float32", n_threads
    make = partial(memory.extra_memory, roster, n, *way)
    return attempt(roster, "memory", f"{n:,} elements", *way, make) or []


def subnormal_state(
    roster: Roster, options: Options, variant: str, dtype: str | None, n_threads: int
) -> Rows:
    """Compare the two kinds of state."""
    n, plan = elements(options).subnormal, options.sizes.plan
    way = variant, dtype or "float32", n_threads
    make = partial(subnormal.compare_states, roster, n, *way, plan)
    row = attempt(roster, "subnormal", f"{n:,} elements", *way, make)
    return [] if row is None else [row]


def sizes(
    roster: Roster, options: Options, variant: str, dtype: str | None, n_threads: int
) -> Rows:
    """Measure over sizes and numbers of tensors."""
    # of its many points none needs many rounds
    plan = options.sizes.plan._replace(rounds=min(options.sizes.plan.rounds, 5), block_s=0.01)
    n = elements(options).sweep
    way = variant, dtype or "float32", n_threads
    make = partial(sweep.sweep, roster, n, *way, plan)
    row = attempt(roster, "sweep", f"up to {n:,} elements", *way, make)
    return [] if row is None else [row]


class Campaigns(Bench):
    """The command `bench`, with more to measure on the CPU."""

    what: ClassVar[dict[str, Measurement]] = {
        **Bench.what,
        "chain": Measurement(chains, chain.text),
        "memory": Measurement(extra_memory, memory.text),
        "subnormal": Measurement(subnormal_state, subnormal.text),
        "sweep": Measurement(sizes, sweep.text),
    }

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="print the result as JSON")
        super().add_arguments(parser)

    def panels(self, result: dict[str, Any]) -> list[Panel]:
        sweeps = [(4.6, partial(sweep.draw, each)) for each in result["results"].get("sweep", ())]
        return [*super().panels(result), *sweeps]


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    campaigns = Campaigns()
    campaigns.add_arguments(parser)
    return campaigns.run(parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
