"""The table of gradients whose squares the loops sum, on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastadam.kernels.cpu import engine

__all__ = ["CHUNK", "GRADIENT", "GradientTable"]

# Elements per chunk of the defined order, as in _norm.pxi.
CHUNK = 4096

# One row of the table of gradients, as _tensors.pxd spells it in C.
GRADIENT = np.dtype(
    [
        ("g", np.uintp),
        ("out", np.uintp),
        ("scale", np.float64),
        *((name, np.intp) for name in ("n", "start", "g_type")),
    ]
)


class GradientTable:
    """The table of gradients that are computed in one dtype; it may be kept.

    Parameters
    ----------
    sizes : sequence of int
        Elements of each gradient.
    computing : numpy.dtype
        float32 or float64.

    Attributes
    ----------
    rows : numpy.ndarray of GRADIENT
        Whoever asks for the squares fills in ``g`` and ``g_type``, the addresses of dense and
        aligned arrays and how they are stored, and, where they are to be divided, ``scale``
        and ``out``, where the quotients are written.
    """

    def __init__(self, sizes: Sequence[int], computing: np.dtype[Any]) -> None:
        self.computing = computing
        self.rows = np.zeros(len(sizes), GRADIENT)
        self.rows["n"] = sizes
        chunks = -(-self.rows["n"] // CHUNK)
        self.rows["start"] = np.cumsum(chunks) - chunks
        self._sums = np.empty(int(chunks.sum()))
        self._totals = np.empty(len(sizes))

    def squares(self) -> list[float]:
        """Return the sum of squares of every gradient, or of every quotient."""
        engine.run_squares(self.rows, self._sums, self._totals, self.computing)
        totals: list[float] = self._totals.tolist()
        return totals
