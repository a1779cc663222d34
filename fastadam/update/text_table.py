"""Rows of text in columns: what commands, optimizers and comparisons print."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["table"]


def table(rows: Sequence[Sequence[str]], align: str) -> list[str]:
    """Lay out rows of text in columns, each with its cells to the left, 'l', or to the right, 'r'.

    Examples
    --------
    >>> table([('name', 'µs'), ('Adam', '7.5')], 'lr')
    ['name   µs', 'Adam  7.5']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if side == "r" else cell.ljust(width)
            for cell, width, side in zip(row, widths, align, strict=True)
        ).rstrip()
        for row in rows
    ]
