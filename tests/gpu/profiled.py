"""A few updates for a profiler: float32 and bfloat16, with the norm of the gradients.

    ncu --csv python tests/gpu/profiled.py

KERNELS and METRICS are what tests/gpu/report.py asks ncu for.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

import fastadam
from fastadam.bench.arrays import dtype_of

ELEMENTS = 1 << 26
UPDATES = 3
KERNELS = "regex:adam|squares|add_chunks"
METRICS = (
    "gpu__time_duration.sum",
    "dram__throughput.avg.pct_of_peak_sustained_elapsed",
    "dram__bytes_read.sum",
    "dram__bytes_write.sum",
    "lts__throughput.avg.pct_of_peak_sustained_elapsed",
    "lts__t_sectors_op_read.sum",
    "lts__t_sectors_op_write.sum",
    "sm__warps_active.avg.pct_of_peak_sustained_active",
    "smsp__issue_active.avg.pct",
    "launch__registers_per_thread",
)


def main() -> None:
    """Make them."""
    cupy: Any = importlib.import_module("cupy")
    for dtype in ("float32", "bfloat16"):
        numbers = np.random.default_rng(0).standard_normal(ELEMENTS, np.float32)
        numbers = numbers.astype(dtype_of(dtype))
        params, gradients = ({"w": cupy.asarray(numbers)} for _ in range(2))
        opt = fastadam.Adam().setup(params)
        opt.monitor = True
        for _ in range(UPDATES):
            opt.apply_gradients(gradients)
    cupy.cuda.runtime.deviceSynchronize()


if __name__ == "__main__":
    main()
