"""The GPU engine: compiles the CUDA source, caches kernels, and launches them.

Everything goes through `launch`, on the current stream of the device. CuPy checks neither the
number nor the width of arguments, so that those of every kernel are declared here, and cast.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from fastadam.kernels.backend import capturing, loaded_cupy
from fastadam.kernels.cuda_source import SOURCE
from fastadam.kernels.dtypes import stored

__all__ = [
    "CHUNK",
    "KERNELS",
    "OPTIONS",
    "POINTER",
    "SCALARS",
    "SETS",
    "THREADS",
    "DeviceTable",
    "blocks_of",
    "c_name",
    "forget",
    "kernel_name",
    "launch",
    "on_device",
    "scalars_dtype",
]

# As in cuda_source.py: threads of a block, elements of a chunk of a norm, rows of scalars.
THREADS = 256
CHUNK = 4096
SETS = 32

# CuPy adds -ftz=true: float32 arithmetic flushes subnormal numbers, as it does on the CPU.
OPTIONS = (
    "--std=c++17",
    # lambdas and constexpr functions are the GPU's own
    "-default-device",
    # the numerical contract: no contraction, division and roots rounded once
    "-fmad=false",
    "-prec-div=true",
    "-prec-sqrt=true",
)

# Elements of a block of a step, of a large model and of one that would leave much of a GPU idle.
_LARGE, _SMALL = 4096, 1024
_LARGE_FROM = 1 << 21

_HALF_NAMES = {1: "float16", 2: "bfloat16"}

# What an argument may be beside a number of some width: an address, or Scalars<T> by value.
POINTER = "pointer"
SCALARS = "scalars"
_UNSIGNED = np.dtype(np.uint32)
_SIZE = np.dtype(np.uint64)
_DOUBLE = np.dtype(np.float64)
_NULL = np.uintp(0)


@lru_cache
def scalars_dtype(computing: str) -> np.dtype[Any]:
    """Return the dtype of ``Scalars<T>``, for T 'float' or 'double'."""
    real = {"float": np.float32, "double": np.float64}[computing]
    return np.dtype([("rows", real, (SETS, 8)), ("scale", real)])


# The arguments of every kernel, in order.
KERNELS: dict[str, tuple[np.dtype[Any] | str, ...]] = {
    # tensors, gradients, blocks, chunk, prepare, rate, replayed, scalars
    "adam": (POINTER, POINTER, POINTER, _UNSIGNED, _UNSIGNED, POINTER, POINTER, SCALARS),
    # spans, gradients, quotients, chunks, scale, sums
    "squares": (POINTER, POINTER, POINTER, POINTER, _DOUBLE, POINTER),
    # spans, sums, totals
    "add_chunks": (POINTER, POINTER, POINTER),
    # totals, n, threshold, rate
    "clip_rate": (POINTER, _SIZE, _DOUBLE, POINTER),
    # rows, blocks, chunk, kind, rates
    "change": (POINTER, POINTER, _UNSIGNED, _UNSIGNED, POINTER),
    # p_squares, g_squares, n, threshold, weight_decay, eps, rates
    "lars_rates": (POINTER, POINTER, _SIZE, _DOUBLE, _DOUBLE, _DOUBLE, POINTER),
}

# Kernels that are in use, by name; each knows the devices it has been loaded on.
_loaded: dict[str, Any] = {}


def forget() -> None:
    """Drop the kernels in use, so that the next launch compiles, or reads CuPy's cache of files."""
    _loaded.clear()


def kernel_name(kernel: str, types: tuple[str, ...] = ()) -> str:
    """Return the name of an instantiation, such as ``adam<float, float, float, true, false>``."""
    return f"{kernel}<{', '.join(types)}>" if types else kernel


def c_name(dtype: np.dtype[Any]) -> str:
    """Return what the CUDA source calls a dtype."""
    return _HALF_NAMES.get(stored(dtype)) or {4: "float", 8: "double"}[dtype.itemsize]


