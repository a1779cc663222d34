"""Every kernel, compiled by NVIDIA's own compiler for every architecture that it knows."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import nvrtc
import pytest
from instantiations import ALL_KERNELS, types_of

from fastadam.kernels.gpu import engine
from fastadam.kernels.gpu.source import SOURCE

pytestmark = pytest.mark.skipif(
    not nvrtc.libraries(),
    reason="needs the wheel nvidia-cuda-nvrtc-cu12, or nvidia-cuda-nvrtc for CUDA 13",
)

# fastadam's, and what CuPy adds to them
OPTIONS = engine.OPTIONS
CUPYS = ("-ftz=true", "--device-as-default-execution-space")
LEAST = 75
# Before LEAST, of which NVRTC says that it will forget them; CUDA 13 has.
OLD = (60, 61, 70)


def compilers() -> list[Any]:
    """Every architecture of every compiler.

    The oldest, the most common and the newest architecture are tried in every run with the newest
    compiler, and with the others the oldest; the rest is marked slow.
    """
    found: list[Any] = []
    for version, library in sorted(nvrtc.libraries().items(), key=newest_first):
        architectures = nvrtc.architectures(library, LEAST)
        first = not found
        for arch in architectures:
            usual = (architectures[0], 90, 120) if first else (architectures[0],)
            chosen = arch in usual
            marks = () if chosen else (pytest.mark.slow,)
            found.append(pytest.param(library, arch, id=f"{version}-sm_{arch}", marks=marks))
    return found


def newest_first(item: tuple[str, Any]) -> list[int]:
    """By numbers, and the greatest first."""
    return [-int(number) for number in item[0].split(".")]


COMPILERS = compilers()
FIRST = COMPILERS[:1]


def width(kind: Any, types: tuple[str, ...]) -> int:
    """What a declared argument takes."""
    if isinstance(kind, np.dtype):
        return kind.itemsize
    return 8 if kind == engine.POINTER else engine.scalars_dtype(types[0]).itemsize


@pytest.mark.parametrize(("library", "arch"), COMPILERS)
def test_every_kernel_compiles_without_spills(
    library: Any, arch: int, request: pytest.FixtureRequest
) -> None:
    kernels, ptx, log = nvrtc.compile_kernels(
        library, SOURCE, ALL_KERNELS, (*OPTIONS, *CUPYS), arch
    )
    registers = json.dumps({name: kernel.registers for name, kernel in kernels.items()})
    # a property of the test, since those of the suite are lost between two workers
    where = f"registers on sm_{arch} by NVRTC {version_of(library)}"
    request.node.user_properties.append((where, registers))
    assert set(kernels) == set(ALL_KERNELS)
    assert "warning" not in log
    for name, kernel in kernels.items():
        assert (kernel.spill_stores, kernel.spill_loads) == (0, 0), name
        assert 0 < kernel.registers <= 128, name
        declared = engine.KERNELS[name.partition("<")[0]]
        assert kernel.widths == [width(kind, types_of(name)) for kind in declared], name
    contract_holds(ptx)


@pytest.mark.parametrize(
    ("library", "arch"),
    [
        pytest.param(library, arch, id=f"{version}-sm_{arch}")
        for version, library in nvrtc.libraries().items()
        for arch in nvrtc.architectures(library, OLD[0])
        if arch in OLD
    ],
)
def test_old_architectures(library: Any, arch: int) -> None:
    """Those before sm_70 know no __grid_constant__."""
    names = [
        *("adam<float, float, float, false, false>", "adam<double, double, double, true, true>"),
        *("adam<float, float16, float16, true, true>", "squares<float, float>", "add_chunks"),
    ]
    kernels, ptx, _ = nvrtc.compile_kernels(library, SOURCE, names, (*OPTIONS, *CUPYS), arch)
    for name, kernel in kernels.items():
        assert (kernel.spill_stores, kernel.spill_loads, kernel.stack) == (0, 0, 0), name
        declared = engine.KERNELS[name.partition("<")[0]]
        assert kernel.widths == [width(kind, types_of(name)) for kind in declared], name
    contract_holds(ptx)


def version_of(library: Any) -> str:
    return next(version for version, known in nvrtc.libraries().items() if known is library)


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


@pytest.mark.parametrize(("library", "arch"), FIRST)
def test_what_is_read_of_kernels_is_theirs(library: Any, arch: int) -> None:
    names = ["wide", "spills<120>"]
    kernels, ptx, _ = nvrtc.compile_kernels(library, WIDE, names, ["--std=c++17"], arch)
    assert kernels["wide"].widths == [8, 4, 4, 2]
    assert kernels["wide"].spill_stores == 0
    assert kernels["spills<120>"].spill_stores > 0
    with pytest.raises(AssertionError):
        contract_holds(ptx)


@pytest.mark.parametrize(("library", "arch"), FIRST)
@pytest.mark.parametrize(
    "option", ["-fmad=false", "-prec-div=true", "-prec-sqrt=true", "-ftz=true"]
)
def test_each_option_is_needed(library: Any, arch: int, option: str) -> None:
    """Without it, the compiler does something else, and the look at the code tells."""
    opposite = option.replace("true", "FALSE").replace("false", "true").replace("FALSE", "false")
    options = [opposite if given == option else given for given in OPTIONS]
    names = [
        "adam<float, float, float, false, false>",
        "adam<double, double, double, false, false>",
    ]
    _, ptx, _ = nvrtc.compile_kernels(library, SOURCE, names, options, arch)
    with pytest.raises(AssertionError):
        contract_holds(ptx)


@pytest.mark.parametrize(("library", "arch"), FIRST)
def test_an_error_is_told(library: Any, arch: int) -> None:
    with pytest.raises(RuntimeError, match="nonsense"):
        nvrtc.compile_kernels(library, "nonsense", ["wide"], [], arch)
