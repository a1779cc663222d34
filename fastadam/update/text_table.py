"""Rows of text in columns: what commands, optimizers and comparisons print."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["table"]


def table(rows: Sequence[Sequence[str]], align: str) -> list[str]:
    """Lay out rows of text in columns.

    Parameters
    ----------
    rows : sequence of sequences of str
        The cells; all rows have as many.
    align : str
        One letter a column: 'l' puts its cells to the left, 'r' to the right.

    Returns
    -------
    list of str
        One line a row.

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
