"""What ``--torch`` measures on PyTorch's tensors."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from fastadam.bench.peers import Roster
from fastadam.bench.plans import WHAT, Measurement, Options, attempt
from fastadam.bench.ratios import compare
from fastadam.bench.settings import VARIANTS
from fastadam.bench.tensors import ClippedTensors
from fastadam.bench.training import compare_training

__all__ = ["BY_DEFAULT", "CASES", "ONLY_HERE", "ON_TENSORS", "QUICK_CASES"]

# Of cases.CASES, where the options do not say it; gradients are fresh in all of them.
CASES = ("mlp-small", "many", "lora", "resnet50", "resnet50-bfloat16", "20m", "gpt2")
QUICK_CASES = ("mlp-small", "many")


def _classes(
    roster: Roster, options: Options, variant: str, dtype: str | None, n_threads: int
) -> Iterator[dict[str, Any] | None]:
    """Compare, on the first case, the classes of which `ratios` tells nothing."""
    if variant != options.variants[0]:
        # once for all
        return
    case = options.cases[0]
    for other in VARIANTS:
        if other not in options.variants:
            way = other, dtype, n_threads
            make = partial(compare, roster, case, *way, options.sizes.plan)
            yield attempt(roster, "classes", case.name, *way, make)


def _clip(
    roster: Roster, options: Options, variant: str, dtype: str | None, n_threads: int
) -> Iterator[dict[str, Any] | None]:
    """Compare clipping by the norm of all gradients, and the step, on every case."""
    names = [kind.name for kind in roster.here if kind.name in ClippedTensors.contenders]
    clipping = ClippedTensors(names)
    for case in options.cases:
        way = variant, dtype, n_threads
        make = partial(compare, clipping, case, *way, options.sizes.plan)
        row = attempt(roster, "clip", case.name, *way, make)
        if row is not None:
            yield {**row, "case": f"clip and step, {row['case']}"}
    for what, why, where in clipping.left_out:
        roster.leave_out(what, why)
        for each in where:
            roster.leave_out(what, why, each)


def _train(
    roster: Roster, options: Options, variant: str, dtype: str | None, n_threads: int
) -> Iterator[dict[str, Any] | None]:
    """Compare whole training steps, which are float32."""
    if dtype in (None, "float32"):
        make = partial(compare_training, roster, variant, n_threads, options.sizes.plan)
        yield attempt(roster, "train", "a small network", variant, "float32", n_threads, make)


# By the names of --what: those that there are on PyTorch's tensors alone, and all.
ONLY_HERE = {
    "classes": Measurement(_classes),
    "clip": Measurement(_clip),
    "train": Measurement(_train),
}
ON_TENSORS = {**WHAT, **ONLY_HERE}
BY_DEFAULT = ("ratios", *ONLY_HERE)
