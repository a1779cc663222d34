"""Every kernel, compiled by NVIDIA's own compiler for every architecture that it knows."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import nvrtc
import pytest
import test_gpu_probes
from instantiations import ALL_KERNELS, PAIRS, PLAIN_KERNELS, VARIANTS, adam_name, types_of

from fastadam.bench import cuda_ceilings
from fastadam.kernels.gpu import engine
from fastadam.kernels.gpu.source import SOURCE

pytestmark = pytest.mark.skipif(
    not nvrtc.libraries(),
    reason="needs the wheel nvidia-cuda-nvrtc-cu12, or nvidia-cuda-nvrtc for CUDA 13",
)

FLOAT, DOUBLE = PAIRS[0], PAIRS[-1]
# fastadam's, and what CuPy adds to them
OPTIONS = (*engine.OPTIONS, "-ftz=true", "--device-as-default-execution-space")
LEAST = 75
USUAL = 90
# Before LEAST, of which NVRTC says that it will forget them; CUDA 13 has.
OLD = (60, 61, 70)


def compilers() -> list[Any]:
    """Every architecture of every compiler, and the kernels that are tried.

    In every run, these are all of them for the most common architecture with the newest compiler;
    those that prepare nothing for the oldest and the newest architecture with it, and for the
    oldest with the others. The rest is marked slow.
    """
    found: list[Any] = []
    for version, library in sorted(nvrtc.libraries().items(), key=newest_first):
        architectures = nvrtc.architectures(library, LEAST)
        first = not found
        for arch in architectures:
            marks = () if first and arch == USUAL else (pytest.mark.slow,)
            case = library, arch, ALL_KERNELS
            found.append(pytest.param(*case, id=f"{version}-sm_{arch}", marks=marks))
        for arch in (architectures[0], architectures[-1]) if first else architectures[:1]:
            case = library, arch, PLAIN_KERNELS
            found.append(pytest.param(*case, id=f"{version}-sm_{arch}-plain"))
    return found


def newest_first(item: tuple[str, Any]) -> list[int]:
    """By numbers, and the greatest first."""
    return [-int(number) for number in item[0].split(".")]


COMPILERS = compilers()
FIRST = [
    pytest.param(*param.values[:2], id=param.id) for param in COMPILERS if param.values[1] == USUAL
][:1]


def width(kind: Any, types: tuple[str, ...]) -> int:
    """What a declared argument takes."""
    if isinstance(kind, np.dtype):
        return kind.itemsize
    return 8 if kind == engine.POINTER else engine.scalars_dtype(types[0]).itemsize


@pytest.mark.parametrize(("library", "arch", "names"), COMPILERS)
def test_every_kernel_compiles_without_spills(
    library: Any, arch: int, names: list[str], request: pytest.FixtureRequest
) -> None:
    program = nvrtc.compile_kernels(library, SOURCE, names, OPTIONS, arch)
    kernels = program.kernels
    registers = json.dumps({name: kernel.registers for name, kernel in kernels.items()})
    # a property of the test, since those of the suite are lost between two workers
    where = f"registers on sm_{arch} by NVRTC {version_of(library)}"
    request.node.user_properties.append((where, registers))
    assert set(kernels) == set(names)
    assert "warning" not in program.log
    for name, kernel in kernels.items():
        assert (kernel.spill_stores, kernel.spill_loads) == (0, 0), name
        assert 0 < kernel.registers <= 128, name
        declared = engine.KERNELS[name.partition("<")[0]]
        assert kernel.widths == [width(kind, types_of(name)) for kind in declared], name
    contract_holds(program)


@pytest.mark.parametrize(("library", "arch"), FIRST)
def test_kernels_that_measure(library: Any, arch: int) -> None:
    """What steps are compared with has accesses as wide as theirs; and what keeps a GPU busy."""
    names = ["move_all", "read_all"]
    options = ("--std=c++17", "-ftz=true")
    program = nvrtc.compile_kernels(library, cuda_ceilings._SOURCE, names, options, arch)
    accesses = {}
    for name, kernel in program.kernels.items():
        assert (kernel.spill_stores, kernel.spill_loads) == (0, 0), name
        accesses[name] = {way: kernel.ptx.count(f"{way}.global.v4") for way in ("ld", "st")}
    assert accesses == {"move_all": {"ld": 16, "st": 12}, "read_all": {"ld": 8, "st": 0}}
    assert program.kernels["move_all"].widths == [8] * 5
    assert program.kernels["read_all"].widths == [8] * 3
    spin = nvrtc.compile_kernels(library, test_gpu_probes.SPIN, ["spin"], (), arch)
    assert spin.kernels["spin"].widths == [8]


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
        adam_name(FLOAT, VARIANTS[0]),
        adam_name(FLOAT, VARIANTS[-1], "WRITTEN", masters=True),
        adam_name(DOUBLE, VARIANTS[-1], "PREPARED"),
        adam_name(("float", "float16", "float16"), VARIANTS[-1]),
        *("squares<float, float, false, false>", "squares<float, float16, true, true>"),
        "add_chunks",
    ]
    program = nvrtc.compile_kernels(library, SOURCE, names, OPTIONS, arch)
    kernels = program.kernels
    for name, kernel in kernels.items():
        assert (kernel.spill_stores, kernel.spill_loads, kernel.stack) == (0, 0, 0), name
        declared = engine.KERNELS[name.partition("<")[0]]
        assert kernel.widths == [width(kind, types_of(name)) for kind in declared], name
    contract_holds(program)


def version_of(library: Any) -> str:
    return next(version for version, known in nvrtc.libraries().items() if known is library)


def contract_holds(program: nvrtc.Program) -> None:
    """No operation is contracted, none is approximate, and float32 arithmetic flushes."""
    floating = operations(program.ptx)
    arithmetic = {op for op in floating if op.partition(".")[0] in ("add", "sub", "mul", "div")}
    assert {"mul.ftz.f32", "mul.f64", "add.ftz.f32", "add.f64"} <= {
        op.replace(".rn", "") for op in arithmetic
    }
    for name, kernel in program.kernels.items():
        contracted = {op for op in operations(kernel.ptx) if op.startswith(("fma", "mad"))}
        # where it is written: the square of a float32 is exact in float64
        squares = name.startswith("squares<float")
        assert contracted == ({"fma.rn.f64"} if squares else set()), name
    assert not [op for op in floating if ".approx" in op or ".full" in op]
    singles = {op for op in floating if op.endswith(".f32")} - {"mov.f32", "selp.f32", "cvt.rn.f32"}
    flushing = ("add", "sub", "mul", "div", "sqrt", "setp", "neg", "max", "min", "abs")
    assert not [op for op in singles if op.startswith(flushing) and ".ftz" not in op]
    assert {"div.rn.ftz.f32", "div.rn.f64", "sqrt.rn.ftz.f32", "sqrt.rn.f64"} <= floating
    # a subnormal float32 that becomes a float64 is flushed, too
    assert "cvt.f64.f32" not in operations(program.ptx)


def operations(ptx: str) -> set[str]:
    """Return the operations of intermediate code that are on floating numbers."""
    found = re.findall(r"^\s*(?:@!?%p\d+ )?([a-z][\w.]*)", ptx, re.M)
    return {op for op in found if re.search(r"\.f(32|64)$", op)}


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
    program = nvrtc.compile_kernels(library, WIDE, names, ["--std=c++17"], arch)
    kernels = program.kernels
    assert kernels["wide"].widths == [8, 4, 4, 2]
    assert kernels["wide"].spill_stores == 0
    assert kernels["spills<120>"].spill_stores > 0
    with pytest.raises(AssertionError):
        contract_holds(program)


@pytest.mark.parametrize(("library", "arch"), FIRST)
@pytest.mark.parametrize("option", ["-fmad=false", "-prec-div=true", "-prec-sqrt=true"])
def test_each_option_is_needed(library: Any, arch: int, option: str) -> None:
    """Without it, the compiler does something else, and the look at the code tells."""
    opposite = option.replace("true", "FALSE").replace("false", "true").replace("FALSE", "false")
    options = [opposite if given == option else given for given in OPTIONS]
    names = [
        *(adam_name(types, VARIANTS[0]) for types in (FLOAT, DOUBLE)),
    ]
    program = nvrtc.compile_kernels(library, SOURCE, names, options, arch)
    with pytest.raises(AssertionError):
        contract_holds(program)


@pytest.mark.parametrize(("library", "arch"), FIRST)
@pytest.mark.parametrize("given", [("-ftz=false",), ()], ids=["false", "nothing"])
def test_the_source_asks_for_what_cupy_gives(
    library: Any, arch: int, given: tuple[str, ...]
) -> None:
    options = [*(option for option in OPTIONS if "ftz" not in option), *given]
    with pytest.raises(RuntimeError, match="-ftz=true"):
        nvrtc.compile_kernels(library, SOURCE, ["add_chunks"], options, arch)


def test_no_option_is_given_twice() -> None:
    """Compilers before 12.9 refuse it."""
    names = [option.lstrip("-").partition("=")[0] for option in OPTIONS]
    assert len({*names, "device-as-default-execution-space"}) == len(names)
    assert "default-device" not in names


@pytest.mark.parametrize(("library", "arch"), FIRST)
def test_an_error_is_told(library: Any, arch: int) -> None:
    with pytest.raises(RuntimeError, match="nonsense"):
        nvrtc.compile_kernels(library, "nonsense", ["wide"], [], arch)
