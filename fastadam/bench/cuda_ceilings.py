"""What a GPU's memory gives: a copy, the reads and writes of a step, and reads alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from fastadam.bench import report
from fastadam.bench.cuda_arrays import repeated
from fastadam.bench.peers import Roster
from fastadam.bench.ratios import RESERVE, bandwidth, results
from fastadam.bench.timing import Plan, Subject, measure
from fastadam.cli import output
from fastadam.kernels.backend import loaded_cupy

__all__ = ["NAMES", "Read", "measure_ceilings", "text"]

# What is measured, by its name in results.
NAMES = {
    "copy": "a copy",
    "4-reads-3-writes": "4 reads and 3 writes of a step, no arithmetic",
    "read": "reads alone",
}

_THREADS = 256
# Packs of 16 bytes that a thread takes.
_MOVED, _READ = 4, 8
_PACK = 16
# Arrays that there are at a time, and elements of each, above what caches hold.
_ARRAYS = 7
_LEAST = 1 << 25

_SOURCE = rf"""
struct alignas({_PACK}) Pack {{ float x[4]; }};

extern "C" __global__ void move_all(Pack *p, const Pack *g, Pack *m, Pack *v, size_t n)
{{
    const size_t first = (size_t)blockIdx.x * ({_THREADS} * {_MOVED}) + threadIdx.x;
#pragma unroll
    for (int k = 0; k < {_MOVED}; ++k) {{
        const size_t i = first + k * {_THREADS};
        if (i >= n)
            return;
        Pack a = p[i], b = g[i], c = m[i], d = v[i];
#pragma unroll
        for (int j = 0; j < 4; ++j) {{
            a.x[j] += b.x[j];
            c.x[j] += b.x[j];
            d.x[j] += b.x[j];
        }}
        p[i] = a;
        m[i] = c;
        v[i] = d;
    }}
}}

extern "C" __global__ void read_all(const Pack *a, float *never, size_t n)
{{
    const size_t first = (size_t)blockIdx.x * ({_THREADS} * {_READ}) + threadIdx.x;
    float sum = 0;
#pragma unroll
    for (int k = 0; k < {_READ}; ++k) {{
        const size_t i = first + k * {_THREADS};
        if (i < n) {{
            const Pack pack = a[i];
            sum += pack.x[0] + pack.x[1] + pack.x[2] + pack.x[3];
        }}
    }}
    // no sum of such numbers is so large, which the compiler does not know
    if (sum > 1e30f)
        *never = sum;
}}
"""


def _kernel(name: str) -> Any:
    """Compile a kernel of the source."""
    return loaded_cupy().RawModule(code=_SOURCE, options=("--std=c++17",)).get_function(name)


class Read:
    """A kernel that reads so many bytes on the GPU, rounded to 16, and writes none."""

    def __init__(self, n_bytes: int) -> None:
        cupy = loaded_cupy()
        n = max(1, n_bytes // _PACK)
        self._grid = (-(-n // (_THREADS * _READ)),)
        self._arguments = (
            repeated(n * _PACK),
            cupy.zeros(1, np.float32),
            np.uint64(n),
        )
        self._kernel = _kernel("read_all")

    def step(self) -> None:
        """Read."""
        self._kernel(self._grid, (_THREADS,), self._arguments)


class _Move:
    """A kernel that reads and writes four arrays as a step does, and adds instead of stepping."""

    def __init__(self, elements: int) -> None:
        n = elements * 4 // _PACK
        self._grid = (-(-n // (_THREADS * _MOVED)),)
        four = (repeated(4 * elements) for _ in range(4))
        self._arguments = (*four, np.uint64(n))
        self._kernel = _kernel("move_all")

    def step(self) -> None:
        """Read and write."""
        self._kernel(self._grid, (_THREADS,), self._arguments)


def _elements_for(roster: Roster, wanted: int) -> int:
    """Return how many elements there is memory for, at most those that are wanted."""
    free = roster.free_bytes()
    if free is None:
        return wanted
    n = (free - RESERVE) // (4 * _ARRAYS)
    return min(wanted, n // 4 * 4)


def measure_ceilings(roster: Roster, wanted: int, plan: Plan) -> dict[str, Any] | None:
    """Measure what memory gives to arrays of so many float32 elements.

    Parameters
    ----------
    roster : Roster
        Whose clock it is.
    wanted : int
        A multiple of 4, of each array; far more than the GPU's cache holds. They are fewer where
        there is less memory.
    plan : Plan
        How long to measure.

    Returns
    -------
    dict or None
        Ready for JSON: ``bytes`` that each moves, ``times_us`` and ``tb_per_s``. None, with a note
        in the roster, if there is memory for so little alone that caches would be measured.
    """
    elements = _elements_for(roster, wanted)
    if elements < min(wanted, _LEAST):
        roster.leave_out("ceilings", f"there is no memory for {_LEAST:,} elements")
        return None
    moved = {"copy": 8 * elements, "4-reads-3-writes": 28 * elements, "read": 4 * elements}
    cupy = loaded_cupy()
    source, target = (repeated(4 * elements) for _ in range(2))

    def copy() -> None:
        stream = cupy.cuda.get_current_stream()
        target.data.copy_from_device_async(source.data, source.nbytes, stream)

    steps = {
        "copy": copy,
        "4-reads-3-writes": _Move(elements).step,
        "read": Read(4 * elements).step,
    }
    subjects = [Subject(name, steps[name]) for name in NAMES]
    times = measure(subjects, plan, roster.block)
    return {
        "device": roster.device,
        "elements": elements,
        "bytes": moved,
        **results(times),
        "tb_per_s": {name: bandwidth(moved[name], rounds) for name, rounds in times.items()},
    }


def text(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Lay out the table; yield the lines."""
    for row in rows:
        yield f"what memory gives, arrays of {row['elements']:,} float32 elements, on a GPU"
        lines = [["", "TB/s", "time"]]
        for name, words in NAMES.items():
            us = row["times_us"][name]["median"]
            lines.append([words, report.spelled(row["tb_per_s"][name]), report.microseconds(us)])
        yield from (f"  {line}" for line in output.table(lines, "lrr"))
        yield ""
