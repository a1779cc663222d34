"""What is wanted of the GPU engine, beside what was measured."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

# The share of a copy's bandwidth that a step is to reach, by case.
_SHARES = {"16m": 0.7, "100m": 0.9}
# Microseconds of a whole update of 1000 parameters of one element.
_HOST_US = 500.0


def judge(results: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Compare the rows of a GPU with what is wanted.

    Parameters
    ----------
    results : dict of list of dict
        As ``plans.run`` returns it.

    Returns
    -------
    list of dict
        ``what`` is wanted, the number that is ``wanted`` and the one ``measured``, and whether it
        is ``reached``; empty for rows of the CPU.
    """
    judged = []
    for what, rows in results.items():
        for row in rows:
            if row.get("device") == "cuda":
                judged += list(_of_host(row) if what == "host" else _of_case(row))
    return judged


def _of_case(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Judge one case."""
    where = f"{row['case']}, {row['variant']} {row['dtype']}"
    wanted = _SHARES.get(row["case"])
    if wanted is not None:
        share = 1 / row["beside_floor"]["fastadam"]["median"]
        yield _judged(f"share of a copy's bandwidth, {where}", wanted, share, share >= wanted)
    fused = row["beside_fastadam"].get("torch-fused")
    if fused is not None:
        times = fused["median"]
        yield _judged(f"times as fast as torch-fused, {where}", 1.0, times, times > 1)


def _of_host(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Judge the cost of the host."""
    us = row["times_us"]["fastadam"]["median"]
    us_of_thousand = us * 1000 / row["tensors"]
    what = f"microseconds of an update of 1000 parameters, gradients {row['gradients']}"
    yield _judged(what, _HOST_US, us_of_thousand, us_of_thousand <= _HOST_US)


def _judged(what: str, wanted: float, measured: float, reached: bool) -> dict[str, Any]:
    return {"what": what, "wanted": wanted, "measured": measured, "reached": reached}
