"""What the kernels become: accesses, registers, and the operations of the formula, no more or less.

One architecture is looked at in every run, the others by ``tox -e assembly``.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import assembly
import estimates
import nvrtc
import pytest
from instantiations import PAIRS, VARIANTS, adam_name, types_of

from fastadam.kernels.gpu.source import SOURCE

pytestmark = pytest.mark.skipif(
    not nvrtc.libraries(),
    reason="needs the wheel nvidia-cuda-nvrtc-cu12, or nvidia-cuda-nvrtc for CUDA 13",
)

USUAL = 90
STEPS = [
    adam_name(pair, variant, prepare, masters)
    for pair in PAIRS
    for variant in VARIANTS[::3]
    for prepare, masters in (("AS_IT_IS", False), ("WRITTEN", pair[1] == "float"))
]
NORMS = [name for name in assembly.KERNELS.values() if name.startswith("squares")]
SIZES = {"float": 4, "double": 8, "float16": 2, "bfloat16": 2}
# Operations of the formula on one element, in the computing type.
FORMULA = {"mul": 6, "add": 6, "div": 1, "sqrt": 1}
HELD = 8


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(arch, marks=() if arch == USUAL else (pytest.mark.slow,))
        for arch in assembly.ARCHITECTURES
    ],
    ids=lambda arch: f"sm_{arch}",
)
def arch(request: pytest.FixtureRequest) -> int:
    """Return an architecture for which there is a compiler."""
    known: int = request.param
    if assembly.library_for(known) is None:
        pytest.skip(f"no NVRTC that is installed knows sm_{known}")
    return known


@pytest.fixture(scope="module")
def program(arch: int) -> nvrtc.Program:
    """Compile all that is looked at."""
    return assembly.compiled(arch, [*STEPS, *NORMS])


def check_accesses(program: nvrtc.Program, _: int) -> None:
    """All are to a memory that is named, and those of arrays as wide as they can be."""
    for name, kernel in program.kernels.items():
        found = assembly.operations(kernel.ptx)
        asking = [op for op in found if op.startswith(("ld.", "st."))]
        assert {op.split(".")[1] for op in asking} <= {"global", "param", "shared", "const"}, name
        expected = expected_accesses(name)
        assert {op: found[op] for op in expected} == expected, name


def expected_accesses(name: str) -> Counter[str]:
    """Count the accesses to packs."""
    types = types_of(name)
    if name.startswith("squares"):
        # once where all are there, once where some are
        return Counter({"ld.global.v4.u32": 2 * HELD})
    computing, p, g, amsgrad, _, prepare, masters = types
    moments = [computing] * (3 if amsgrad == "true" else 2)
    halves = ["float16"] if masters == "true" else []
    stored = [p, *moments, *halves, *([g] if prepare == "WRITTEN" else [])]
    expected: Counter[str] = Counter()
    for way, arrays in (("ld", [p, g, *moments, *halves]), ("st", stored)):
        for kind in arrays:
            size = 16 // SIZES[computing] * SIZES[kind]
            expected[f"{way}.global.{'v4' if size == 16 else 'v2'}.u32"] += at_once(name)
    return expected


def at_once(name: str) -> int:
    """Return how many packs a thread takes at a time."""
    return 2 if {"float16", "bfloat16"} & set(types_of(name)[1:3]) else 1


def check_formula(program: nvrtc.Program, _: int) -> None:
    """Every operation is there, once for each element, and none is made of two."""
    for name, kernel in program.kernels.items():
        found: Counter[str] = Counter()
        for op, n in assembly.operations(kernel.ptx).items():
            what, _, how = op.partition(".")
            if how in ("rn.ftz.f32", "ftz.f32", "rn.f64", "f64"):
                # to subtract is to add
                found["add" if what == "sub" else what] += n
        if name.startswith("squares"):
            continue
        assert not {"fma", "mad"} & found.keys(), name
        if "AS_IT_IS" not in name:
            continue
        elements = 1 + 16 // SIZES[types_of(name)[0]] * at_once(name)
        for what, n in FORMULA.items():
            # AMSGrad adds 0 to vhat
            more = what == "add" and types_of(name)[3] == "true"
            assert found[what] == elements * (n + more), (name, what)


def check_registers(program: nvrtc.Program, arch: int) -> None:
    """Nothing is spilled, and as many blocks fit as the source says."""
    for name, measured in assembly.measure(program, arch).items():
        assert measured.spills == 0, name
        types = types_of(name)
        if name.startswith("squares"):
            least = 3
        else:
            fewer = (types[0] == "double") + (types[3] == "true") + (types[5] == "WRITTEN")
            least = max(2, 4 - fewer - (arch < 75))
        assert measured.blocks >= least, name


def check_instructions(program: nvrtc.Program, _: int) -> None:
    """No access asks which memory it is to, and none is to local memory."""
    instructions = assembly.instructions_of(program)
    if instructions is None:
        pytest.skip("needs the wheel nvidia-cuda-nvdisasm, and an architecture that it knows")
    for name, own in instructions.items():
        found = assembly.accesses(own)
        assert not [op for op in found if op.startswith(("LD.", "ST.", "LDL", "STL"))], name
        expected = expected_accesses(name)
        assert found["LDG.E.128"] >= expected["ld.global.v4.u32"], name
        assert found["STG.E.128"] >= expected["st.global.v4.u32"], name


def check_bytes_in_flight(program: nvrtc.Program, arch: int) -> None:
    """Enough to wait for a large GPU's memory: a microsecond of what reads of 4.8 TB/s."""
    if arch not in (80, 90, 100):
        pytest.skip("other GPUs have less memory to wait for")
    for name, measured in assembly.measure(program, arch).items():
        if measured.in_flight is None:
            pytest.skip("needs the wheel nvidia-cuda-nvdisasm")
        assert measured.in_flight >= 24 * 1024, name


