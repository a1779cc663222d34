"""CuPy's module ``cuda``, and its raw kernels: devices, streams, graphs and strict launches."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from cuda_on_cpu.arrays import ndarray
from cuda_on_cpu.emulator import EmulatorError, Kernels
from cuda_on_cpu.late import running_late
from cuda_on_cpu.memory import MemoryPointer, UnownedMemory, check_guards
from cuda_on_cpu.state import CUDARuntimeError, counts, state
from cuda_on_cpu.streams import (
    GLOBAL,
    RELAXED,
    Event,
    Graph,
    Stream,
    get_current_stream,
    get_elapsed_time,
    refuse_unsafe,
    synchronize_device,
)

__all__ = ["CUDARuntimeError", "RawKernel", "RawModule", "cuda", "precompile"]


class Device:
    """A device, which is the current one inside a ``with``."""

    def __init__(self, device: int | None = None) -> None:
        self.id = state.device if device is None else int(device)
        if not 0 <= self.id < state.devices:
            raise CUDARuntimeError("cudaErrorInvalidDevice: invalid device ordinal")
        self._before: list[int] = []
        self.compute_capability = "90"
        self.attributes = {"MultiProcessorCount": state.multiprocessors}

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
        with self:
            synchronize_device()


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
        if any("ftz" in option or "default" in option for option in options):
            # CuPy gives these, and NVRTC before 12.9 refuses what is given twice
            raise RuntimeError("nvrtc: error: an option defined more than once")
        self.name = name
        if (code, name) not in _ready:
            _ready[code, name] = Kernels(code, [name])
        self._kernels = _ready[code, name]
        self._signature = self._kernels.signature(name)
        # CuPy's -ftz=true is for float32, and the mode of the host's floating point is for both
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
        device, idle, order, seed = state.device, state.idle, state.order, state.seed
        # nobody keeps the arrays of a launch, and where nothing runs late nobody has to
        kept = None if running_late() else args

        def note(on: Stream) -> None:
            counts.launches.append((self.name, int(grid[0]), on.ptr, device))

        def run() -> None:
            if not idle:
                self._run(grid, block, values, shared_mem, order, seed, kept)

        (stream or get_current_stream()).do(run, note)

    def _run(
        self, grid: Any, block: Any, values: Any, shared: int, order: str, seed: int, _: Any
    ) -> None:
        self._kernels.launch(
            self.name,
            [max(1, n) for n in grid],
            block,
            [value.ctypes.data for value in values],
            shared=shared,
            flush=self._flush,
            order=order,
            seed=seed,
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
        refuse_unsafe("to load a kernel")
        return RawKernel(self._code, name, self._options)


def _memcpy_async(to: int, source: int, size: int, kind: int, stream: int) -> None:
    raise EmulatorError("arrays are copied by ndarray.set and ndarray.get")


def _attribute(attribute: int, device: int) -> int:
    assert attribute == cuda.runtime.cudaDevAttrMultiProcessorCount
    return Device(device).attributes["MultiProcessorCount"]


cuda = SimpleNamespace(
    Device=Device,
    Stream=Stream,
    Event=Event,
    get_elapsed_time=get_elapsed_time,
    Graph=Graph,
    MemoryPointer=MemoryPointer,
    UnownedMemory=UnownedMemory,
    get_current_stream=get_current_stream,
    is_available=lambda: state.devices > 0,
    set_allocator=lambda allocator: None,
    nvrtc=SimpleNamespace(getVersion=lambda: (12, 9)),
    runtime=SimpleNamespace(
        CUDARuntimeError=CUDARuntimeError,
        deviceSynchronize=synchronize_device,
        streamCaptureModeGlobal=GLOBAL,
        streamCaptureModeRelaxed=RELAXED,
        getDevice=lambda: state.device,
        getDeviceCount=lambda: state.devices,
        cudaDevAttrMultiProcessorCount=16,
        deviceGetAttribute=_attribute,
        driverGetVersion=lambda: 13000,
        runtimeGetVersion=lambda: 12090,
        memGetInfo=lambda: (1 << 33, 1 << 34),
        getDeviceProperties=lambda i: {"name": b"CUDA on a CPU"},
        memcpyAsync=_memcpy_async,
    ),
)
