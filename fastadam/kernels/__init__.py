"""The numbers: formulas, loops and dispatch; arrays and scalars only, no objects."""

import os

from fastadam.algorithms import BUILD

try:
    from fastadam.kernels.cpu import (
        _cpu_features,
        _late_steps,
        _layout,
        _openmp,
        _step,
        _steps,
        _tensors,
        _walks,
    )
except ImportError as error:
    raise ImportError(
        f"fastadam's compiled kernels are missing from {os.path.dirname(__file__)} ({error}). "
        f"{BUILD}"
    ) from error

__all__ = [
    "_cpu_features",
    "_late_steps",
    "_layout",
    "_openmp",
    "_step",
    "_steps",
    "_tensors",
    "_walks",
]
