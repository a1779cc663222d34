"""What an update on a GPU costs the host, without CuPy's and the driver's part.

    python tests/gpu/host_time.py [CASE ...]

It needs CuPy, and no GPU: the arrays are CuPy's own, over memory of the host; what would call the
driver does nothing. Printed is the processor's time of one update, in microseconds, the least of
many, for 1, 200 and 1000 parameters.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np

import fastadam
from fastadam.kernels import backend
from fastadam.kernels.gpu import engine, sums, table, uploads
from fastadam.optimizer_hooks import GradientClipping

SIZES = 1, 200, 1000

_stream = SimpleNamespace(ptr=0, capturing=False, wait_event=lambda event: None)
_stream.is_capturing = lambda: _stream.capturing
_stream.record = lambda: None


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
    cupy.cuda.get_current_stream = lambda *_: _stream
    cupy.cuda.Device = lambda _: nullcontext()
    cupy.cuda.Event = lambda **_: event
    cupy.empty = lambda n, dtype=float: over(np.empty(n, dtype))
    cupy.empty_like = lambda a, dtype=None: over(np.empty(a.shape, dtype or a.dtype))
    cupy.zeros_like = lambda a, dtype=None: over(np.zeros(a.shape, dtype or a.dtype))
    engine._load = lambda name: lambda *arguments: None
    backend.wait_for = lambda device: None
    sums.allocate = lambda device, n, dtype: np.empty(n, dtype)
    uploads.upload = table.upload = lambda memory, data: None


def update_of(case: str, n: int) -> Callable[[], object]:
    """Return what makes an update of so many parameters."""
    kind = np.float16 if case == "scaled halves" else np.float32
    params, *gradients = ({f"p{i}": over(np.ones(10, kind)) for i in range(n)} for _ in range(3))
    opt = fastadam.Adam().setup(params)
    # the first update does openly what is folded later, and has no driver for it
    opt.apply_gradients(gradients[0])
    opt.monitor = case == "monitor"
    if case == "clip":
        opt.add_hook(GradientClipping(1.0))
    scale = 8.0 if case == "scaled halves" else None
    which = [0]

    def update() -> None:
        which[0] ^= case == "new addresses"
        opt.apply_gradients(gradients[which[0]], scale)

    if case == "replay":
        update()
        _stream.ptr, _stream.capturing = 2, True
        update()
        _stream.ptr, _stream.capturing = 0, False
        return opt.prepare_replay
    return update


CASES = "plain", "new addresses", "clip", "monitor", "scaled halves", "replay"


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
        print(f"{case:16}" + "".join(f"{least(update_of(case, n), n):10.1f}" for n in SIZES))


if __name__ == "__main__":
    main()
