"""PyTorch's CUDA tensors without a GPU: in the host's memory, which the stand-in for CuPy steps."""

from __future__ import annotations

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

__all__ = ["OnGpu", "Second", "moved", "pretended_gpu"]


class OnGpu(torch.Tensor):  # type: ignore[misc]
    """A tensor of the host's that says it is on a GPU; so is what PyTorch makes of it."""

    @property
    def device(self) -> torch.device:
        """Where it says that it is."""
        return torch.device("cuda", 0)

    def numpy(self, *, force: bool = False) -> Any:
        """Refuse it, as such tensors do."""
        raise TypeError(f"can't convert {self.device} device type tensor to numpy")


class Second(OnGpu):
    """The same on another GPU."""

    @property
    def device(self) -> torch.device:
        """Where it says that it is."""
        return torch.device("cuda", 1)


def moved(tensor: torch.Tensor, kind: type[OnGpu] = OnGpu) -> Any:
    """Return a copy of a tensor that says it is on a GPU."""
    copied = tensor.detach().clone(memory_format=torch.preserve_format).as_subclass(kind)
    return copied.requires_grad_(tensor.requires_grad)


@contextmanager
def pretended_gpu() -> Iterator[tuple[Any, Counts]]:
    """Yield the stand-in for CuPy, with PyTorch's current streams in it, and what is counted."""
    with pytest.MonkeyPatch.context() as patch, cupy_is_the_stand_in(None) as cupy:
        # what tensors say of themselves is read, not what DLPack says
        patch.setattr(tensors, "_reader", tensors.new_reader(False))
        patch.setattr(gpu, "_streams", {})
        current = {0: 0, 1: 0}
        patch.setattr(
            torch.cuda,
            "current_stream",
            lambda device: SimpleNamespace(cuda_stream=current[device]),
        )
        cupy.torch_streams = current
        counts.reset()
        yield cupy, counts
