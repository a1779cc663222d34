"""CuPy's module ``cuda``, and its raw kernels: devices, streams, graphs and strict launches."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from cuda_on_cpu.arrays import ndarray
from cuda_on_cpu.emulator import EmulatorError, Kernels
from cuda_on_cpu.memory import MemoryPointer, check_guards, counts, state

__all__ = ["RawKernel", "RawModule", "cuda", "precompile"]


class CUDARuntimeError(RuntimeError):
    """What CuPy raises for errors of CUDA."""


class Device:
    """A device, which is the current one inside a ``with``."""

    def __init__(self, device: int | None = None) -> None:
        self.id = state.device if device is None else int(device)
        if not 0 <= self.id < state.devices:
            raise CUDARuntimeError("cudaErrorInvalidDevice: invalid device ordinal")
        self._before: list[int] = []
        self.compute_capability = "90"
        self.attributes = {"MultiProcessorCount": 132}

    def __enter__(self) -> Device:
        self._before.append(state.device)
        state.device = self.id
        return self

    def __exit__(self, *_: object) -> None:
        state.device = self._before.pop()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and other.id == self.id

    def __hash__(self) -> int:
        return self.id

    def __repr__(self) -> str:
        return f"<CUDA Device {self.id}>"

    def __int__(self) -> int:
        return self.id

    def use(self) -> None:
        state.device = self.id

    def synchronize(self) -> None:
        counts.synchronisations += 1


class Graph:
    """What a stream has recorded, to be done again."""

    def __init__(self, calls: list[Callable[[], None]]) -> None:
        self._calls = calls

    def launch(self, stream: Any = None) -> None:
        for call in self._calls:
            call()

    def upload(self, stream: Any = None) -> None:
        pass


class Stream:
    """A stream, which is the current one inside a ``with``."""

    null: Stream
    # CUDA's own streams have the first numbers
    _next = 16

    def __init__(self, null: bool = False, non_blocking: bool = False, ptds: bool = False) -> None:
        self.ptr = 0 if null else Stream._next
        Stream._next += not null
        self._before: list[Stream] = []
        self._recorded: list[Callable[[], None]] | None = None

    def __enter__(self) -> Stream:
        self._before.append(get_current_stream())
        return self.use()

    def __exit__(self, *_: object) -> None:
        _current.stream = self._before.pop()

    def use(self) -> Stream:
        _current.stream = self
        return self

    def synchronize(self) -> None:
        if self._recorded is not None:
            raise CUDARuntimeError("cudaErrorStreamCaptureUnsupported")
        counts.synchronisations += 1

    def begin_capture(self, mode: Any = None) -> None:
        if not self.ptr:
            raise CUDARuntimeError("cudaErrorStreamCaptureUnsupported")
        self._recorded = []

    def do(self, call: Callable[[], None]) -> None:
        """Do something on the stream, or record it."""
        if self._recorded is None:
            call()
        else:
            self._recorded.append(call)

    def is_capturing(self) -> bool:
        return self._recorded is not None

    def end_capture(self) -> Graph:
        recorded, self._recorded = self._recorded, None
        assert recorded is not None
        return Graph(recorded)


class Event:
    """A point in a stream."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.seconds: float | None = None

    def record(self, stream: Any = None) -> None:
        self.seconds = time.perf_counter()

    def synchronize(self) -> None:
        counts.synchronisations += 1


def get_elapsed_time(start: Event, end: Event) -> float:
    """Return the milliseconds between two events that have been recorded."""
    assert start.seconds is not None
    assert end.seconds is not None
    return (end.seconds - start.seconds) * 1000


_current = threading.local()
Stream.null = Stream(null=True)


def get_current_stream() -> Stream:
    """Return the current stream of this thread."""
    stream: Stream = getattr(_current, "stream", Stream.null)
    return stream


# Libraries that hold many kernels of one source, so that not each is compiled by itself.
_ready: dict[tuple[str, str], Kernels] = {}


def precompile(source: str, names: Sequence[str]) -> None:
    """Compile many kernels of a source at once."""
    kernels = Kernels(source, names)
    _ready.update({(source, name): kernels for name in names})


