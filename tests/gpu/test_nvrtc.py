"""Every kernel, compiled by NVIDIA's own compiler for every architecture that it knows."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import nvrtc
import pytest
from instantiations import ALL_KERNELS, types_of

from fastadam.kernels import gpu
from fastadam.kernels.cuda_source import SOURCE

pytestmark = pytest.mark.skipif(
    nvrtc.library() is None, reason="needs the wheel nvidia-cuda-nvrtc-cu12"
)

# fastadam's, and what CuPy adds to them
OPTIONS = (*gpu.OPTIONS, "-ftz=true")
LEAST = 75
ARCHITECTURES = [] if nvrtc.library() is None else nvrtc.architectures(LEAST)


def width(kind: Any, types: tuple[str, ...]) -> int:
    """What a declared argument takes."""
    if isinstance(kind, np.dtype):
        return kind.itemsize
    return 8 if kind == gpu.POINTER else gpu.scalars_dtype(types[0]).itemsize


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_kernel_compiles_without_spills(
    arch: int, record_property: Callable[[str, object], None]
) -> None:
    kernels, ptx, log = nvrtc.compile_kernels(SOURCE, ALL_KERNELS, OPTIONS, arch)
    record_property("registers", json.dumps({n: k.registers for n, k in kernels.items()}))
    assert set(kernels) == set(ALL_KERNELS)
    assert "warning" not in log
    for name, kernel in kernels.items():
        assert (kernel.spill_stores, kernel.spill_loads) == (0, 0), name
        assert 0 < kernel.registers <= 128, name
        declared = gpu.KERNELS[name.partition("<")[0]]
        assert kernel.widths == [width(kind, types_of(name)) for kind in declared], name
    contract_holds(ptx)


def contract_holds(ptx: str) -> None:
    """No operation is contracted, none is approximate, and float32 arithmetic flushes."""
    operations = re.findall(r"^\s*(?:@!?%p\d+ )?([a-z][\w.]*)", ptx, re.M)
    floating = {op for op in operations if re.search(r"\.f(32|64)$", op)}
    arithmetic = {op for op in floating if op.partition(".")[0] in ("add", "sub", "mul", "div")}
    assert {"mul.ftz.f32", "mul.f64", "add.ftz.f32", "add.f64"} <= {
        op.replace(".rn", "") for op in arithmetic
    }
    assert not [op for op in floating if op.startswith(("fma", "mad"))]
    assert not [op for op in floating if ".approx" in op or ".full" in op]
    singles = {op for op in floating if op.endswith(".f32")} - {"mov.f32", "selp.f32", "cvt.rn.f32"}
    flushing = ("add", "sub", "mul", "div", "sqrt", "setp", "neg", "max", "min", "abs")
    assert not [op for op in singles if op.startswith(flushing) and ".ftz" not in op]
    assert {"div.rn.ftz.f32", "div.rn.f64", "sqrt.rn.ftz.f32", "sqrt.rn.f64"} <= floating


WIDE = """
extern "C" __global__ void wide(double *x, unsigned n, float factor, short s)
{
    *x = n + factor * s + s;
}
template <int N> __global__ void __launch_bounds__(1024, 2) spills(float *x)
{
    float some[N], total = 0;
#pragma unroll
    for (int i = 0; i < N; ++i) total += some[i] = x[i * 32];
#pragma unroll
    for (int i = 0; i < N; ++i) x[i * 32] = some[i] * total;
}
"""


@pytest.mark.parametrize("arch", ARCHITECTURES[:1])
def test_what_is_read_of_kernels_is_theirs(arch: int) -> None:
    names = ["wide", "spills<120>"]
    kernels, ptx, _ = nvrtc.compile_kernels(WIDE, names, ["--std=c++17"], arch)
    assert kernels["wide"].widths == [8, 4, 4, 2]
    assert kernels["wide"].spill_stores == 0
    assert kernels["spills<120>"].spill_stores > 0
    with pytest.raises(AssertionError):
        contract_holds(ptx)


@pytest.mark.parametrize("arch", ARCHITECTURES[:1])
@pytest.mark.parametrize(
    "option", ["-fmad=false", "-prec-div=true", "-prec-sqrt=true", "-ftz=true"]
)
def test_each_option_is_needed(arch: int, option: str) -> None:
    """Without it, the compiler does something else, and the look at the code tells."""
    opposite = option.replace("true", "FALSE").replace("false", "true").replace("FALSE", "false")
    options = [opposite if given == option else given for given in OPTIONS]
    names = [
        "adam<float, float, float, false, false>",
        "adam<double, double, double, false, false>",
    ]
    _, ptx, _ = nvrtc.compile_kernels(SOURCE, names, options, arch)
    with pytest.raises(AssertionError):
        contract_holds(ptx)


@pytest.mark.parametrize("arch", ARCHITECTURES[:1])
def test_an_error_is_told(arch: int) -> None:
    with pytest.raises(RuntimeError, match="nonsense"):
        nvrtc.compile_kernels("nonsense", ["wide"], [], arch)
