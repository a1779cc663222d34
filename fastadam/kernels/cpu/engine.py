"""The CPU engine: picks the instruction set, and calls.

``FASTADAM_ISA`` (``baseline``, ``avx2``, ``avx512``) forces an instruction set at import; one
that this build or this CPU does not have is an ``ImportError``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from fastadam.kernels.cpu import _cpu_features, _threads

__all__ = [
    "built_instruction_sets",
    "instruction_set",
    "loop",
    "run",
    "runner",
    "squares_loop",
    "tree_sum",
]

Array = npt.NDArray[Any]


def built_instruction_sets() -> tuple[str, ...]:
    """Return the instruction sets for which this build has kernels, the plainest first."""
    return _cpu_features.built()


def instruction_set() -> str:
    """Return the name of the instruction set whose kernels are in use."""
    return _chosen


def _choose(environ: Mapping[str, str]) -> str:
    """Name the instruction set to use: the forced one, or the best that this CPU runs."""
    built, supported = built_instruction_sets(), _cpu_features.supported()
    forced = environ.get("FASTADAM_ISA", "")
    if not forced:
        # the first CPUs with AVX-512 lower their clock for it, and everything else pays
        slow = () if _cpu_features.avx512_at_full_speed() else ("avx512",)
        return [name for name in built if name in supported and name not in slow][-1]
    if forced not in built or forced not in supported:
        usable = ", ".join(name for name in built if name in supported)
        reason = "this CPU does not run it" if forced in built else "this build does not have it"
        raise ImportError(f"FASTADAM_ISA={forced}: {reason}; what works here: {usable}")
    return forced


def _load(name: str) -> ModuleType:
    """Import the kernels of one instruction set, or say what is wrong with the installation."""
    # spelt out, so that tools that put a program into one file find them
    try:
        if name == "avx512":
            from fastadam.kernels.cpu import _step_avx512

            return _step_avx512
        if name == "avx2":
            from fastadam.kernels.cpu import _step_avx2

            return _step_avx2
        from fastadam.kernels.cpu import _step
    except ImportError as error:
        raise ImportError(
            f"the compiled kernels for {name} cannot be imported ({error}); install fastadam again"
        ) from error
    return _step


_chosen = _choose(os.environ)
_kernels = _load(_chosen)


def runner(
    table: npt.NDArray[np.void],
    coefficients: Array,
    total: int,
    ops: npt.NDArray[np.void] | None = None,
) -> Callable[[], None]:
    """Return the call that makes one step over a filled descriptor table.

    It is computed in the dtype of the coefficients, and is all C: no signal is looked at in it.

    Parameters
    ----------
    table : numpy.ndarray of table.TENSOR, shape (n,)
        One row per tensor, checked, with ``start`` the running sum of ``n``.
    coefficients : numpy.ndarray of float32 or float64, shape (rows, scalars)
        The scalars of a step in the order of the algorithm, one row per distinct set.
    total : int
        Elements of all tensors together.
    ops : numpy.ndarray of ops.OP, optional
        The operations that the programs of the rows are made of.
    """
    narrow = coefficients.dtype == np.float32
    loops = _kernels.adam_float32 if narrow else _kernels.adam_float64
    return partial(loops, table, coefficients, _threads.n_threads(total), ops)


def loop(computing: np.dtype[Any]) -> object:
    """Return the address of the loops of one dtype, for ``_tensors.Rows``."""
    return _kernels.loop(computing == np.float32)


def squares_loop(computing: np.dtype[Any]) -> object:
    """Return the address of the loops of the gradient pass, for ``_tensors.Squares``."""
    return _kernels.squares_loop(computing == np.float32)


def run(
    table: npt.NDArray[np.void], coefficients: Array, ops: npt.NDArray[np.void] | None = None
) -> None:
    """Make one step over a filled descriptor table, as `runner` says."""
    runner(table, coefficients, int(table["start"][-1] + table["n"][-1]), ops)()


def tree_sum(numbers: Iterable[float]) -> float:
    """Add numbers, none of which is negative, as ``reference.tree_sum`` says."""
    return float(_kernels.tree_sum(numbers))