class RawKernel:
    """A kernel, whose arguments are checked as CuPy does not."""

    def __init__(self, code: str, name: str, options: tuple[str, ...] = (), **_: Any) -> None:
        if not isinstance(options, tuple):
            raise TypeError("options must be a tuple")
        self.name = name
        if (code, name) not in _ready:
            _ready[code, name] = Kernels(code, [name])
        self._kernels = _ready[code, name]
        self._signature = self._kernels.signature(name)
        # -ftz=true is for float32, and the mode of the host's floating point is for both
        self._flush = not name.partition("<")[2].startswith("double")

    def __call__(
        self, grid: Any, block: Any, args: Any, *, shared_mem: int = 0, stream: Any = None
    ) -> None:
        if type(grid) is not tuple or type(block) is not tuple:
            raise TypeError("grid and block must be tuples")
        if len(args) != len(self._signature):
            raise TypeError(
                f"{self.name}: {len(args)} arguments, and the kernel takes {len(self._signature)}"
            )
        values = [
            self._value(i, value, *declared)
            for i, (value, declared) in enumerate(zip(args, self._signature, strict=True))
        ]
        stream = stream or get_current_stream()
        # the arrays live until the launch is over, also in a graph
        call = lambda: self._run(grid, block, values, shared_mem, args, stream.ptr)  # noqa: E731
        stream.do(call)

    def _run(self, grid: Any, block: Any, values: Any, shared: int, args: Any, stream: int) -> None:
        counts.launches.append((self.name, int(grid[0]), stream, state.device))
        if state.idle:
            return
        self._kernels.launch(
            self.name,
            [max(1, n) for n in grid],
            block,
            [value.ctypes.data for value in values],
            shared=shared,
            flush=self._flush,
            order=state.order,
            seed=state.seed,
        )
        if state.check_guards:
            check_guards()

    def _value(self, i: int, value: Any, kind: str, width: int) -> np.ndarray:
        """Return an argument's bytes; refuse one of another kind or width."""
        if isinstance(value, ndarray):
            if value.data.device_id != state.device:
                raise TypeError(f"{self.name}: argument {i} is not on the current device")
            value, given = np.uint64(value.data.ptr), ("pointer", 8)
        elif isinstance(value, MemoryPointer):
            value, given = np.uint64(value.ptr), ("pointer", 8)
        elif value is None:
            value, given = np.uint64(0), ("pointer", 8)
        elif isinstance(value, np.ndarray) and value.size != 1:
            raise TypeError(f"{self.name}: argument {i} is a numpy.ndarray of size {value.size}")
        else:
            array = np.asarray(value)
            kinds = {"b": "bool", "i": "int", "u": "uint", "f": "float", "V": "struct"}
            given = kinds[array.dtype.kind], array.dtype.itemsize
            if kind == "pointer" and given == ("uint", 8):
                given = "pointer", 8
        if given != (kind, width):
            raise TypeError(
                f"{self.name}: argument {i} is {given[0]}{given[1]}, the kernel takes {kind}{width}"
            )
        # of the arguments, a launch makes a copy
        return np.array(value).reshape(1)


class RawModule:
    """A source of kernels."""

    def __init__(
        self,
        *,
        code: str,
        options: tuple[str, ...] = (),
        backend: str = "nvrtc",
        name_expressions: Sequence[str] | None = None,
    ) -> None:
        self._code, self._options = code, options
        self._names = tuple(name_expressions or ())

    def get_function(self, name: str) -> RawKernel:
        """Return a kernel."""
        return RawKernel(self._code, name, self._options)


def _memcpy_async(to: int, source: int, size: int, kind: int, stream: int) -> None:
    raise EmulatorError("arrays are copied by ndarray.set and ndarray.get")


cuda = SimpleNamespace(
    Device=Device,
    Stream=Stream,
    Event=Event,
    get_elapsed_time=get_elapsed_time,
    Graph=Graph,
    MemoryPointer=MemoryPointer,
    get_current_stream=get_current_stream,
    is_available=lambda: state.devices > 0,
    runtime=SimpleNamespace(
        CUDARuntimeError=CUDARuntimeError,
        deviceSynchronize=lambda: setattr(counts, "synchronisations", counts.synchronisations + 1),
        getDevice=lambda: state.device,
        getDeviceCount=lambda: state.devices,
        driverGetVersion=lambda: 13000,
        runtimeGetVersion=lambda: 12090,
        memGetInfo=lambda: (1 << 33, 1 << 34),
        getDeviceProperties=lambda i: {"name": b"CUDA on a CPU"},
        memcpyAsync=_memcpy_async,
    ),
)
