"""Where CuPy would be: the stand-in, with streams that run at once or late."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
from cuda_on_cpu.cupy_stand_in import make_cupy
from cuda_on_cpu.memory import late_gpu
from cuda_on_cpu.streams import start_over

from fastadam.kernels.gpu import engine

__all__ = ["SEEDS", "cupy_is_the_stand_in"]

# Of streams that run late: as late as can be, and by chance.
SEEDS = range(int(os.environ.get("FASTADAM_STREAM_SEEDS", "3")))


@contextmanager
def cupy_is_the_stand_in(seed: int | None) -> Iterator[Any]:
    """Put the stand-in in the place of CuPy; with a seed, its streams run late."""
    cupy = make_cupy()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "cupy", cupy)
        engine.forget()
        start_over()
        with nullcontext() if seed is None else late_gpu(seed):
            yield cupy
            # what goes back to the pool does so before it closes
            gc.collect()
        engine.forget()
