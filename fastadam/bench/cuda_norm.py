"""The norm of all gradients on a GPU beside reading them, and clipping beside the plain step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from fastadam.bench import arrays, report
from fastadam.bench.arrays import Array
from fastadam.bench.cases import Case
from fastadam.bench.cuda_ceilings import Read
from fastadam.bench.cuda_steps import FastadamGpu
from fastadam.bench.peers import Roster
from fastadam.bench.ratios import bandwidth, described, fits, ratio, results
from fastadam.bench.settings import VARIANTS, Variant
from fastadam.bench.timing import Plan, Subject, measure
from fastadam.cli import output
from fastadam.kernels.backend import loaded_cupy
from fastadam.kernels.gpu.arrays import sums_on_gpu
from fastadam.kernels.sums import gpu_sums
from fastadam.optimizer_hooks import GradientClipping

__all__ = ["measure_norm", "text"]

# The names in results.
_READ, _NORM, _SCALED, _STEP, _CLIP = "read", "norm", "scaled-norm", "step", "clip-and-step"
_SCALE = 128.0
# far below what gradients have in every case
_LARGEST_NORM = 1.0


class _Clipping(FastadamGpu):
    """fastadam, which clips inside the step."""

    def __init__(self, variant: Variant, params: list[Array]) -> None:
        super().__init__(variant, params)
        self.optimizer.add_hook(GradientClipping(_LARGEST_NORM))


def measure_norm(
    roster: Roster, case: Case, variant: str, dtype: str | None, n_threads: int, plan: Plan
) -> dict[str, Any] | None:
    """Measure one case.

    Returns
    -------
    dict or None
        Ready for JSON; None, with a note in the roster, if there is too little memory.
    """
    where = f"norm of {case.name}, {variant}, {roster.place(n_threads)}"
    if not fits(roster, case, variant, dtype, 2, where):
        return None
    n_bytes = arrays.gradient_bytes(case, dtype)
    times = measure(_subjects(case, variant, dtype, n_bytes), plan, roster.block)
    made = results(times)
    return {
        **described(case, variant, dtype, n_threads),
        "device": roster.device,
        "bytes_read": n_bytes,
        **made,
        "tb_per_s": {name: bandwidth(n_bytes, times[name]) for name in (_READ, _NORM, _SCALED)},
        "norm_beside_read": ratio(times[_NORM], times[_READ])._asdict(),
        "clip_beside_step": ratio(times[_CLIP], times[_STEP])._asdict(),
    }


def _subjects(case: Case, variant: str, dtype: str | None, n_bytes: int) -> list[Subject]:
    """Make all that is timed."""
    grads = arrays.gradients(case, dtype)
    there = [loaded_cupy().asarray(grad) for grad in grads]
    scales = [_SCALE] * len(there)
    subjects = [
        Subject(_READ, Read(n_bytes).step),
        Subject(_NORM, lambda: gpu_sums(there)),
        Subject(_SCALED, lambda: sums_on_gpu(there, None, scales)),
    ]
    for name, kind in ((_STEP, FastadamGpu), (_CLIP, _Clipping)):
        stepped = kind(VARIANTS[variant], arrays.parameters(case, dtype))
        stepped.give(grads)
        subjects.append(Subject(name, stepped.step))
    return subjects


def text(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Lay out the table; yield the lines."""
    if not rows:
        return
    yield "the norm of all gradients beside reading them; clipping beside the plain step; on a GPU"
    lines = [["", "norm", "TB/s", "beside read", "divided", "clip and step", "beside step"]]
    for row in rows:
        medians = {name: report.microseconds(t["median"]) for name, t in row["times_us"].items()}
        lines.append(
            [
                f"{row['case']}, {row['variant']} {row['dtype']}",
                medians[_NORM],
                report.spelled(row["tb_per_s"][_NORM]),
                report.spelled(row["norm_beside_read"]),
                medians[_SCALED],
                medians[_CLIP],
                report.spelled(row["clip_beside_step"]),
            ]
        )
    yield from (f"  {line}" for line in output.table(lines, "lrrrrrr"))
    yield ""
