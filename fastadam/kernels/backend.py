"""NumPy or CuPy: the only module that asks, and only of who has imported CuPy already.

An array of CuPy's can be there only if somebody has imported CuPy, so that nothing here imports
it, but for `require_cupy`, which is for those who ask for a GPU by name.
"""

from __future__ import annotations

import importlib
import sys
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "CPU",
    "address",
    "beside",
    "capturing",
    "copy_into",
    "current_stream",
    "device_of",
    "empty_like",
    "get_array_module",
    "is_array",
    "is_gpu_array",
    "loaded_cupy",
    "move",
    "on_cpu",
    "on_device",
    "require_cupy",
    "shares_memory",
    "wait_for",
    "zeros_like",
]

# The number of the device of NumPy's arrays, as `device_of` tells it; GPUs count from 0.
CPU = -1


def loaded_cupy() -> Any:
    """Return CuPy if it has been imported, None otherwise."""
    return sys.modules.get("cupy")


def require_cupy() -> Any:
    """Import CuPy, for somebody who asks for a GPU.

    Raises
    ------
    RuntimeError
        If CuPy is not installed, or finds no GPU; it says what to install.
    """
    try:
        cupy = importlib.import_module("cupy")
    except ImportError as error:
        raise RuntimeError(
            f"a GPU needs CuPy, which cannot be imported ({error}): "
            "pip install 'cupy-cuda12x[ctk]>=14' or 'cupy-cuda13x[ctk]>=14', after your CUDA "
            "driver's version"
        ) from error
    if not cupy.cuda.is_available():
        raise RuntimeError(
            "CuPy is installed, but finds no GPU: look at what nvidia-smi says of the driver, and "
            "whether the package, cupy-cuda12x or cupy-cuda13x, fits its version"
        )
    return cupy


def on_device(device: int) -> AbstractContextManager[Any]:
    """Return a context in which a GPU is the current one."""
    cuda = loaded_cupy().cuda
    if cuda.runtime.getDevice() == device:
        return nullcontext()
    context: AbstractContextManager[Any] = cuda.Device(device)
    return context


def current_stream(device: int) -> Any:
    """Return the current stream of a GPU."""
    # without an argument it is asked of the current device
    with on_device(device):
        return loaded_cupy().cuda.get_current_stream()


def capturing(device: int) -> bool:
    """Tell whether the current stream of a GPU records a CUDA graph, and runs nothing."""
    stream = current_stream(device)
    # the default stream can record none, and may not be asked while another one does
    return bool(stream.ptr > 1 and stream.is_capturing())


def wait_for(device: int) -> None:
    """Wait for everything that a GPU has been given, on whichever stream."""
    with on_device(device):
        loaded_cupy().cuda.runtime.deviceSynchronize()


def is_gpu_array(x: object) -> bool:
    """Tell whether something is an array of CuPy's."""
    cupy = loaded_cupy()
    return cupy is not None and isinstance(x, cupy.ndarray)


def is_array(x: object) -> bool:
    """Tell whether something is an array of NumPy's or CuPy's."""
    return isinstance(x, np.ndarray) or is_gpu_array(x)


def get_array_module(*arrays: object) -> ModuleType:
    """Return CuPy if one of the arrays is CuPy's, NumPy otherwise."""
    module: ModuleType = loaded_cupy() if any(map(is_gpu_array, arrays)) else np
    return module


def device_of(array: Any) -> int:
    """Return the number of the GPU that an array is on, `CPU` for NumPy's."""
    return int(array.data.device_id) if is_gpu_array(array) else CPU


def address(array: Any) -> int:
    """Return where an array's first element is in memory."""
    return int(array.data.ptr if is_gpu_array(array) else array.ctypes.data)


def on_cpu(array: Any) -> npt.NDArray[Any]:
    """Return an array as NumPy's: itself, or a copy of one on a GPU.

    Whichever stream writes it is waited for.
    """
    if not is_gpu_array(array):
        return np.asarray(array)
    wait_for(device_of(array))
    with on_device(device_of(array)):
        return np.asarray(array.get())


def move(array: Any, device: int) -> Any:
    """Return an array on a device: itself if it is there, a copy otherwise.

    Parameters
    ----------
    array : array
        NumPy's or CuPy's.
    device : int
        The number of a GPU, or `CPU`.
    """
    if device == device_of(array):
        return array
    if device == CPU:
        return on_cpu(array)
    cupy = require_cupy()
    if is_gpu_array(array):
        # of the other device's streams, those of this one know nothing
        wait_for(device_of(array))
    with cupy.cuda.Device(device):
        # CuPy's own arrays are copied over from other devices
        moved = cupy.array(array)
        # whichever stream reads it, and whatever becomes of the memory that it comes from
        cupy.cuda.get_current_stream().synchronize()
    return moved


def copy_into(target: Any, source: Any) -> None:
    """Write an array, or a number, into another, wherever both are; cast within a kind.

    From the CPU or another GPU, all streams of the target's are waited for. Between arrays on one
    GPU it is done on the current stream.

    Raises
    ------
    TypeError
        If the values cannot be cast.
    """
    if not is_gpu_array(target):
        np.copyto(target, on_cpu(source), casting="same_kind")
        return
    if not is_gpu_array(source):
        wide = np.asarray(source)
        with np.errstate(over="ignore"):
            source = wide.astype(target.dtype, casting="same_kind", copy=False)
    device = device_of(target)
    near = device_of(source) == device
    with on_device(device):
        moved = move(source, device)
        if not near:
            wait_for(device)
        loaded_cupy().copyto(target, moved, casting="same_kind")
        if not near:
            wait_for(device)


def beside(array: Any) -> AbstractContextManager[Any]:
    """Return a context in which new arrays of the array's library are where it is."""
    if not is_gpu_array(array):
        return nullcontext()
    context: AbstractContextManager[Any] = loaded_cupy().cuda.Device(device_of(array))
    return context


def empty_like(array: Any, dtype: Any = None) -> Any:
    """Return an array of the library, device, shape and layout of another; plain, not a subclass.

    Parameters
    ----------
    array : array
        The other.
    dtype : dtype, optional
        By default, its own.
    """
    if not is_gpu_array(array):
        return np.empty_like(array, dtype, subok=False)
    with beside(array):
        return loaded_cupy().empty_like(array, dtype)


def zeros_like(array: Any, dtype: Any = None) -> Any:
    """Return zeros, as `empty_like`."""
    if not is_gpu_array(array):
        return np.zeros_like(array, dtype, subok=False)
    with beside(array):
        return loaded_cupy().zeros_like(array, dtype)


def shares_memory(a: Any, b: Any) -> bool:
    """Tell whether two arrays, of either library, have an element in common."""
    if device_of(a) != device_of(b):
        return False
    module: Any = get_array_module(a)
    return bool(module.may_share_memory(a, b) and module.shares_memory(a, b))
