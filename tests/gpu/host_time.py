"""What an update on a GPU costs the host, without CuPy's and the driver's part.

    python tests/gpu/host_time.py [CASE ...]

It needs CuPy, and no GPU: the arrays are CuPy's own, over memory of the host; what would call the
driver does nothing. Printed is the processor's time of one update, in microseconds, the least of
many, for 1, 200 and 1000 parameters. With a GPU, ``python -m fastadam bench --cuda --what host``
measures the same updates.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np

from fastadam.bench.cuda_host import CASES, update_of
from fastadam.bench.settings import VARIANTS
from fastadam.kernels import backend
from fastadam.kernels.gpu import engine, sums, table, uploads

SIZES = 1, 200, 1000


class _Stream:
    """A stream, and a context in which it is the current one, that nothing waits for."""

    def __init__(self, ptr: int = 0, **_: bool) -> None:
        self.ptr, self.capturing = ptr, False

    def is_capturing(self) -> bool:
        return self.capturing

    def record(self) -> None:
        """Nothing is on its way."""

    def wait_event(self, event: object) -> None:
        """Nothing is waited for."""

    def begin_capture(self) -> None:
        self.capturing = True

    def end_capture(self) -> Any:
        self.capturing = False
        return SimpleNamespace(launch=lambda: None)

    def __enter__(self) -> None:
        _current.append(self)

    def __exit__(self, *_: object) -> None:
        _current.pop()


_current = [_Stream()]


def over(host: Any) -> Any:
    """Return an array of CuPy's over one of NumPy's."""
    import cupy

    memory = cupy.cuda.memory.UnownedMemory(host.ctypes.data, max(host.nbytes, 1), host, 0)
    pointer = cupy.cuda.memory.MemoryPointer(memory, 0)
    return cupy.ndarray(host.shape, host.dtype, pointer, host.strides)


def without_a_driver() -> None:
    """Let everything that calls the driver do nothing."""
    import cupy

    event = SimpleNamespace(done=True, record=lambda: None)
    cupy.cuda.runtime.getDevice = lambda: 0
    cupy.cuda.runtime.deviceSynchronize = lambda: None
    cupy.cuda.get_current_stream = lambda *_: _current[-1]
    cupy.cuda.Stream = lambda **how: _Stream(2, **how)
    cupy.cuda.Device = lambda _: nullcontext()
    cupy.cuda.Event = lambda **_: event
    cupy.asarray = lambda a: over(a.copy())
    cupy.empty = lambda n, dtype=float: over(np.empty(n, dtype))
    cupy.empty_like = lambda a, dtype=None: over(np.empty(a.shape, dtype or a.dtype))
    cupy.zeros_like = lambda a, dtype=None: over(np.zeros(a.shape, dtype or a.dtype))
    engine._load = lambda name: lambda *arguments: None
    backend.wait_for = lambda device: None
    sums.allocate = lambda device, n, dtype: np.empty(n, dtype)
    uploads.upload = table.upload = lambda memory, data: None
    table.GpuTable._end_step = lambda self: None


def least(update: Callable[[], object], n: int) -> float:
    """Return the least time of an update, in microseconds."""
    for _ in range(5):
        update()
    times = []
    repeated = max(1, 400 // n)
    for _ in range(60):
        began = time.thread_time_ns()
        for _ in range(repeated):
            update()
        times.append((time.thread_time_ns() - began) / repeated)
    return min(times) / 1e3


def main() -> None:
    """Print a table."""
    without_a_driver()
    print(f"{'us of the host':16}" + "".join(f"{n:>10}" for n in SIZES))
    for case in sys.argv[1:] or CASES:
        updates = [(update_of(case, n, VARIANTS["adam"]), n) for n in SIZES]
        print(f"{case:16}" + "".join(f"{least(*update):10.1f}" for update in updates))


if __name__ == "__main__":
    main()
