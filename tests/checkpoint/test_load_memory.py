"""A load holds what it is going to write once, and no more."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import fastadam
from fastadam.serializers import load_hdf5, load_npz, save_hdf5, save_npz

N = 1 << 22
# numpy's own objects, keys, and pieces of files that are read at once
SMALL = 3 << 20


def made(n_arrays: int, layout: str, steps: int) -> Any:
    size = 1024 * (N // 1024 // n_arrays)
    params = {f"p{i}": np.ones((1024, size // 1024), np.float32) for i in range(n_arrays)}
    if layout == "F":
        params = {key: np.asfortranarray(array) for key, array in params.items()}
    opt = fastadam.Adam().setup(params)
    for _ in range(steps):
        opt.apply_gradients({key: np.ones_like(array) for key, array in params.items()})
    return opt


def grown(call: Callable[[], object]) -> int:
    """By how many bytes memory grows at most."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        call()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def test_memory_of_a_load(tmp_path: Path, suffix: str) -> None:
    save, load = (save_npz, load_npz) if suffix == "npz" else (save_hdf5, load_hdf5)
    for n_arrays, layout, used in ((1, "C", 0), (1, "C", 2), (16, "C", 0), (16, "F", 2)):
        opt = made(n_arrays, layout, 1)
        fastadam.save(tmp_path / f"all.{suffix}", opt)
        save(tmp_path / f"state.{suffix}", opt)
        case = f"{n_arrays} arrays in order {layout} into an optimizer of {used} steps"
        state = 2 * 4 * N
        other = made(n_arrays, layout, used)
        by = grown(lambda: fastadam.load(tmp_path / f"all.{suffix}", other))  # noqa: B023
        assert by <= 1.2 * (state + 4 * N) + SMALL, f"load of {case}: {by / (state + 4 * N):.2f}"
        other = made(n_arrays, layout, used)
        by = grown(lambda: load(tmp_path / f"state.{suffix}", other))  # noqa: B023
        assert by <= 1.2 * state + SMALL, f"{load.__name__} of {case}: {by / state:.2f}"
