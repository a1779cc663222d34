"""Time what the command `bench` leaves out: chains, memory, subnormal state, sizes, and a GPU.

Usage: python tests/benchmarks/campaigns.py --what chain,memory,subnormal,sweep --png chart.png
       python tests/benchmarks/campaigns.py --device cuda

All options of ``python -m fastadam bench`` are here, too.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any, ClassVar, NamedTuple

import chain
import memory
import subnormal
import sweep
from gpu import Cuda, describe
from targets import judge

from fastadam.bench.command import Bench, Refused, refuse_others
from fastadam.bench.peers import CONTENDERS, Roster
from fastadam.bench.picture import Panel
from fastadam.bench.plans import Measurement, Options, Rows, say
from fastadam.kernels.backend import require_cupy

GPU_CASES = ("mlp", "many", "many-fresh", "16m", "resnet50", "gpt2", "100m")
GPU_WHAT = ("ratios", "host")


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
    for case in options.cases:
        say("chain", case.name, variant, dtype, n_threads)
        rows.append(chain.compare_chains(roster, case, variant, dtype, n_threads, plan))
    return [row for row in rows if row is not None]


def extra_memory(
    roster: Roster, options: Options, variant: str, dtype: str | None, n_threads: int
) -> Rows:
    """Measure what an update needs beyond its arrays."""
    n = elements(options).memory
    say("memory", f"{n:,} elements", variant, dtype, n_threads)
    return memory.extra_memory(roster, n, variant, dtype or "float32", n_threads)


def subnormal_state(
    roster: Roster, options: Options, variant: str, dtype: str | None, n_threads: int
) -> Rows:
    """Compare the two kinds of state."""
    n, plan = elements(options).subnormal, options.sizes.plan
    say("subnormal", f"{n:,} elements", variant, dtype, n_threads)
    return [subnormal.compare_states(roster, n, variant, dtype or "float32", n_threads, plan)]


def sizes(
    roster: Roster, options: Options, variant: str, dtype: str | None, n_threads: int
) -> Rows:
    """Measure over sizes and numbers of tensors."""
    # of its many points none needs many rounds
    plan = options.sizes.plan._replace(rounds=min(options.sizes.plan.rounds, 5), block_s=0.01)
    n = elements(options).sweep
    return [sweep.sweep(roster, n, variant, dtype or "float32", n_threads, plan)]


class Campaigns(Bench):
    """The command `bench`, with more to measure, and on a GPU too."""

    what: ClassVar[dict[str, Measurement]] = {
        **Bench.what,
        "chain": Measurement(chains, chain.text),
        "memory": Measurement(extra_memory, memory.text),
        "subnormal": Measurement(subnormal_state, subnormal.text),
        "sweep": Measurement(sizes, sweep.text),
    }
    contenders: ClassVar[dict[str, Any]] = {**CONTENDERS, **Cuda.contenders}

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="print the result as JSON")
        parser.add_argument(
            "--device",
            choices=("cpu", "cuda"),
            default="cpu",
            help="where: on the CPU, or with CuPy on the first GPU (default: cpu)",
        )
        super().add_arguments(parser)

    def roster(self, args: argparse.Namespace) -> type[Roster]:
        """Return who takes part, if all that was asked for can be measured there."""
        if args.device == "cpu":
            return super().roster(args)
        if args.torch:
            raise Refused("--torch is for tensors on the CPU: leave out --device cuda")
        try:
            require_cupy()
        except RuntimeError as error:
            raise Refused(str(error)) from error
        refuse_others(args, "with --device cuda", GPU_WHAT, Cuda.contenders)
        args.what = args.what or GPU_WHAT
        args.cases = args.cases or (None if args.quick or args.like else GPU_CASES)
        return Cuda

    def panels(self, result: dict[str, Any]) -> list[Panel]:
        return [(4.6, partial(sweep.draw, each)) for each in result["results"].get("sweep", ())]

    def measure(self, args: argparse.Namespace) -> dict[str, Any]:
        result = super().measure(args)
        if args.device == "cuda":
            result["made_on"] |= describe()
        return result | {"targets": judge(result["results"])}

    def lines(self, result: dict[str, Any], args: argparse.Namespace) -> Iterator[str]:
        yield from super().lines(result, args)
        for one in result["targets"]:
            reached = "reached" if one["reached"] else "not reached"
            numbers = f"wanted {one['wanted']:g}, measured {one['measured']:.3g}"
            yield f"{one['what']}: {numbers}, {reached}"


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    campaigns = Campaigns()
    campaigns.add_arguments(parser)
    return campaigns.run(parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
