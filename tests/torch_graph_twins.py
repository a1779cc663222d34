"""Twins for tests of CUDA graphs: an optimizer that is captured, and one that makes steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import torch
from torch_pairs import same, snapshot, values
from torch_pretended_gpu import moved, pretended_gpu

import fastadam.torch
from fastadam.kernels.gpu.source import SOURCE

__all__ = ["Twins", "compile_kernels", "gpu_that_captures"]

FLAGS = "false", "true"
# What is compiled, once.
KERNELS = [
    *(f"adam<float, float, float, {a}, {b}, AS_IT_IS, false>" for a in FLAGS for b in FLAGS),
    "adam<float, float, float, false, false, PREPARED, false>",
    "adam<float, float, bfloat16, false, false, AS_IT_IS, true>",
    *("squares<float, float, false, false>", "add_chunks", "bound_rate"),
]


def compile_kernels() -> None:
    """Compile the kernels for the CPU."""
    from cuda_on_cpu import cuda, emulator

    if emulator.compiler() is None:
        pytest.skip("CUDA on a CPU needs a C++ compiler: apt-get install g++")
    cuda.precompile(SOURCE, KERNELS)


@contextmanager
def gpu_that_captures() -> Iterator[Any]:
    """Pretend that there is a GPU, with a stream that can capture as PyTorch's current one."""
    with pretended_gpu() as (cupy, counts):
        stream = cupy.cuda.Stream(non_blocking=True)
        cupy.torch_streams[0] = stream.ptr
        yield cupy, counts, stream


class Twins:
    """Two optimizers on equal parameters: one is captured, the other makes ordinary steps."""

    def __init__(
        self, gpu: Any, kind: str = "AdamW", dtype: Any = torch.float32, **options: Any
    ) -> None:
        self._cupy, _, self._stream = gpu
        start = [torch.nn.Parameter(value) for value in values(dtype)]
        self.params = [[moved(p) for p in start] for _ in range(2)]
        self.captured, self.plain = (
            getattr(fastadam.torch, kind)(params, **options) for params in self.params
        )

    def gradients(self) -> None:
        """Give both new gradients, each in the memory that it has, if it has any."""
        for p, q in zip(*self.params, strict=True):
            grad = torch.randn(p.shape).to(p.dtype)
            for one in (p, q):
                if one.grad is None:
                    one.grad = moved(grad)
                else:
                    one.grad.copy_(grad)

    def step(self) -> None:
        self.gradients()
        self.captured.step()
        self.plain.step()

    def capture(self, step: Callable[[], Any] | None = None) -> Any:
        """Return a graph of a step, in the mode of ``torch.cuda.graph``."""
        with self._stream:
            self._stream.begin_capture(self._cupy.cuda.runtime.streamCaptureModeGlobal)
            try:
                (step or self.captured.step)()
            except BaseException:
                # what CUDA has refused has ended the capture
                with suppress(self._cupy.cuda.runtime.CUDARuntimeError):
                    self._stream.end_capture()
                raise
            return self._stream.end_capture()

    def replay(self, graph: Any) -> None:
        self.gradients()
        self.captured.prepare_replay()
        graph.launch(self._stream)
        self._stream.synchronize()
        self.plain.step()

    def check(self) -> None:
        self._cupy.cuda.runtime.deviceSynchronize()
        assert same(snapshot(self.captured), snapshot(self.plain))
        assert self.captured.last_update == self.plain.last_update
