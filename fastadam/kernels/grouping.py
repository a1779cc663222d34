"""How the steps of many parameters are grouped into tables, and what they write."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy.typing as npt

from fastadam.algorithms.adam import Coefficients
from fastadam.kernels._source import Source
from fastadam.kernels.backend import is_gpu_array
from fastadam.kernels.dtypes import computing_dtype
from fastadam.kernels.gpu.engine import SETS
from fastadam.kernels.gpu.table import GpuTable, gpu_key
from fastadam.kernels.table import Step, Table

__all__ = ["OF_PARAMETERS", "coefficients_of", "tables_of", "written_by"]

Array = npt.NDArray[Any]

# What of the arrays that are written is a parameter.
OF_PARAMETERS = ("array", "float32 master")


def coefficients_of(steps: Sequence[Step]) -> list[Coefficients]:
    """Return the sets of coefficients, each once, in the order in which they first appear."""
    # by identity: the steps that share their coefficients share the object
    return list({id(step.coefficients): step.coefficients for step in steps}.values())


def written_by(
    steps: Sequence[Step], low_precision: Sequence[Array | None]
) -> list[tuple[str, str, Any]]:
    """Return all arrays that are written: whose they are, what of it, and the array."""
    written: list[tuple[str, str, Any]] = []
    for i, step in enumerate(steps):
        half = low_precision[i] if low_precision else None
        written.append((step.name, "array" if half is None else "float32 master", step.p))
        written += [(step.name, key, array) for key, array in step.stepped().items()]
        if half is not None:
            written.append((step.name, "array", half))
    return written


def tables_of(steps: Sequence[Step], source: Source) -> tuple[list[Table], list[GpuTable]]:
    """Group the steps by what one call can make, and check them.

    On the CPU one call makes all that is computed in one dtype, on a GPU all that shares types and
    variant.
    """
    on_cpu: dict[object, list[int]] = {}
    on_gpu: dict[object, list[int]] = {}
    sets_of: dict[object, dict[int, int]] = {}
    for i, step in enumerate(steps):
        if is_gpu_array(step.p):
            if step.g is None:
                continue
            key = gpu_key(step)
            of_key = sets_of.setdefault(key, {})
            number = of_key.setdefault(id(step.coefficients), len(of_key))
            # a launch takes so many sets of coefficients
            on_gpu.setdefault((*key, number // SETS), []).append(i)
        else:
            dtype = getattr(step.p, "dtype", None)
            on_cpu.setdefault(dtype and computing_dtype(dtype), []).append(i)
    numbers = {id(each): number for number, each in enumerate(coefficients_of(steps))}
    return (
        [
            Table([steps[i] for i in indices], indices, numbers, source)
            for indices in on_cpu.values()
        ],
        [
            GpuTable([steps[i] for i in indices], indices, numbers, source)
            for indices in on_gpu.values()
        ],
    )
