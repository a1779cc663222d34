"""What the memory of a GPU should allow a kernel, from how much of it is on its way at a time.

Nothing here is measured: bandwidths and multiprocessors are those of NVIDIA's datasheets, bytes in
flight those that `assembly` counts, and the latency is assumed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

__all__ = ["BYTES", "GPUS", "Gpu", "estimate", "table"]


class Gpu(NamedTuple):
    """A GPU, by its datasheet: architecture, multiprocessors, TB/s; and by its driver: the name."""

    name: str
    arch: int
    multiprocessors: int
    tb_per_s: float
    reported: str = ""


GPUS = (
    Gpu("A100 80GB SXM", 80, 108, 2.04, "NVIDIA A100-SXM4-80GB"),
    Gpu("H100 SXM", 90, 132, 3.35, "NVIDIA H100 80GB HBM3"),
    Gpu("H200", 90, 132, 4.8, "NVIDIA H200"),
    Gpu("B200", 100, 148, 8.0, "NVIDIA B200"),
)
# Of the datasheet's bandwidth, about what copies are reported to reach: 90 to 93 %.
REACHED = 0.92
# Seconds from asking a busy memory to having the answer; of an idle one, it is about 0.6e-6.
LATENCY = 1e-6
ELEMENTS = 256_000_000

# Bytes of an element that a kernel of `assembly.KERNELS` reads and writes.
BYTES = {
    "step, float32": (16, 12),
    "step, float32, clipped": (16, 12),
    # the half-precision parameter of a master too
    "step, float32, masters": (18, 14),
    "step, float32, AMSGrad": (20, 16),
    "step, float16": (12, 10),
    "step, bfloat16": (12, 10),
    "step, float32, bfloat16 gradients": (14, 12),
    "step, float64": (32, 24),
    "norm, float32": (4, 0),
    "norm, float32, divided": (4, 0),
    "norm, float16": (2, 0),
    "norm, bfloat16": (2, 0),
    "norm, float64": (8, 0),
}


def estimate(gpu: Gpu, in_flight: int, read: int, written: int) -> tuple[float, float]:
    """Return the TB/s that bytes in flight allow, and those of the estimate.

    Parameters
    ----------
    gpu : Gpu
        Where.
    in_flight : int
        Bytes that the threads of a multiprocessor ask for before any of them has to wait.
    read, written : int
        Bytes of an element.

    Returns
    -------
    allowed : float
        By Little's law: what is on its way over the latency, and for each byte that is read what is
        written, too.
    estimated : float
        The same, but no more than a copy reaches.
    """
    reads = in_flight * gpu.multiprocessors / LATENCY / 1e12
    allowed = reads * (read + written) / read
    return allowed, min(allowed, REACHED * gpu.tb_per_s)


def table(figures: dict[str, Any]) -> Iterator[str]:
    """Make the lines of the page's table from figures by architecture and kernel."""
    names = ", ".join(f"{gpu.name} ({REACHED * gpu.tb_per_s:.2f})" for gpu in GPUS)
    yield (
        ".. csv-table:: An estimate, nothing is measured: TB/s that bytes in flight allow → TB/s "
        f"estimated / µs of {ELEMENTS // 10**6} million elements"
    )
    yield f"   :header: kernel, bytes, {names}"
    yield ""
    for kernel, (read, written) in BYTES.items():
        cells = []
        for gpu in GPUS:
            in_flight = figures[str(gpu.arch)][kernel]["in_flight"]
            allowed, estimated = estimate(gpu, in_flight, read, written)
            us = (read + written) * ELEMENTS / estimated / 1e6
            cells.append(f"{allowed:.1f} → {estimated:.2f} / {us:.0f}")
        yield f'   "{kernel}", {read + written}, {", ".join(cells)}'
    yield ""
