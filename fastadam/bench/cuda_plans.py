"""What ``--cuda`` measures on a GPU, and how long that may take."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

from fastadam.bench import cuda_ceilings, cuda_host, cuda_norm
from fastadam.bench.peers import Roster
from fastadam.bench.plans import Measurement, Options, attempt, ratios
from fastadam.bench.ratios import compare

__all__ = ["BY_DEFAULT", "CASES", "ON_GPU", "QUICK", "QUICK_CASES", "SECONDS", "THOROUGH", "Size"]

# Of cases.CASES, where the options do not say it. What tells most comes first: time may run out.
CASES = (
    *("256m", "many", "1k", "16m", "256m-bfloat16", "resnet50", "gpt2", "lora"),
    *("256m-bfloat16-gradients", "128m-float64", "2m", "200x50k", "16x16m", "many-fresh"),
    *("256m-float16", "resnet50-bfloat16"),
)
QUICK_CASES = ("1k", "many", "16m")
# After so many seconds nothing more begins, where the options do not say it.
SECONDS = 330


class Size(NamedTuple):
    """On what to measure.

    Attributes
    ----------
    ceiling : int
        Elements of each array of the ceilings, whose caches they exceed.
    host : tuple of int
        Numbers of parameters of the host's time.
    """

    ceiling: int = 1 << 27
    host: tuple[int, ...] = (1, 200, 1000)


THOROUGH = Size()
QUICK = Size(1 << 25, (1, 200))


def _size(options: Options) -> Size:
    return QUICK if options.sizes.quick else THOROUGH


def _ceilings(
    roster: Roster, options: Options, variant: str, dtype: str | None, n_threads: int
) -> Iterator[dict[str, Any] | None]:
    """Measure what the memory gives, once for all."""
    if (variant, dtype) == (options.variants[0], options.dtypes[0]):
        n = _size(options).ceiling
        make = partial(cuda_ceilings.measure_ceilings, roster, n, options.sizes.plan)
        on = f"{n:,} elements"
        yield attempt(roster, "ceilings", on, variant, "float32", n_threads, make)


def _host(
    roster: Roster, options: Options, variant: str, dtype: str | None, n_threads: int
) -> Iterator[dict[str, Any] | None]:
    """Measure the host's time, once for each variant."""
    if dtype == options.dtypes[0]:
        plan = options.sizes.plan
        for n in _size(options).host:
            make = partial(cuda_host.measure_host, roster, n, variant, n_threads, plan)
            on = f"{n:,} parameters"
            yield attempt(roster, "host", on, variant, "float32", n_threads, make)


def _norm(
    roster: Roster, options: Options, variant: str, dtype: str | None, n_threads: int
) -> Iterator[dict[str, Any] | None]:
    """Measure norm and clipping on every case whose gradients are kept."""
    way = variant, dtype, n_threads
    for case in options.cases:
        if not case.fresh:
            make = partial(cuda_norm.measure_norm, roster, case, *way, options.sizes.plan)
            yield attempt(roster, "norm", case.name, *way, make)


def _amsgrad(
    roster: Roster, options: Options, variant: str, dtype: str | None, n_threads: int
) -> Iterator[dict[str, Any] | None]:
    """Compare AMSGrad, which has a state more, on the first case, unless it is a variant itself."""
    if variant == options.variants[0] and "amsgrad" not in options.variants and options.cases:
        case, way = options.cases[0], ("amsgrad", dtype, n_threads)
        make = partial(compare, roster, case, *way, options.sizes.plan)
        yield attempt(roster, "amsgrad", case.name, *way, make)


# By the names of --what.
ON_GPU = {
    "ceilings": Measurement(_ceilings, cuda_ceilings.text),
    "host": Measurement(_host, cuda_host.text),
    "ratios": Measurement(ratios),
    "norm": Measurement(_norm, cuda_norm.text),
    "amsgrad": Measurement(_amsgrad),
}
BY_DEFAULT = tuple(ON_GPU)
