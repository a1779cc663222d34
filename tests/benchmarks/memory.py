"""How much memory an update takes beyond the arrays that it updates."""

from __future__ import annotations

import ctypes
import gc
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastadam.bench import arrays, machine, report
from fastadam.bench.cases import one
from fastadam.bench.contender import Contender
from fastadam.bench.peers import Roster
from fastadam.bench.ratios import fits
from fastadam.bench.settings import VARIANTS
from fastadam.cli import output

# With plain NumPy, whose temporary arrays show that the measurement sees what there is to see.
MEASURED = ("fastadam", "fastadam-link", "numpy", "torch-fused")

_STEPS = 3
_PROCESS = Path("/proc/self")


def extra_memory(
    roster: Roster, elements: int, variant: str, dtype: str, n_threads: int
) -> list[dict[str, Any]]:
    """Measure the peak of an update of one tensor, after those that make state.

    Parameters
    ----------
    roster : Roster
        Who is here.
    elements : int
        Of the tensor.
    variant, dtype, n_threads
        As for ``ratios.compare``.

    Returns
    -------
    list of dict
        By contender: bytes that Python and NumPy have allocated at most beyond what was there
        before the update (``allocated``), and by how much the process was larger
        (``resident``, None where the system does not tell).
    """
    case = one(elements, f"{elements:,} elements")
    kinds = [kind for kind in roster.ready(variant, [dtype], n_threads) if kind.name in MEASURED]
    if not fits(roster, case, variant, dtype, 2, f"the memory of an update of {case.name}"):
        return []
    grads = arrays.gradients(case, dtype)
    rows = []
    for kind in kinds:
        contender = kind(VARIANTS[variant], arrays.parameters(case, dtype))
        contender.give(grads)
        for _ in range(_STEPS):
            contender.step()
        rows.append(
            {
                "contender": kind.name,
                "elements": elements,
                "variant": variant,
                "dtype": dtype,
                "threads": n_threads,
                "allocated": _allocated(contender),
                "resident": _grown(contender),
            }
        )
        del contender
        gc.collect()
    return rows


def _allocated(contender: Contender) -> int:
    """Bytes that an update has Python and NumPy allocate at a time."""
    gc.collect()
    tracemalloc.start()
    try:
        contender.step()  # what tracing itself brings is there afterwards
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        contender.step()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return peak - before


def _grown(contender: Contender) -> int | None:
    """Bytes by which the process is larger during an update, by the system's own count."""
    if resident("VmHWM") is None:
        return None
    _give_back_free_memory()
    try:
        # 5 sets the high-water mark to what is resident now
        (_PROCESS / "clear_refs").write_text("5")
    except OSError:
        return None
    before = resident("VmRSS")
    contender.step()
    highest = resident("VmHWM")
    return None if before is None or highest is None else max(highest - before, 0)


def _give_back_free_memory() -> None:
    """Let glibc return what was freed: what is taken from there would not show."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def resident(key: str, status: Path = _PROCESS / "status") -> int | None:
    """Return a count of memory of this process in bytes, None where the system has none.

    Parameters
    ----------
    key : str
        ``'VmRSS'``, what is resident now, or ``'VmHWM'``, the most that was.
    status : pathlib.Path
        Where Linux tells of it.
    """
    kibibytes = machine.found(status, rf"^{key}:\s*(\d+)")
    return None if kibibytes is None else int(kibibytes) * 1024


def text(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Lay out what updates need beyond their arrays."""
    table = [["", "allocated by Python and NumPy", "process larger by"]]
    for row in rows:
        resident = "unknown" if row["resident"] is None else f"{row['resident']:,} bytes"
        table.append([row["contender"], f"{row['allocated']:,} bytes", resident])
    if rows:
        yield f"memory that an update takes: {report.heading(rows[0])}"
        yield from (f"  {line}" for line in output.table(table, "lrr"))
        yield ""
