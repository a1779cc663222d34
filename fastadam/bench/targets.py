"""What is wanted of the GPU engine, beside what was measured."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

__all__ = ["judge"]

# The share of a copy's bandwidth that a step is to reach, by case.
_SHARES = {"16m": 0.7, "256m": 0.9}
# Microseconds of the host for a whole update of so many parameters.
_HOST_US, _TENSORS = 500.0, 1000


def judge(results: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Compare the rows of a GPU with what is wanted.

    Parameters
    ----------
    results : dict of list of dict
        The rows of a run by what was measured.

    Returns
    -------
    list of dict
        ``what`` is wanted, the number that is ``wanted`` and the one ``measured``, and whether it
        is ``reached``.
    """
    judged: list[dict[str, Any]] = []
    for row in (*results.get("ratios", ()), *results.get("amsgrad", ())):
        judged += list(_of_case(row))
    for row in results.get("host", []):
        judged += list(_of_host(row))
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
        times, what = fused["median"], "times as fast as torch-fused"
        moved = row["own_bytes"]
        if moved["torch-fused"] < moved["fastadam"]:
            # PyTorch keeps moments of half precision, of which no step of ours can be ahead
            times *= moved["fastadam"] / moved["torch-fused"]
            what = "times the bandwidth of torch-fused, which moves fewer bytes"
        yield _judged(f"{what}, {where}", 1.0, times, times > 1)


def _of_host(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Judge the cost of the host."""
    if row["tensors"] == _TENSORS:
        for name, words in (("plain", "kept"), ("new-addresses", "in new memory")):
            us = row["times_us"][name]["median"]
            what = f"microseconds of the host, {_TENSORS} parameters, gradients {words}"
            yield _judged(what, _HOST_US, us, us <= _HOST_US)


def _judged(what: str, wanted: float, measured: float, reached: bool) -> dict[str, Any]:
    return {"what": what, "wanted": wanted, "measured": measured, "reached": reached}
