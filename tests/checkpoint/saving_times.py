"""Times `fastadam.save` beside plain ``numpy.savez`` and ``fsync`` of the same arrays, in one run.

Usage: python saving_times.py [PARAMETERS [RUNS]]
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import fastadam
from fastadam.checkpoint.contents import contents


def plain(path: Path, arrays: dict[str, Any]) -> None:
    """Write the arrays with NumPy, and wait until they are on the disk."""
    with open(path, "wb") as file:
        np.savez(file, **{key.replace("/", "_"): value for key, value in arrays.items()})
        file.flush()
        os.fsync(file.fileno())


def main(n_parameters: int = 20, runs: int = 7) -> None:
    """Time a state of 12 MB for each parameter; the ways take turns."""
    rng = np.random.default_rng(0)
    params = {
        f"p{i}": rng.standard_normal(1_000_000).astype(np.float32) for i in range(n_parameters)
    }
    opt = fastadam.Adam().setup(params)
    opt.apply_gradients({key: value.copy() for key, value in params.items()})
    arrays = contents(opt, True)
    n_bytes = sum(value.nbytes for value in arrays.values())
    with tempfile.TemporaryDirectory() as folder:
        ways: dict[str, Callable[[], None]] = {
            "numpy.savez and fsync": lambda: plain(Path(folder, "plain.npz"), arrays),
            "fastadam.save, npz": lambda: fastadam.save(Path(folder, "run.npz"), opt),
            "fastadam.save, HDF5": lambda: fastadam.save(Path(folder, "run.h5"), opt),
        }
        taken: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(runs):
            for name, way in ways.items():
                begin = time.perf_counter()
                way()
                taken[name].append(time.perf_counter() - begin)
    first = taken["numpy.savez and fsync"]
    print(f"{n_bytes:,} bytes, median of {runs}")
    for name, seconds in taken.items():
        ratio = statistics.median(s / f for s, f in zip(seconds, first, strict=True))
        print(f"{name:24} {statistics.median(seconds):.3f} s  {ratio:.2f} x")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
