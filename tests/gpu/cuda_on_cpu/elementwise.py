"""CuPy's elementwise kernels, of which each call is a launch of a kernel made for it."""

from __future__ import annotations

from typing import Any

import numpy as np

from cuda_on_cpu.arrays import ndarray
from cuda_on_cpu.cuda import RawKernel

__all__ = ["ElementwiseKernel"]

THREADS = 128
C_NAMES = {"float32": "float", "float64": "double"}


class ElementwiseKernel:
    """A kernel from declarations such as ``T x, T y`` and statements for one element.

    All types are one, T, which is that of the arrays; numbers are cast to it.
    """

    def __init__(self, in_params: str, out_params: str, operation: str, name: str = "one") -> None:
        self.inputs, self.outputs = (_names(params) for params in (in_params, out_params))
        self.operation, self.name = operation, name

    def __call__(self, *args: Any) -> None:
        names = [*self.inputs, *self.outputs]
        if len(args) != len(names):
            raise TypeError(
                f"{self.name}: {len(args)} arguments, and the kernel takes {len(names)}"
            )
        arrays = [arg for arg in args if isinstance(arg, ndarray)]
        dtype, size = arrays[0].dtype, arrays[0].size
        if any(a.dtype != dtype or a.size != size or not a.flags.c_contiguous for a in arrays):
            raise TypeError(f"{self.name}: the stand-in takes arrays of one type and size")
        are_arrays = [isinstance(arg, ndarray) for arg in args]
        source = self._source(names, are_arrays, C_NAMES[dtype.name])
        kernel = RawKernel(source, self.name)
        values = [arg if isinstance(arg, ndarray) else dtype.type(arg) for arg in args]
        if size:
            kernel((-(-size // THREADS),), (THREADS,), (*values, np.uint64(size)))

    def _source(self, names: list[str], are_arrays: list[bool], c_type: str) -> str:
        pairs = list(zip(names, are_arrays, strict=True))
        declared = ", ".join(f"T *_{name}" if array else f"T {name}" for name, array in pairs)
        elements = "".join(f"    T &{name} = _{name}[i];\n" for name, array in pairs if array)
        return (
            f"using T = {c_type};\n"
            f"__global__ void {self.name}({declared}, size_t n)\n{{\n"
            "    const size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;\n"
            f"    if (i >= n) return;\n{elements}    {self.operation}\n}}\n"
        )


def _names(params: str) -> list[str]:
    return [param.split()[1] for param in params.split(",")]
