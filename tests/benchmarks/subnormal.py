"""A step on state of subnormal numbers beside one on normal numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fastadam.bench import arrays, report
from fastadam.bench.arrays import Array
from fastadam.bench.cases import one
from fastadam.bench.contender import Contender
from fastadam.bench.libraries import TorchFused
from fastadam.bench.own import FastadamArrays
from fastadam.bench.peers import Roster
from fastadam.bench.ratios import ratio, results
from fastadam.bench.settings import VARIANTS
from fastadam.bench.timing import Plan, Subject, measure
from fastadam.kernels.dtypes import computing_dtype

_NORMAL = 1e-3


def states(contender: Contender) -> list[Array]:
    """Return the moments of a contender that has made a step, fastadam's on arrays or PyTorch's."""
    if isinstance(contender, FastadamArrays):
        rules = [param.update_rule for param in contender.optimizer.parameters.values()]
        return [array for rule in rules for array in rule.state.values()]
    assert isinstance(contender, TorchFused)
    kept = contender.optimizer.state.values()
    return [entry.numpy() for state in kept for key, entry in state.items() if key != "step"]


def compare_states(
    roster: Roster, elements: int, variant: str, dtype: str, n_threads: int, plan: Plan
) -> dict[str, Any]:
    """Measure the steps of one tensor with gradients of 0, after filling the state anew each time.

    Parameters
    ----------
    roster : Roster
        Who is here.
    elements : int
        Of the tensor.
    variant, dtype, n_threads, plan
        As for ``ratios.compare``.

    Returns
    -------
    dict
        Times by names such as 'fastadam' and 'fastadam-subnormal', and ``beside_normal``: the
        ratio of the two by contender.
    """
    case = one(elements, f"{elements:,} elements")
    computing = computing_dtype(arrays.dtype_of(dtype))
    assert computing is not None
    # half the smallest normal number
    tiny = float(np.finfo(computing.type).tiny) / 2
    grads = [np.zeros_like(g) for g in arrays.gradients(case, dtype)]
    subjects = []
    measured = []
    for kind in roster.ready(variant, [dtype], n_threads):
        # PyTorch's half types have state that NumPy cannot fill
        if kind not in (FastadamArrays, TorchFused) or (kind is TorchFused and "16" in dtype):
            continue
        measured.append(kind.name)
        # the same arrays for both: where arrays lie makes a difference, too
        contender = kind(VARIANTS[variant], arrays.parameters(case, dtype))
        contender.give(grads)
        contender.step()
        for suffix, value in (("", _NORMAL), ("-subnormal", tiny)):
            fill = _filling(states(contender), value)
            subjects.append(Subject(kind.name + suffix, contender.step, fill))
    times = measure(subjects, plan)
    return {
        "elements": elements,
        "variant": variant,
        "dtype": dtype,
        "threads": n_threads,
        "beside_normal": {
            name: ratio(times[f"{name}-subnormal"], times[name])._asdict() for name in measured
        },
        **results(times),
    }


def _filling(filled: list[Array], value: float) -> Callable[[], None]:
    """Return what fills arrays with a number."""

    def fill() -> None:
        for array in filled:
            array.fill(value)

    return fill


def text(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Lay out the tables, and the ratios of the two kinds of state."""
    for row in rows:
        yield from report.compared(row)
        for name, related in row["beside_normal"].items():
            yield f"  {name}: subnormal beside normal state {report.spelled(related)}"
        yield ""
