"""The results as text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from fastadam.cli import output

__all__ = ["compared", "digits", "heading", "microseconds", "spelled", "text", "where"]


def microseconds(us: float) -> str:
    """Spell a time with three digits, in the unit that suits it.

    Examples
    --------
    >>> [microseconds(us) for us in (0.123, 4.56, 789.0, 12_345.6, 7_890_123)]
    ['123 ns', '4.56 µs', '789 µs', '12.3 ms', '7.89 s']
    """
    factor, unit = _unit(us)
    return f"{digits(us / factor)} {unit}"


def _unit(us: float) -> tuple[float, str]:
    """Return how many microseconds the unit has that suits a time, and its sign."""
    units = ((1e6, "s"), (1e3, "ms"), (1.0, "µs"))
    return next((one for one in units if us >= one[0]), (1e-3, "ns"))


def digits(number: float) -> str:
    """Spell a number with three digits, and with no fewer than it has before the point."""
    return f"{number:.{2 if number < 10 else 1 if number < 100 else 0}f}"


def spelled(related: dict[str, float] | None) -> str:
    """Spell a ratio with its spread."""
    return "{} ({}-{})".format(*map(digits, related.values())) if related else ""


def _time(measured: dict[str, Any]) -> str:
    """Spell a time with its spread."""
    factor, unit = _unit(measured["median"])
    median, q1, q3 = (digits(measured[key] / factor) for key in ("median", "q1", "q3"))
    return f"{median} {unit} ({q1}-{q3})"


def where(row: dict[str, Any]) -> str:
    """Say on what a row was measured."""
    on_gpu = row.get("device") == "cuda"
    return "on a GPU" if on_gpu else f"{row['threads']} thread(s)"


def heading(row: dict[str, Any]) -> str:
    """Say what a row is of."""
    parts = [row["variant"], row["dtype"], where(row)]
    if "case" in row:
        parts.insert(0, row["case"])
    if "tensors" in row:
        parts += [f"{row['tensors']:,} tensors", f"gradients {row['gradients']}"]
    if "elements" in row:
        parts.append(f"{row['elements']:,} elements")
    return ", ".join(parts)


def text(rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Lay out the tables of rows that ``ratios.results`` has made; yield the lines."""
    for row in rows:
        yield from compared(row)
        yield ""


def compared(row: dict[str, Any]) -> Iterator[str]:
    """Lay out the times and the ratios of what was measured in one run; yield the lines."""
    yield heading(row)
    columns = [key for key in ("beside_fastadam", "beside_floor") if key in row]
    header = ["", "time of a step", *(key.replace("_", " ") for key in columns)]
    rates = row.get("tb_per_s", {}) if row.get("device") == "cuda" else {}
    header += ["TB/s"] if rates else []
    rows = [header]
    for name, measured in row["times_us"].items():
        line = [name, _time(measured), *(spelled(row[column].get(name)) for column in columns)]
        rows.append(line + ([spelled(rates.get(name))] if rates else []))
    yield from (f"  {line}" for line in output.table(rows, "l" + "r" * (len(header) - 1)))
    if per := row.get("us_per_parameter"):
        costs = ", ".join(f"{name} {microseconds(us)}" for name, us in per.items())
        yield f"  for each parameter: {costs}"
