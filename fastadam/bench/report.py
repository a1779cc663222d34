"""The results as text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastadam.bench.spread import Spread
from fastadam.cli import output

__all__ = ["microseconds", "ratio_table"]


def microseconds(us: float) -> str:
    """Spell a time with three digits, in the unit that suits it.

    Examples
    --------
    >>> [microseconds(us) for us in (0.123, 4.56, 789.0, 12_345.6, 7_890_123)]
    ['123 ns', '4.56 µs', '789 µs', '12.3 ms', '7.89 s']
    """
    factor, unit = _unit(us)
    return f"{_digits(us / factor)} {unit}"


def _unit(us: float) -> tuple[float, str]:
    """Return how many microseconds the unit has that suits a time, and its sign."""
    units = ((1e6, "s"), (1e3, "ms"), (1.0, "µs"))
    return next((one for one in units if us >= one[0]), (1e-3, "ns"))


def _digits(number: float) -> str:
    """Spell a number with three digits, and with no fewer than it has before the point."""
    return f"{number:.{2 if number < 10 else 1 if number < 100 else 0}f}"


def _ratio(related: dict[str, float] | None) -> str:
    """Spell a ratio with its spread."""
    if related is None:
        return ""
    return "{} ({}-{})".format(*map(_digits, Spread(**related)))


def _time(measured: dict[str, Any]) -> str:
    """Spell a time with its spread."""
    factor, unit = _unit(measured["median"])
    median, q1, q3 = (_digits(measured[key] / factor) for key in ("median", "q1", "q3"))
    return f"{median} {unit} ({q1}-{q3})"


def ratio_table(row: dict[str, Any], title: str) -> Iterator[str]:
    """Lay out the times and the ratios of what was measured in one run.

    Parameters
    ----------
    row : dict
        With what ``ratios.results`` returns.
    title : str
        The line above.

    Yields
    ------
    str
        Lines.
    """
    yield title
    columns = [key for key in ("beside_fastadam", "beside_floor") if key in row]
    header = ["", "time of a step", *(key.replace("_", " ") for key in columns)]
    rows = [header]
    for name, measured in row["times_us"].items():
        ratios = [_ratio(row[column].get(name)) for column in columns]
        rows.append([name, _time(measured), *ratios])
    for line in output.table(rows, "l" + "r" * (len(header) - 1)):
        yield f"  {line}"
    yield ""


def heading(row: dict[str, Any]) -> str:
    """Say what a row is of."""
    on_gpu = row.get("device") == "cuda"
    where = "on a GPU" if on_gpu else f"{row['threads']} thread(s)"
    parts = [row["variant"], row["dtype"], where]
    if "case" in row:
        parts.insert(0, row["case"])
    if "tensors" in row:
        parts += [f"{row['tensors']:,} tensors", f"gradients {row['gradients']}"]
    if "elements" in row:
        parts.append(f"{row['elements']:,} elements")
    return ", ".join(parts)


def text(results: dict[str, list[dict[str, Any]]]) -> Iterator[str]:
    """Lay out everything that was measured.

    Parameters
    ----------
    results : dict of list of dict
        As ``plans.run`` returns it.

    Yields
    ------
    str
        Lines.
    """
    for what, rows in results.items():
        yield from {"memory": _memory, "sweep": _sweep}.get(what, _compared)(rows)


def _compared(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Lay out tables of ratios, and what each kind of measurement adds."""
    for row in rows:
        yield from list(ratio_table(row, heading(row)))[:-1]
        if per := row.get("us_per_parameter"):
            costs = ", ".join(f"{name} {microseconds(us)}" for name, us in per.items())
            yield f"  for each parameter: {costs}"
        for name, related in row.get("beside_normal", {}).items():
            yield f"  {name}: subnormal beside normal state {_ratio(related)}"
        for name, related in row.get("chain_beside_plain", {}).items():
            yield f"  {name} beside its plain step: {_ratio(related)}"
        yield ""


def _memory(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Lay out what updates need beyond their arrays."""
    table = [["", "allocated by Python and NumPy", "process larger by"]]
    for row in rows:
        resident = "unknown" if row["resident"] is None else f"{row['resident']:,} bytes"
        table.append([row["contender"], f"{row['allocated']:,} bytes", resident])
    if rows:
        yield f"memory that an update takes: {heading(rows[0])}"
        yield from (f"  {line}" for line in output.table(table, "lrr"))
        yield ""


def _sweep(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Lay out times by size, in nanoseconds for an element."""
    for row in rows:
        yield f"nanoseconds for an element: {heading(row)}"
        names = list(row["points"][0]["us"])
        table = [["elements", "tensors", *names]]
        for point in row["points"]:
            each = [point["us"][name] * 1000 / point["elements"] for name in names]
            table.append([f"{point['elements']:,}", f"{point['tensors']:,}", *map(_digits, each)])
        yield from (f"  {line}" for line in output.table(table, "r" * len(table[0])))
        ends = [
            f"{region['name']} up to {region['up_to']:,}"
            if region["up_to"]
            else f"{region['name']} (size unknown)"
            for region in row["regions"][:-1]
        ]
        yield f"  what the time of one tensor is: {', '.join(ends)}, then memory"
        yield ""
