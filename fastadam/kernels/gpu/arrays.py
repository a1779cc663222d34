"""What is done to lists of arrays on GPUs: sums of squares, quotients, and what hooks change.

Tables are kept from call to call, for each thread and stream, so that one that has not changed is
not uploaded again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from fastadam.kernels.backend import address, current_stream, device_of
from fastadam.kernels.dtypes import computing_dtype, stored
from fastadam.kernels.gpu.engine import blocks_of, c_name, launch
from fastadam.kernels.gpu.sums import GpuSquares, GpuSums
from fastadam.kernels.gpu.uploads import DeviceTable

__all__ = ["CHANGE", "change_on_gpu", "sums_on_gpu"]

T = TypeVar("T")
Array = npt.NDArray[Any]

# One row, as gpu/source.py spells it.
CHANGE = np.dtype(
    [
        *((name, np.uint64) for name in ("p", "g", "n", "start", "place")),
        ("a", np.float64),
        ("b", np.float64),
    ]
)

# Kept tables of a thread beyond which the oldest goes.
_KEPT = 32


class _Kept(threading.local):
    """What a thread has made for the GPUs, by what it is for."""

    def __init__(self) -> None:
        self.things: dict[Hashable, Any] = {}

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return what is kept, made if it is not there."""
        found: T = self.things.pop(key) if key in self.things else make()
        self.things[key] = found
        while len(self.things) > _KEPT:
            self.things.pop(next(iter(self.things)))
        return found


_kept = _Kept()


def sums_on_gpu(
    arrays: Sequence[Array], quotients: Sequence[Array] | None, scales: Sequence[float] | None
) -> tuple[dict[int, GpuSums], list[int]]:
    """Launch the sums of squares of arrays, or of their quotients by their scales.

    Parameters
    ----------
    arrays : sequence of cupy.ndarray
        Dense, of the dtypes that are stepped.
    quotients : sequence of cupy.ndarray, optional
        Where each is written, divided, in the computing dtype.
    scales : sequence of float, optional
        What each is divided by.

    Returns
    -------
    sums : dict of int to GpuSums
        For each GPU, the sums of all arrays, in their indices.
    devices : list of int
        Where each array is.
    """
    devices = [device_of(array) for array in arrays]
    sums = {device: GpuSums(len(arrays), device) for device in dict.fromkeys(devices)}
    groups: dict[tuple[int, str, str, float], list[int]] = {}
    for i, array in enumerate(arrays):
        computing = computing_dtype(array.dtype)
        assert computing is not None
        scale = 0.0 if scales is None else float(scales[i])
        key = devices[i], c_name(computing), c_name(array.dtype), scale
        groups.setdefault(key, []).append(i)
    for (device, *pair, scale), indices in groups.items():
        types = pair[0], pair[1]
        sizes = tuple(arrays[i].size for i in indices)
        kept_as = (device, current_stream(device).ptr, types, sizes, tuple(indices))
        make = partial(GpuSquares, sizes, indices, device)
        squares = _kept.get(("squares", *kept_as), make)
        addresses = _addresses("gradients", kept_as, [arrays[i] for i in indices], device)
        out = None
        if quotients is not None:
            out = _addresses("quotients", kept_as, [quotients[i] for i in indices], device)
        squares.run(types, addresses, out, scale, sums[device].totals)
    return sums, devices


def _addresses(what: str, key: tuple[Any, ...], arrays: Sequence[Array], device: int) -> Any:
    """Return, on the GPU, where arrays are."""
    table = _kept.get((what, *key), partial(DeviceTable, device))
    return table.put(np.array([address(array) for array in arrays], np.uint64))


def change_on_gpu(
    change: int,
    pairs: Sequence[tuple[Array, Array]],
    numbers: Sequence[tuple[float, float]],
    rates: Any = None,
) -> list[int]:
    """Change gradients in place, as `changing.change_gradients` says, and return which were left.

    Rates, which are on the GPU, take the place of the second numbers: one for each pair, or one for
    all.
    """
    left: list[int] = []
    groups: dict[tuple[int, tuple[str, str, str]], list[int]] = {}
    for i, (p, g) in enumerate(pairs):
        computing = computing_dtype(g.dtype)
        # half types are computed in float32
        half = computing == np.float32 and stored(p.dtype)
        if computing is not None and (half or p.dtype == computing) and _walk_together(p, g):
            names = c_name(computing), c_name(p.dtype), c_name(g.dtype)
            groups.setdefault((device_of(g), names), []).append(i)
        else:
            left.append(i)
    for (device, names), indices in groups.items():
        rows = np.zeros(len(indices), CHANGE)
        rows["n"] = [pairs[i][1].size for i in indices]
        rows["p"] = [address(pairs[i][0]) for i in indices]
        rows["g"] = [address(pairs[i][1]) for i in indices]
        rows["place"] = indices if rates is not None and rates.size > 1 else 0
        rows["a"], rows["b"] = np.array([numbers[i] for i in indices], np.float64).T
        chunk, rows["start"], blocks = blocks_of(rows["n"].tolist(), device)
        key = (change, device, current_stream(device).ptr, *names, len(indices))
        tables = [
            _kept.get((what, *key), partial(DeviceTable, device)).put(table)
            for what, table in (("rows", rows), ("blocks", blocks))
        ]
        launch("change", names, device, len(blocks), (*tables, chunk, change, rates))
    return left


def _walk_together(p: Array, g: Array) -> bool:
    """Tell whether two arrays share one dense layout, and one GPU."""
    one, other = p.flags, g.flags
    dense = (one.c_contiguous and other.c_contiguous) or (one.f_contiguous and other.f_contiguous)
    return dense and device_of(p) == device_of(g)
