"""What CuPy is told of PyTorch's CUDA tensors: where they lie, and which stream is theirs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch

from fastadam.kernels.backend import capturing, loaded_cupy, on_device, require_cupy

__all__ = [
    "array_at",
    "is_on_gpu",
    "on_current_streams",
    "recorded",
    "refuse_capture",
    "require_gpu",
]


class _Stream:
    """A stream of PyTorch's, as CuPy asks for it; that of older versions does not say it itself."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self._number


# CuPy's objects for PyTorch's streams, by device and number. PyTorch has 32 a device and priority,
# which stay.
_streams: dict[tuple[int, int], Any] = {}


def is_on_gpu(param: object) -> bool:
    """Tell whether something is a tensor on a GPU."""
    return isinstance(param, torch.Tensor) and param.device.type == "cuda"


def require_gpu(name: str, tensor: torch.Tensor) -> None:
    """Import CuPy, for a parameter on a GPU, by its name in messages.

    Raises
    ------
    RuntimeError
        If CuPy is not there, finds no GPU, or is not what the GPU needs.
    """
    if torch.version.hip is not None:
        raise RuntimeError(
            f"parameter {name!r} is on {tensor.device} of a PyTorch for ROCm, and the kernels here "
            "are CUDA's"
        )
    try:
        require_cupy()
    except RuntimeError as error:
        raise RuntimeError(f"parameter {name!r} is on {tensor.device}: {error}") from error


def array_at(
    at: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...] | None,
    dtype: np.dtype[Any],
    device: int,
    owner: torch.Tensor,
) -> Any:
    """Return CuPy's array over memory of a GPU.

    Parameters
    ----------
    at : int
        The address of the first element.
    shape, strides : tuple of int
        As NumPy has them; no strides for elements one after the other.
    dtype : numpy.dtype
        The dtype.
    device : int
        The GPU.
    owner : torch.Tensor
        What keeps the memory alive.
    """
    cupy = loaded_cupy()
    reach = sum(step * (n - 1) for step, n in zip(strides or (), shape, strict=False))
    size = reach + dtype.itemsize if strides else shape[0] * dtype.itemsize
    memory = cupy.cuda.UnownedMemory(at, size, owner, device)
    return cupy.ndarray(shape, dtype, cupy.cuda.MemoryPointer(memory, 0), strides)


@contextmanager
def on_current_streams(devices: Iterable[int]) -> Iterator[None]:
    """Make PyTorch's current streams those of CuPy, too.

    Parameters
    ----------
    devices : iterable of int
        The GPUs.
    """
    with ExitStack() as stack:
        for device in devices:
            number = torch.cuda.current_stream(device).cuda_stream
            with on_device(device):
                stream = _streams.get((device, number))
                if stream is None:
                    made = loaded_cupy().cuda.Stream.from_external(_Stream(number))
                    stream = _streams[device, number] = made
                stack.enter_context(stream)
        yield


def recorded(devices: Iterable[int]) -> int | None:
    """Return the first of some GPUs that a CUDA graph is being captured on; else None.

    Parameters
    ----------
    devices : iterable of int
        The GPUs, whose current streams are PyTorch's.
    """
    return next((device for device in devices if capturing(device)), None)


def refuse_capture(devices: Iterable[int], why: str) -> None:
    """Refuse a step that cannot become part of a CUDA graph.

    Parameters
    ----------
    devices : iterable of int
        The GPUs.
    why : str
        Why it cannot, and what to do.

    Raises
    ------
    RuntimeError
        If a graph is being captured on one of them.
    """
    devices = list(devices)
    if not devices or loaded_cupy() is None:
        # nothing here has been stepped on a GPU yet, and whoever needs CuPy says so
        return
    with on_current_streams(devices):
        device = recorded(devices)
    if device is not None:
        raise RuntimeError(
            f"this step cannot become part of the CUDA graph that is being captured on "
            f"cuda:{device}: {why}"
        )
