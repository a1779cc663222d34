"""A step of every contender beside fastadam's, and beside the memory floor."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

from fastadam.bench import arrays
from fastadam.bench.arrays import Array
from fastadam.bench.cases import Case
from fastadam.bench.contender import Contender
from fastadam.bench.floor import bytes_moved
from fastadam.bench.peers import OURS, Roster
from fastadam.bench.settings import VARIANTS
from fastadam.bench.spread import Spread, ratio, spread
from fastadam.bench.timing import Plan, Subject, measure

__all__ = ["FLOOR", "compare", "described", "fits", "results", "subject"]

FLOOR = "floor"

# Left to the system and to what libraries allocate on the way.
_RESERVE = 1 << 30


def compare(
    roster: Roster, case: Case, variant: str, dtype: str | None, n_threads: int, plan: Plan
) -> dict[str, Any] | None:
    """Measure one case.

    Parameters
    ----------
    roster : Roster
        Who takes part.
    case : Case
        What is stepped.
    variant : str
        Of ``settings.VARIANTS``.
    dtype : str or None
        Of parameters and gradients; None for each tensor's own.
    n_threads : int
        For those that can be told.
    plan : Plan
        How long.

    Returns
    -------
    dict or None
        Ready for JSON; None, with a note in the roster, if there is too little memory.
    """
    names = sorted({kind.name for kind in arrays.dtypes(case, dtype)})
    kinds = roster.ready(variant, names, n_threads)
    where = f"{case.name}, {variant} {dtype or ' '.join(names)}, {n_threads} thread(s)"
    if not fits(roster, case, variant, dtype, len(kinds), where):
        return None
    grads = arrays.gradients(case, dtype)
    device = roster.device
    subjects = [Subject(FLOOR, device.floor(case, dtype, VARIANTS[variant], grads))]
    for kind in kinds:
        contender = kind(VARIANTS[variant], arrays.parameters(case, dtype))
        subjects.append(subject(contender, grads, case.fresh))
    times = measure(subjects, plan, device.block)
    subjects.clear()
    gc.collect()
    return {
        **described(case, variant, dtype, n_threads),
        "device": device.name,
        "bytes_moved": bytes_moved(case, dtype, VARIANTS[variant]),
        "difference": {
            kind.name: roster.difference(kind.name, variant, names)
            for kind in kinds
            if kind.name not in OURS
        },
        **results(times),
    }


def described(case: Case, variant: str, dtype: str | None, n_threads: int) -> dict[str, Any]:
    """Return what a row says of what was stepped."""
    names = sorted({kind.name for kind in arrays.dtypes(case, dtype)})
    return {
        "case": case.name,
        "variant": variant,
        "dtype": dtype or " ".join(names),
        "threads": n_threads,
        "tensors": len(case.tensors),
        "elements": case.elements,
        "gradients": "fresh" if case.fresh else "kept",
    }


def fits(
    roster: Roster, case: Case, variant: str, dtype: str | None, contenders: int, where: str
) -> bool:
    """Tell whether there is memory for a case; note in the roster if there is not."""
    stored, state = arrays.state_bytes(case, dtype, VARIANTS[variant])
    # the floor's arrays too, the gradients, JAX's copies of these, and temporary arrays
    need = (contenders + 1) * (stored + state) + 5 * stored + _RESERVE
    free = roster.device.free_bytes()
    if free is None or need <= free:
        return True
    roster.leave_out(
        where,
        f"needs about {need / 1e9:.1f} GB of memory, and {free / 1e9:.1f} are free; "
        "--contenders with fewer names needs less",
    )
    return False


def subject(contender: Contender, grads: list[Array], fresh: bool) -> Subject:
    """Make a contender ready to be timed, with gradients kept or given anew before each step."""
    contender.give(grads)
    if not fresh:
        return Subject(contender.name, contender.step)
    return Subject(
        contender.name, contender.step, lambda: contender.give([g.copy() for g in grads])
    )


def results(times: dict[str, list[float]]) -> dict[str, Any]:
    """Turn the times of the rounds into medians, quartiles and ratios, ready for JSON.

    Parameters
    ----------
    times : dict of list of float
        Microseconds by name; fastadam's and the floor's among them are what others are related to.

    Returns
    -------
    dict
        ``times_us`` by name, and where these two were measured ``beside_fastadam`` (above 1:
        fastadam is faster) and ``beside_floor`` (1: at the memory's limit).
    """
    made: dict[str, Any] = {
        "times_us": {
            name: spread(each)._asdict() | {"rounds": each} for name, each in times.items()
        }
    }
    for key, below in (("beside_fastadam", OURS[0]), ("beside_floor", FLOOR)):
        if below in times:
            made[key] = dict(_ratios(times, below))
    return made


def _ratios(times: dict[str, list[float]], below: str) -> Iterator[tuple[str, dict[str, float]]]:
    """Relate all times to those of one."""
    for name, each in times.items():
        if name not in (below, FLOOR):
            related: Spread = ratio(each, times[below])
            yield name, related._asdict()