CHECKS = [check_accesses, check_formula, check_registers, check_instructions, check_bytes_in_flight]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_what_kernels_become(program: nvrtc.Program, arch: int, check: Any) -> None:
    check(program, arch)


STEP, HALVES, NORM = STEPS[0], adam_name(PAIRS[4], VARIANTS[0]), NORMS[0]
# What stands in the source, what is put in its place, the kernel, and the check that notices.
DEFECTS = {
    "generic": ("ld.global.v4", "ld.v4", STEP, check_accesses),
    "generic instructions": ("st.global.v4", "st.v4", STEP, check_instructions),
    "narrow": ("return 16 / sizeof(T);", "return 8 / sizeof(T);", STEP, check_accesses),
    "narrow instructions": (
        "return 16 / sizeof(T);",
        "return 8 / sizeof(T);",
        STEP,
        check_instructions,
    ),
    "one pack at a time": ("sizeof(T) ? 2 : 1;", "sizeof(T) ? 1 : 1;", HALVES, check_accesses),
    "a narrow norm": ("= 16 / (WRITTEN", "= 8 / (WRITTEN", NORM, check_accesses),
    "contracted": (
        "p = c.one_minus_decay * p - c.eta * (step * m);",
        "p = __fmaf_rn(c.one_minus_decay, p, -(c.eta * (step * m)));",
        STEP,
        check_formula,
    ),
    "an operation more": ("c.eta * (step * m)", "c.eta * (step * m) * c.eta", STEP, check_formula),
    "rounded up": ("return sqrtf(x);", "return __fsqrt_ru(x);", STEP, check_formula),
    "too many blocks": ("return BLOCKS < 2 ? 2 : BLOCKS;", "return 8;", STEP, check_registers),
    "too few blocks": ("? 2 : 3) squares", "? 2 : 1) squares", NORM, check_registers),
}


