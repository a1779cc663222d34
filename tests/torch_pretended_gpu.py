"""PyTorch's CUDA tensors without a GPU: in the host's memory, which the stand-in for CuPy steps."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent / "gpu"))

from cuda_on_cpu.state import Counts, counts
from place import cupy_is_the_stand_in

from fastadam.torch import gpu, tensors

__all__ = ["HAS_EXCHANGE", "OnGpu", "Second", "moved", "pretended_gpu"]

HAS_EXCHANGE = hasattr(torch.Tensor, "__dlpack_c_exchange_api__")


class OnGpu(torch.Tensor):  # type: ignore[misc]
    """A tensor of the host's that says it is on a GPU; so is what PyTorch makes of it."""

    number = 0

    @property
    def device(self) -> torch.device:
        """Where it says that it is."""
        return torch.device("cuda", self.number)

    def numpy(self, *, force: bool = False) -> Any:
        """Refuse it, as such tensors do."""
        raise TypeError(f"can't convert {self.device} device type tensor to numpy")


class Second(OnGpu):
    """The same on another GPU."""

    number = 1


def moved(tensor: torch.Tensor, kind: type[OnGpu] = OnGpu) -> Any:
    """Return a copy of a tensor that says it is on a GPU."""
    copied = tensor.detach().clone(memory_format=torch.preserve_format).as_subclass(kind)
    return copied.requires_grad_(tensor.requires_grad)


class _Tensor(ctypes.Structure):
    """The beginning of DLTensor."""

    _fields_ = (("data", ctypes.c_void_p), ("kind", ctypes.c_int32), ("number", ctypes.c_int32))


_Read = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(_Tensor))


class _Exchange(ctypes.Structure):
    """DLPackExchangeAPI, as far as it is read."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("version", "previous")),
        *((name, ctypes.c_void_p) for name in ("allocate", "managed_from", "managed_to")),
        ("read", _Read),
        ("stream", ctypes.c_void_p),
    )


def _exchange() -> tuple[Any, Any]:
    """Return DLPack's C exchange API in which such tensors are on a GPU, and what it needs."""
    python = ctypes.pythonapi
    python.PyCapsule_GetPointer.restype = ctypes.POINTER(_Exchange)
    python.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    python.PyCapsule_New.restype = ctypes.py_object
    python.PyCapsule_New.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    name = b"dlpack_exchange_api"
    theirs = python.PyCapsule_GetPointer(torch.Tensor.__dlpack_c_exchange_api__, name).contents
    read = theirs.read

    def read_so(tensor: int, found: Any) -> int:
        failed: int = read(tensor, found)
        kind = type(ctypes.cast(tensor, ctypes.py_object).value)
        if not failed and issubclass(kind, OnGpu):
            # CUDA, as DLPack numbers devices
            found.contents.kind, found.contents.number = 2, kind.number
        return failed

    ours = _Exchange.from_buffer_copy(theirs)
    ours.read = _Read(read_so)
    return python.PyCapsule_New(ctypes.addressof(ours), name, None), (ours, name)


@contextmanager
def pretended_gpu(fast: bool = HAS_EXCHANGE) -> Iterator[tuple[Any, Counts]]:
    """Yield the stand-in for CuPy, with PyTorch's current streams in it, and what is counted.

    Tensors are read by DLPack's C exchange API, if it is there and not switched off.
    """
    with pytest.MonkeyPatch.context() as patch, cupy_is_the_stand_in(None) as cupy:
        kept = None
        if fast:
            capsule, kept = _exchange()
            patch.setattr(torch.Tensor, "__dlpack_c_exchange_api__", capsule)
        patch.setattr(tensors, "_reader", tensors.new_reader(fast))
        patch.setattr(gpu, "_streams", {})
        cupy.torch_streams = {0: 0, 1: 0}
        patch.setattr(
            torch.cuda,
            "current_stream",
            lambda device: SimpleNamespace(cuda_stream=cupy.torch_streams[device]),
        )
        counts.reset()
        yield cupy, counts
        del kept
