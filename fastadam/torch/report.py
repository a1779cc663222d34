"""What a step of PyTorch's tensors reports."""

from __future__ import annotations

import math

from fastadam.torch.clipping import GpuNorm, Norm
from fastadam.update.report import UpdateReport

__all__ = ["Part", "reported"]

# What was stepped in one call of the kernels: group and number of each step; the norm; the loss
# scale; names, None if it was skipped; and places without a gradient.
Part = tuple[
    list[tuple[int, int]], Norm | GpuNorm | None, float | None, list[str] | None, list[int]
]


def reported(parts: list[Part]) -> UpdateReport:
    """Return the report of a step, in the order in which its parts were made.

    Parameters
    ----------
    parts : list of Part
        One, unless it was made in backward.
    """
    t = max([t for sets, *_ in parts for _, t in sets], default=0)
    _, norm, scale, names, _ = parts[-1]
    if names is None:
        return UpdateReport(t, True, None, None, scale, ())
    applied = tuple([name for part in parts for name in _applied(part)])
    if norm is None:
        return UpdateReport(t, False, None, None, scale, applied)
    nonfinite = tuple(
        [
            name
            for name, square in zip(names, norm.squares, strict=True)
            if not math.isfinite(square)
        ]
    )
    return UpdateReport(t, False, nonfinite, norm.total, scale, applied)


def _applied(part: Part) -> list[str]:
    """Return the names of what was stepped."""
    left_out = set(part[4])
    return [name for i, name in enumerate(part[3] or ()) if i not in left_out]
