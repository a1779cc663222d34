"""What an update on a GPU costs the host, which goes on before the GPU has finished."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import repeat
from typing import Any

import numpy as np

from fastadam.bench import arrays, report, settings
from fastadam.bench.cases import many
from fastadam.bench.cuda_steps import FastadamGpu
from fastadam.bench.peers import Roster
from fastadam.bench.ratios import results
from fastadam.bench.settings import VARIANTS, Variant
from fastadam.bench.timing import Plan, Subject, measure
from fastadam.cli import output
from fastadam.kernels.backend import loaded_cupy
from fastadam.optimizer_hooks import GradientClipping

__all__ = ["CASES", "measure_host", "text", "update_of"]

# Elements of each parameter: what the GPU does is over before the host has asked for it.
_ELEMENTS = 10
# Ways to update, by their names in results.
CASES = {
    "plain": "plain",
    "new-addresses": "gradients at other addresses than before",
    "clip": "clipped by the norm of all gradients",
    "monitor": "with the norm for last_update",
    "scaled-halves": "float16, divided by a loss scale",
    "replay": "prepare_replay, for an update in a CUDA graph",
}


def update_of(case: str, n: int, variant: Variant) -> Callable[[], object]:
    """Return what makes an update of n parameters on the current GPU.

    Parameters
    ----------
    case : str
        Of CASES.
    n : int
        How many parameters.
    variant : Variant
        Which of the family.
    """
    cupy = loaded_cupy()
    kind = np.float16 if case == "scaled-halves" else np.float32
    ones = np.ones(_ELEMENTS, kind)
    params, *gradients = ({f"p{i}": cupy.asarray(ones) for i in range(n)} for _ in range(3))
    opt = settings.optimizer(variant, "pytorch").setup(params)
    # the first update does openly what is folded later
    opt.apply_gradients(gradients[0])
    opt.monitor = case == "monitor"
    if case == "clip":
        opt.add_hook(GradientClipping(1.0))
    scale = 8.0 if case == "scaled-halves" else None
    which = [0]

    def update() -> None:
        which[0] ^= case == "new-addresses"
        opt.apply_gradients(gradients[which[0]], scale)

    if case != "replay":
        return update
    update()
    stream = cupy.cuda.Stream(non_blocking=True)
    cupy.cuda.runtime.deviceSynchronize()
    with stream:
        stream.begin_capture()
        update()
        graph = stream.end_capture()

    def replay() -> None:
        opt.prepare_replay()
        graph.launch()

    return replay


def _block(subject: Subject, steps: int) -> float:
    """Make steps while the GPU has nothing else to do; return the host's microseconds of one."""
    loaded_cupy().cuda.runtime.deviceSynchronize()
    step = subject.step
    started = time.perf_counter_ns()
    for _ in repeat(None, steps):
        step()
    return (time.perf_counter_ns() - started) / steps / 1000


def measure_host(
    roster: Roster, n: int, variant: str, n_threads: int, plan: Plan
) -> dict[str, Any]:
    """Measure the host's time of an update of n parameters, in every way, beside others' steps.

    Returns
    -------
    dict
        Ready for JSON; ``times_us`` has the names of CASES, and of the other contenders.
    """
    subjects = [Subject(case, update_of(case, n, VARIANTS[variant])) for case in CASES]
    case = many(n=n, size=_ELEMENTS)
    grads = arrays.gradients(case, "float32")
    for kind in roster.ready(variant, ["float32"], n_threads):
        # those that step CuPy's arrays by fastadam are in CASES
        if not issubclass(kind, FastadamGpu):
            contender = kind(VARIANTS[variant], arrays.parameters(case, "float32"))
            contender.give(grads)
            subjects.append(Subject(kind.name, contender.step))
    times = measure(subjects, plan, _block)
    return {"device": roster.device, "variant": variant, "tensors": n, **results(times)}


def text(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Lay out a table for each variant; yield the lines."""
    for variant in dict.fromkeys(row["variant"] for row in rows):
        own = [row for row in rows if row["variant"] == variant]
        yield f"time of the host for an update, {variant}, on a GPU"
        lines = [["parameters", *(f"{row['tensors']:,}" for row in own)]]
        for name in dict.fromkeys(name for row in own for name in row["times_us"]):
            measured = (row["times_us"].get(name) for row in own)
            times = (report.microseconds(one["median"]) if one else "" for one in measured)
            lines.append([CASES.get(name, name), *times])
        yield from (f"  {line}" for line in output.table(lines, "l" + "r" * len(own)))
        yield ""
