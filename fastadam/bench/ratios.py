"""A step of every contender beside fastadam's, and beside the memory floor."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

from fastadam.bench import arrays
from fastadam.bench.arrays import Array
from fastadam.bench.cases import Case
from fastadam.bench.contender import Contender
from fastadam.bench.floor import bytes_moved
from fastadam.bench.peers import OURS, Roster
from fastadam.bench.settings import VARIANTS
from fastadam.bench.timing import Plan, Subject, measure

__all__ = [
    "FLOOR",
    "RESERVE",
    "Spread",
    "bandwidth",
    "compare",
    "described",
    "fits",
    "ratio",
    "results",
    "spread",
    "subject",
]

FLOOR = "floor"

# Left to the system and to what libraries allocate on the way.
RESERVE = 1 << 30


def compare(
    roster: Roster, case: Case, variant: str, dtype: str | None, n_threads: int, plan: Plan
) -> dict[str, Any] | None:
    """Measure one case, with a number of threads for those that can be told.

    A dtype of None is each tensor's own. Contenders for whose arrays there is too little memory are
    left out, from the last one on, with a note in the roster.

    Returns
    -------
    dict or None
        Ready for JSON; None, with a note in the roster, if there is too little memory for one.
    """
    names = arrays.dtype_names(case, dtype)
    kinds = roster.ready(variant, names, n_threads)
    where = f"{case.name}, {variant} {arrays.label(case, dtype)}, {roster.place(n_threads)}"
    if any(tensor.gradient for tensor in case.tensors) and dtype is None:
        for kind in kinds:
            if not kind.mixes:
                roster.leave_out(kind.name, "its gradients are of their parameters' dtype", where)
        kinds = [kind for kind in kinds if kind.mixes]
    n_fit = _most(roster, case, variant, dtype, len(kinds))
    if not fits(roster, case, variant, dtype, n_fit, where):
        return None
    for kind in kinds[n_fit:]:
        roster.leave_out(kind.name, "there is too little memory for its arrays, too", where)
    del kinds[n_fit:]
    grads = arrays.gradients(case, dtype)
    floor = roster.floor(case, dtype, VARIANTS[variant], grads)
    contenders = [kind(VARIANTS[variant], arrays.parameters(case, dtype)) for kind in kinds]
    subjects = [Subject(FLOOR, floor.step)]
    subjects += [subject(contender, grads, case.fresh) for contender in contenders]
    parts = {each.name: [] if case.fresh else each.parts() for each in contenders}
    for own in parts.values():
        subjects += own
    times = measure(subjects, plan, roster.block)
    moved = bytes_moved(case, dtype, VARIANTS[variant])
    own_bytes: dict[str, int] = {}
    for each in contenders:
        of_each = each.name, *(part.name for part in parts[each.name])
        own_bytes |= dict.fromkeys(of_each, each.bytes_moved() or moved)
    return {
        **described(case, variant, dtype, n_threads),
        "device": roster.device,
        "bytes_moved": moved,
        "own_bytes": own_bytes,
        "tb_per_s": {name: bandwidth(each, times[name]) for name, each in own_bytes.items()},
        "difference": {
            kind.name: roster.difference(kind.name, variant, names)
            for kind in kinds
            if kind.name not in OURS
        },
        **results(times),
    }


def described(case: Case, variant: str, dtype: str | None, n_threads: int) -> dict[str, Any]:
    """Return what a row says of what was stepped."""
    return {
        "case": case.name,
        "variant": variant,
        "dtype": arrays.label(case, dtype),
        "threads": n_threads,
        "tensors": len(case.tensors),
        "elements": case.elements,
        "gradients": "fresh" if case.fresh else "kept",
    }


def _most(roster: Roster, case: Case, variant: str, dtype: str | None, contenders: int) -> int:
    """Return for how many contenders there is memory, at least one and at most so many."""
    free = roster.free_bytes()
    for n in range(contenders, 1, -1):
        if free is None or roster.needed_bytes(case, dtype, variant, n) + RESERVE <= free:
            return n
    return 1


def fits(
    roster: Roster, case: Case, variant: str, dtype: str | None, contenders: int, where: str
) -> bool:
    """Tell whether there is memory for a case; note in the roster if there is not."""
    need = roster.needed_bytes(case, dtype, variant, contenders) + RESERVE
    free = roster.free_bytes()
    if free is None or need <= free:
        return True
    roster.leave_out(
        where,
        f"needs about {need / 1e9:.1f} GB of memory, and {free / 1e9:.1f} are free",
    )
    return False


def subject(contender: Contender, grads: list[Array], fresh: bool) -> Subject:
    """Make a contender ready to be timed, with gradients kept or given anew before each step."""
    contender.give(grads)
    anew = (lambda: contender.give_anew(grads)) if fresh else None
    return Subject(contender.name, contender.step, anew)


class Spread(NamedTuple):
    """A median, and the quartiles around it."""

    median: float
    q1: float
    q3: float


def spread(values: Sequence[float]) -> Spread:
    """Return the median and the quartiles of at least one value, one a round.

    Quartiles between two values are interpolated, as ``numpy.percentile`` does.

    Examples
    --------
    >>> spread([4.0, 1.0, 2.0, 3.0, 5.0])
    Spread(median=3.0, q1=2.0, q3=4.0)
    """
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    q1, median, q3 = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, q1, q3)


def ratio(above: Sequence[float], below: Sequence[float]) -> Spread:
    """Return the ratio of two medians, with the quartiles of the ratios of each round.

    What was measured in one round saw the same machine, so that its ratio tells more than those of
    quartiles. The median is that of the medians; it need not lie between the quartiles.

    Examples
    --------
    >>> ratio([2.0, 6.0, 4.0], [1.0, 2.0, 2.0])
    Spread(median=2.0, q1=2.0, q3=2.5)
    """
    each = spread([a / b for a, b in zip(above, below, strict=True)])
    return each._replace(median=statistics.median(above) / statistics.median(below))


def bandwidth(n_bytes: int, rounds: Sequence[float]) -> dict[str, float]:
    """Return TB/s, of bytes moved in microseconds: that of the median, and those of the rounds.

    Examples
    --------
    >>> bandwidth(8_000_000, [2.0])
    {'median': 4.0, 'q1': 4.0, 'q3': 4.0}
    """
    each = spread([n_bytes / us / 1e6 for us in rounds])
    return each._replace(median=n_bytes / statistics.median(rounds) / 1e6)._asdict()


def results(times: dict[str, list[float]]) -> dict[str, Any]:
    """Turn the microseconds of the rounds into medians, quartiles and ratios, ready for JSON.

    Returns
    -------
    dict
        ``times_us`` by name, and where these two were measured ``beside_fastadam`` (above 1:
        fastadam is faster) and ``beside_floor`` (1: at the memory's limit).
    """
    measured = {name: spread(each)._asdict() | {"rounds": each} for name, each in times.items()}
    made: dict[str, Any] = {"times_us": measured}
    for key, below in (("beside_fastadam", OURS[0]), ("beside_floor", FLOOR)):
        if below in times:
            made[key] = {
                name: ratio(each, times[below])._asdict()
                for name, each in times.items()
                if name not in (below, FLOOR)
            }
    return made
