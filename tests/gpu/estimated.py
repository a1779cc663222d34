"""What was measured on a GPU beside what was estimated of it, where it is one of the estimates'."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from estimates import BYTES, GPUS, Gpu, estimate

__all__ = ["beside_estimates"]

FIGURES = Path(__file__).resolve().parents[2] / "docs/figures/gpu-assembly.json"
# The estimates know nothing of launches and caches.
LEAST = 100_000_000


def beside_estimates(name: str, results: dict[str, Any]) -> list[list[str]]:
    """Return rows of a table: what ran, its kernel, TB/s estimated and measured, and their ratio.

    Parameters
    ----------
    name : str
        Of the GPU, as its driver tells it.
    results : dict
        The benchmark's.

    Returns
    -------
    list of list of str
        None where nothing is estimated of the GPU.
    """
    gpu = next((each for each in GPUS if each.reported == name), None)
    if gpu is None:
        return []
    figures = json.loads(FIGURES.read_text())["after"][str(gpu.arch)]
    return list(_rows(gpu, figures, results))


def _rows(gpu: Gpu, figures: dict[str, Any], results: dict[str, Any]) -> Iterator[list[str]]:
    """Yield the rows."""
    for case, kernel, measured in _measured(results):
        if kernel in BYTES:
            _, estimated = estimate(gpu, figures[kernel]["in_flight"], *BYTES[kernel])
            share = f"{100 * measured / estimated:.0f} %"
            yield [case, kernel, f"{estimated:.2f}", f"{measured:.2f}", share]


def _measured(results: dict[str, Any]) -> Iterator[tuple[str, str, float]]:
    """Yield the case, the kernel and the TB/s of each large measurement."""
    for row in (*results.get("ratios", ()), *results.get("amsgrad", ())):
        if row["elements"] >= LEAST:
            kernel = f"step, {row['dtype']}" + (", AMSGrad" if row["variant"] == "amsgrad" else "")
            yield row["case"], kernel, row["tb_per_s"]["fastadam"]["median"]
    for row in results.get("norm", ()):
        if row["elements"] >= LEAST:
            for name, more in (("norm", ""), ("scaled-norm", ", divided")):
                kernel = f"norm, {row['dtype']}{more}"
                yield row["case"], kernel, row["tb_per_s"][name]["median"]
