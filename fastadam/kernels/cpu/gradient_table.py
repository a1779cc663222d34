"""The table of gradients whose squares the loops sum, on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fastadam.kernels.cpu import _threads, engine
from fastadam.kernels.cpu._tensors import Squares

__all__ = ["CHUNK", "GRADIENT", "GROUP", "GradientTable"]

# Elements per chunk of the defined order, and chunks per group, as in _norm.pxi.
CHUNK = 4096
GROUP = 4

# One row of the table of gradients, as _tensors.pxd spells it in C.
GRADIENT = np.dtype(
    [
        ("g", np.uintp),
        ("out", np.uintp),
        ("scale", np.float64),
        *((name, np.intp) for name in ("n", "start", "g_type")),
        ("p", np.uintp),
        *((name, np.intp) for name in ("p_type", "first_op", "n_ops")),
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
    tensors : numpy.ndarray of table.TENSOR, optional
        The table of steps whose gradients they are, row by row.

    Attributes
    ----------
    rows : numpy.ndarray of GRADIENT
        Whoever asks for the squares fills in ``g`` and ``g_type``, the addresses of dense and
        aligned arrays and how they are stored, and, where they are to be divided, ``scale``
        and ``out``, where the quotients are written.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        computing: np.dtype[Any],
        tensors: npt.NDArray[np.void] | None = None,
    ) -> None:
        self.rows = np.zeros(len(sizes), GRADIENT)
        self.rows["n"] = sizes
        groups = -(-self.rows["n"] // (CHUNK * GROUP))
        self.rows["start"] = np.cumsum(groups) - groups
        self._total = sum(sizes)
        loop = engine.squares_loop(computing)
        room = np.empty(int(groups.sum())), np.empty(len(sizes))
        self._squares = Squares(self.rows, *room, loop, tensors)

    def take(self, scales: Sequence[float] | None) -> None:
        """Take over the gradients that the steps have now, and what each is divided by.

        Without scales, none is divided; a scale of 0 is none.
        """
        self._squares.take(scales)

    def take_ops(self, ops: npt.NDArray[np.void], counts: Sequence[int]) -> None:
        """Take over the gradients that the steps have now, and what is done to each.

        Parameters
        ----------
        ops : numpy.ndarray of ops.OP
            The operations that the programs of the steps are made of.
        counts : sequence of int
            How many operations of each program are applied; nothing is written.
        """
        self._squares.take_ops(ops, counts)

    def sums_of_squares(self, most: int | None = None) -> list[float]:
        """Return the sum of squares of every gradient, of its quotient, or after operations.

        `most` is how many threads their owner allows.
        """
        return self._squares.run(_threads.n_threads(self._total, most))
