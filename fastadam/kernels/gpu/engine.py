"""The GPU engine: compiles the CUDA source, caches kernels, and launches them.

Everything goes through `launch`, on the current stream of the device. CuPy checks neither the
number nor the width of arguments, so that those of every kernel are declared here, and cast.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from fastadam.algorithms.adam import ADAM
from fastadam.kernels.backend import capturing, current_stream, loaded_cupy, on_device
from fastadam.kernels.dtypes import stored
from fastadam.kernels.gpu.source import SOURCE

__all__ = [
    "CHUNK",
    "KERNELS",
    "OPTIONS",
    "POINTER",
    "SCALARS",
    "SETS",
    "THREADS",
    "WARP",
    "DeviceTable",
    "Recording",
    "allocate",
    "blocks_of",
    "c_flag",
    "c_name",
    "follow_stream",
    "forget",
    "kernel_name",
    "launch",
    "reserve",
    "scalars_dtype",
    "upload",
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
# are six times those that it holds; fewer only where there are not enough elements.
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
    return np.dtype([("rows", real, (SETS, len(ADAM.scalars))), ("scale", real)])


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
    # rows, blocks, chunk, kind, rates
    "change": (POINTER, POINTER, _UNSIGNED, _UNSIGNED, POINTER),
    # p_squares, g_squares, n, threshold, weight_decay, eps, rates
    "lars_rates": (POINTER, POINTER, _SIZE, _DOUBLE, _DOUBLE, _DOUBLE, POINTER),
}

# Kernels that are in use, by name; each knows the devices it has been loaded on.
_loaded: dict[str, Any] = {}


def forget() -> None:
    """Drop the kernels in use, so that the next launch compiles, or reads CuPy's cache of files.

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
            with refused_by_name(device, "load a kernel"):
                function = _loaded[name] = _load(name)
        function((blocks,), (THREADS,), cast)


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


def upload(memory: Any, data: bytes) -> None:
    """Copy bytes to memory of their length on the current device and stream of a GPU.

    They are kept until they have been read; nobody can change them meanwhile.
    """
    memory.set(np.frombuffer(data, np.uint8))
    event = loaded_cupy().cuda.Event(disable_timing=True)
    event.record()
    with _uploading:
        _uploads.append((event, data))
        while _uploads and _uploads[0][0].done:
            _uploads.popleft()


# What has been given to be copied, and when it has been.
_uploads: deque[tuple[Any, bytes]] = deque()
_uploading = threading.Lock()


@contextmanager
def refused_by_name(device: int, what: str) -> Iterator[None]:
    """Say what to do if CUDA refuses something because a stream is capturing."""
    recording = capturing(device)
    try:
        yield
    except loaded_cupy().cuda.runtime.CUDARuntimeError as error:
        if not recording:
            raise
        raise RuntimeError(
            f"this update cannot be captured in a CUDA graph: CUDA does not {what} while a stream "
            f"captures in global mode ({error}); make one more such update before the capture "
            "begins, or capture in relaxed mode"
        ) from error


class Recording:
    """What a CUDA graph reads that is being captured: kept alive, and written before its launch.

    In a capture nothing is copied or waited for; nor is anything allocated that could have been
    before, since that is for captures in relaxed mode alone.
    """

    def __init__(self, device: int) -> None:
        self.device = device
        self._read: list[Any] = []
        self._due: list[tuple[Any, bytes, Any]] = []

    def keep(self, memory: Any) -> Any:
        """Keep what the graph reads."""
        self._read.append(memory)
        return memory

    def put(self, reserved: tuple[Any, Any] | None, data: bytes) -> Any:
        """Return memory in which bytes will be when the graph is launched.

        It is what `reserve` has returned for it, if something has been reserved.
        """
        memory, stream = reserved or reserve(self.device, len(data))
        self._due.append((memory, data, stream))
        return self.keep(memory)

    def send(self) -> None:
        """Write what has not been written yet, on the current stream."""
        due, self._due = self._due, []
        with on_device(self.device):
            for memory, data, stream in due:
                follow_stream(stream)
                upload(memory, data)


def allocate(device: int, n: int, dtype: npt.DTypeLike) -> Any:
    """Return an array of a GPU's, of whatever there has been; refused by name in a capture."""
    with refused_by_name(device, "allocate memory"), on_device(device):
        return loaded_cupy().empty(n, dtype)


def reserve(device: int, size: int) -> tuple[Any, Any]:
    """Return bytes of a GPU's memory, and the stream in whose order they are had."""
    return allocate(device, size, np.uint8), current_stream(device)


def follow_stream(stream: Any) -> None:
    """Let the current stream come after all that another one of its device has been given.

    What was had on one stream may have been another's just before, which that stream still reads.
    """
    current = loaded_cupy().cuda.get_current_stream()
    if current.ptr != stream.ptr:
        current.wait_event(stream.record())


class DeviceTable:
    """A table in a GPU's memory, which is uploaded only when it differs from what is there.

    What has been written is never written over, since an earlier launch may have yet to read it;
    and it is read on the stream that it was had on alone, in the order of which its memory will be
    somebody else's. That stream is kept: CUDA gives the number of one that is gone to the next.
    """

    def __init__(self, device: int) -> None:
        self.device = device
        self._there: bytes | None = None
        self._memory: Any = None
        self._stream: Any = None
        self._reserved: tuple[Any, Any] | None = None

    def put(self, table: npt.NDArray[Any], recording: Recording | None = None) -> Any:
        """Upload a table, unless it is there, on the current stream; return the GPU's array.

        Parameters
        ----------
        table : numpy.ndarray
            Contiguous, of any dtype.
        recording : Recording, optional
            Of the graph that is to read it, and keeps it.
        """
        now = table.tobytes()
        if recording is not None:
            if now == self._there:
                return recording.keep(self._memory)
            reserved, self._reserved = self._reserved, None
            return recording.put(reserved, now)
        with on_device(self.device):
            stream = loaded_cupy().cuda.get_current_stream()
            if now != self._there or stream.ptr != self._stream.ptr:
                self._memory = loaded_cupy().empty(len(now), np.uint8)
                self._there, self._stream = now, stream
                upload(self._memory, now)
        return self._memory

    def reserve(self, size: int) -> None:
        """Have memory for the next graph, so that capturing it need not."""
        if self._reserved is None:
            self._reserved = reserve(self.device, size)