@pytest.mark.parametrize("name", DEFECTS)
def test_defects(name: str) -> None:
    text, replacement, kernel, check = DEFECTS[name]
    assert SOURCE.count(text) == 1, "the defect is to be moved along with the source"
    program = assembly.compiled(USUAL, [kernel], SOURCE.replace(text, replacement))
    with pytest.raises(AssertionError):
        check(program, USUAL)


LISTING = [
    *("LDG.E.64 R2, desc[UR4][R2.64]", ".L_x_1:"),
    *("LDG.E.128 R4, desc[UR4][R2.64]", "@!P0 LDG.E.64 R8, desc[UR4][R2.64+0x10]"),
    *("IADD3 R2, R2, 0x20, RZ", "LDG.E.U16 R12, desc[UR4][R2.64]"),
    *(
        "STG.E.64 desc[UR4][R2.64], R6",
        "LDG.E R13, desc[UR4][R2.64]",
        "LDG.E R14, desc[UR4][R2.64]",
    ),
    *("FADD R1, R13, R1", "@P1 BRA `(.L_x_1)", "LDG.E.128 R4, desc[UR4][R2.64]"),
]


def test_what_is_asked_for_is_counted_in_loops() -> None:
    """Until a register of it is needed: here the third that the first access reads."""
    (loop,) = assembly.loops(LISTING)
    assert loop == LISTING[1:-2]
    assert assembly.asked_for(loop) == 16 + 8 + 2
    assert assembly.asked_for(loop[:2] + loop[6:]) == 16 + 4 + 4
    assert assembly.accesses(LISTING)["LDG.E.64"] == 2
    assert assembly.accesses(LISTING)["STG.E.64"] == 1


def test_the_page_shows_the_figures() -> None:
    known = json.loads(assembly.FIGURES.read_text())
    text = assembly.PAGE.read_text()
    shown = text.partition(assembly.BEGIN)[2].partition(assembly.END)[0]
    assert shown == "\n".join(assembly.tables(known)) + "\n"


def test_estimates() -> None:
    """36 KB in each of 132 multiprocessors for a microsecond are 4.87 TB/s of reads."""
    gpu = estimates.Gpu("some", 90, 132, 4.8)
    allowed, estimated = estimates.estimate(gpu, 36 * 1024, 4, 0)
    assert allowed == pytest.approx(4.866, abs=1e-3)
    assert estimated == pytest.approx(0.92 * 4.8)
    # what is written comes on top, and the datasheet's bandwidth is not exceeded
    assert estimates.estimate(gpu, 36 * 1024, 32, 24)[0] == pytest.approx(8.515, abs=1e-3)
    assert estimates.estimate(gpu, 1024, 4, 0) == pytest.approx((0.1352, 0.1352), abs=1e-4)
    assert set(estimates.BYTES) == set(assembly.KERNELS)


def test_what_the_page_says_of_the_estimates() -> None:
    figures = json.loads(assembly.FIGURES.read_text())["after"]
    shares = [
        estimates.REACHED
        * gpu.tb_per_s
        / estimates.estimate(gpu, figures[str(gpu.arch)][kernel]["in_flight"], *moved)[0]
        for gpu in estimates.GPUS
        for kernel, moved in estimates.BYTES.items()
    ]
    assert f"no more than {100 * max(shares):.0f} %" in assembly.PAGE.read_text()


@pytest.mark.slow
def test_the_figures_are_those_of_the_source(arch: int) -> None:
    """By the compilers that they were made with; another may have others."""
    known = json.loads(assembly.FIGURES.read_text())
    found = assembly.library_for(arch)
    assert found is not None
    if found[0] != known["compilers"][str(arch)]:
        pytest.skip(f"the figures are of NVRTC {known['compilers'][str(arch)]}")
    names = list(assembly.KERNELS.values())
    measured = assembly.measure(assembly.compiled(arch, names), arch)
    for key, name in assembly.KERNELS.items():
        ours = {what: value for what, value in vars(measured[name]).items() if value is not None}
        shown = known["after"][str(arch)][key]
        assert ours == {what: shown[what] for what in ours}, key
