"""The GPU engine: compiles the CUDA source, caches kernels, and launches them.

Everything goes through `launch`, on the current stream of the device. CuPy checks neither the
number nor the width of arguments, so that those of every kernel are declared here, and cast.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from operator import is_
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastadam.algorithms.adam import ADAM
from fastadam.kernels.backend import loaded_cupy, on_device
from fastadam.kernels.dtypes import stored
from fastadam.kernels.gpu.source import SOURCE
from fastadam.kernels.gpu.uploads import refused_by_name

__all__ = [
    "CHUNK",
    "KERNELS",
    "OPTIONS",
    "POINTER",
    "SCALARS",
    "SETS",
    "THREADS",
    "WARP",
    "KeptLaunch",
    "Launch",
    "blocks_of",
    "c_flag",
    "c_name",
    "forget",
    "kernel_name",
    "launch",
    "launch_of",
    "scalars_dtype",
]

# As in the source: threads of a block, of a warp; elements of a chunk of a norm; rows of scalars.
THREADS = 256
WARP = 32
CHUNK = 4096
SETS = 32

# The numerical contract: no contraction, division and roots rounded once. That float32 arithmetic
# flushes subnormal numbers, as on the CPU, and that lambdas and constexpr functions are the GPU's
# own, are options that CuPy gives: compilers before 12.9 refuse what is given twice. The source
# checks the first.
OPTIONS = ("--std=c++17", "-fmad=false", "-prec-div=true", "-prec-sqrt=true")

# Elements of a block of a step: the most that leave every multiprocessor this many blocks, which
# are six times those that it holds of the plain step; fewer only where there are too few elements.
_CHUNKS = (8192, 4096, 2048, 1024)
_BLOCKS_EACH = 6 * 4
# where nobody can tell how many there are
_MULTIPROCESSORS = 100

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
    return np.dtype([("rows", real, (SETS, len(ADAM.scalars))), ("scale", real), ("due", real)])


# The arguments of every kernel, in order.
KERNELS: dict[str, tuple[np.dtype[Any] | str, ...]] = {
    # tensors, gradients, blocks, chunk, rate, replayed, scalars
    "adam": (POINTER, POINTER, POINTER, _UNSIGNED, POINTER, POINTER, SCALARS),
    # spans, gradients, quotients, chunks, n_chunks, scale, sums
    "squares": (POINTER, POINTER, POINTER, POINTER, _UNSIGNED, _DOUBLE, POINTER),
    # spans, sums, totals
    "add_chunks": (POINTER, POINTER, POINTER),
    # totals, n, threshold, rate
    "clip_rate": (POINTER, _SIZE, _DOUBLE, POINTER),
    "bound_rate": (POINTER, _SIZE, _DOUBLE, POINTER),
    # rows, blocks, chunk, kind, rates
    "change": (POINTER, POINTER, _UNSIGNED, _UNSIGNED, POINTER),
    # p_squares, g_squares, n, threshold, weight_decay, eps, rates
    "lars_rates": (POINTER, POINTER, _SIZE, _DOUBLE, _DOUBLE, _DOUBLE, POINTER),
}

# Kernels that are in use, by name; each knows the devices it has been loaded on.
_loaded: dict[str, Any] = {}


def forget() -> None:
    """Drop the kernels in use: the next launch that is made compiles, or reads CuPy's cache.

    What is known of the GPUs is asked anew, too.
    """
    _loaded.clear()
    _multiprocessors.cache_clear()


def kernel_name(kernel: str, types: tuple[str, ...] = ()) -> str:
    """Return the name of an instantiation, such as ``squares<float, float16, true, false>``."""
    return f"{kernel}<{', '.join(types)}>" if types else kernel


def c_flag(flag: bool) -> str:
    """Return what the CUDA source calls a truth value."""
    return str(flag).lower()


def c_name(dtype: np.dtype[Any]) -> str:
    """Return what the CUDA source calls a dtype."""
    return _HALF_NAMES.get(stored(dtype)) or {4: "float", 8: "double"}[dtype.itemsize]


@lru_cache
def _multiprocessors(device: int) -> int:
    """Return how many multiprocessors a GPU has."""
    runtime = loaded_cupy().cuda.runtime
    try:
        return int(runtime.deviceGetAttribute(runtime.cudaDevAttrMultiProcessorCount, device))
    except runtime.CUDARuntimeError:
        return _MULTIPROCESSORS


def blocks_of(
    sizes: Sequence[int], device: int
) -> tuple[int, npt.NDArray[np.uint64], npt.NDArray[np.uint32]]:
    """Cut arrays on one GPU into blocks of one size.

    Returns
    -------
    chunk : int
        Elements of a block.
    start : numpy.ndarray
        Blocks of the arrays before each.
    blocks : numpy.ndarray
        Which array each block is of.
    """
    most = sum(sizes) // (_BLOCKS_EACH * _multiprocessors(device))
    chunk = next((chunk for chunk in _CHUNKS if chunk <= most), _CHUNKS[-1])
    each = -(-np.asarray(sizes, np.int64) // chunk)
    start = (np.cumsum(each) - each).astype(np.uint64)
    return chunk, start, np.repeat(np.arange(len(sizes), dtype=np.uint32), each)


class Launch(NamedTuple):
    """A kernel that has been loaded, and what it is called with: nothing is left to be made."""

    function: Any
    grid: tuple[int]
    block: tuple[int]
    arguments: tuple[Any, ...]


class KeptLaunch:
    """A launch that is made anew only where one of its arguments is another object.

    Parameters
    ----------
    kernel : str
        One of KERNELS.
    device : int
        The GPU.
    """

    def __init__(self, kernel: str, device: int) -> None:
        self._kernel = kernel
        self._device = device
        # replaced at once: threads that make the same hooks' launches share it
        self._kept: tuple[tuple[str, ...], tuple[Any, ...], Launch | None] = (), (), None

    def of(self, types: tuple[str, ...], blocks: int, arguments: tuple[Any, ...]) -> Launch | None:
        """Return the launch, as `launch_of`."""
        known, made_of, made = self._kept
        same = types == known and all(map(is_, arguments, made_of))
        if not same or made is None or made.grid != (blocks,):
            made = launch_of(self._kernel, types, self._device, blocks, arguments)
            self._kept = types, arguments, made
        return made

    def run(self, types: tuple[str, ...], blocks: int, arguments: tuple[Any, ...]) -> None:
        """Launch it, on the current stream of the device."""
        made = self.of(types, blocks, arguments)
        if made is not None:
            with on_device(self._device):
                made.function(made.grid, made.block, made.arguments)


def launch(
    kernel: str, types: tuple[str, ...], device: int, blocks: int, arguments: tuple[Any, ...]
) -> None:
    """Launch a kernel on the current stream of a device.

    Parameters
    ----------
    kernel, types, device, blocks, arguments
        As for `launch_of`.
    """
    KeptLaunch(kernel, device).run(types, blocks, arguments)


def launch_of(
    kernel: str, types: tuple[str, ...], device: int, blocks: int, arguments: tuple[Any, ...]
) -> Launch | None:
    """Load a kernel, and make its arguments ready; it may be launched any number of times.

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
        `scalars_dtype` of shape (1,), whose numbers are those at the launch.

    Returns
    -------
    Launch or None
        For the current stream of the device, on which it must be the current one; None for no
        blocks.
    """
    if not blocks:
        return None
    declared = KERNELS[kernel]
    given = zip(declared, arguments, strict=True)
    cast = tuple([_cast(kind, value, types) for kind, value in given])
    name = kernel_name(kernel, types)
    with on_device(device):
        function = _loaded.get(name)
        if function is None:
            with refused_by_name(device, "load a kernel"):
                function = _loaded[name] = _load(name)
    return Launch(function, (blocks,), (THREADS,), cast)


def _load(name: str) -> Any:
    """Compile a kernel, or read CuPy's cache of files."""
    module = loaded_cupy().RawModule(code=SOURCE, options=OPTIONS, name_expressions=(name,))
    return module.get_function(name)


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