def blocks_of(sizes: Sequence[int]) -> tuple[int, npt.NDArray[np.uint64], npt.NDArray[np.uint32]]:
    """Cut arrays into blocks of one size.

    Returns
    -------
    chunk : int
        Elements of a block.
    start : numpy.ndarray
        Blocks of the arrays before each.
    blocks : numpy.ndarray
        Which array each block is of.
    """
    chunk = _LARGE if sum(sizes) >= _LARGE_FROM else _SMALL
    each = -(-np.asarray(sizes, np.int64) // chunk)
    start = (np.cumsum(each) - each).astype(np.uint64)
    return chunk, start, np.repeat(np.arange(len(sizes), dtype=np.uint32), each)


def launch(
    kernel: str, types: tuple[str, ...], device: int, blocks: int, arguments: tuple[Any, ...]
) -> None:
    """Launch a kernel on the current stream of a device.

    Parameters
    ----------
    kernel : str
        One of KERNELS.
    types : tuple of str
        Its template arguments.
    device : int
        The GPU.
    blocks : int
        How many blocks of THREADS threads; none is no launch.
    arguments : tuple
        As declared: an array of CuPy's, or None, for a pointer; a number; an array of
        `scalars_dtype` of shape (1,).
    """
    if not blocks:
        return
    declared = KERNELS[kernel]
    cast = tuple(_cast(kind, value, types) for kind, value in zip(declared, arguments, strict=True))
    name = kernel_name(kernel, types)
    with on_device(device):
        function = _loaded.get(name)
        if function is None:
            cupy = loaded_cupy()
            module = cupy.RawModule(code=SOURCE, options=OPTIONS, name_expressions=(name,))
            function = _loaded[name] = module.get_function(name)
        function((blocks,), (THREADS,), cast)


def _cast(kind: np.dtype[Any] | str, value: Any, types: tuple[str, ...]) -> Any:
    """Return an argument in the width that the kernel takes."""
    if kind is POINTER:
        return _NULL if value is None else value
    if isinstance(kind, np.dtype):
        return kind.type(value)
    dtype = scalars_dtype(types[0])
    if value.dtype != dtype or value.shape != (1,):
        raise TypeError(f"scalars must be one {dtype}, not {value.shape} of {value.dtype}")
    # CuPy takes ten times as long to look at the fields of a structured array
    return value.view(f"V{dtype.itemsize}")


def on_device(device: int) -> AbstractContextManager[Any]:
    """Return a context in which a GPU is the current one."""
    cuda = loaded_cupy().cuda
    if cuda.runtime.getDevice() == device:
        return nullcontext()
    context: AbstractContextManager[Any] = cuda.Device(device)
    return context


class DeviceTable:
    """A table in a GPU's memory, which is uploaded only when it differs from what is there.

    Parameters
    ----------
    device : int
        The GPU.

    Attributes
    ----------
    uploads : int
        How often it has been uploaded.
    """

    def __init__(self, device: int) -> None:
        self.device = device
        self.uploads = 0
        self._there: bytes | None = None
        self._memory: Any = None

    def put(self, table: npt.NDArray[Any]) -> Any:
        """Upload a table, unless it is there, on the current stream; return the GPU's array.

        Parameters
        ----------
        table : numpy.ndarray
            Contiguous, of any dtype.
        """
        now = table.tobytes()
        if now == self._there:
            return self._memory
        raw = np.frombuffer(now, np.uint8)
        with on_device(self.device):
            if self._memory is None or self._memory.size < raw.size:
                self._memory = loaded_cupy().empty(raw.size, np.uint8)
            if capturing():
                # the graph reads what is there now: the upload must not become part of it
                with loaded_cupy().cuda.Stream(non_blocking=True) as stream:
                    self._memory[: raw.size].set(raw)
                    stream.synchronize()
            else:
                # from memory that pages: it has been read when this returns
                self._memory[: raw.size].set(raw)
        self._there = now
        self.uploads += 1
        return self._memory
