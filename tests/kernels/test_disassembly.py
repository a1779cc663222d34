"""What the compiler made of the loops: vectors in every variant, and no stray instruction sets."""

from __future__ import annotations

import functools
import importlib.util
import re
import shutil
import subprocess

import pytest

from fastadam.kernels import _cpu_features

pytestmark = [
    pytest.mark.skipif(shutil.which("objdump") is None, reason="needs objdump, of GNU binutils"),
    pytest.mark.skipif(
        _cpu_features.machine() != "x86_64", reason="knows the instructions of x86-64 only"
    ),
]

# Of the full width of each instruction set: the register's name, and the prefix of mnemonics.
WIDTH = {"_cpu": ("xmm", ""), "_cpu_avx2": ("ymm", "v"), "_cpu_avx512": ("zmm", "v")}
PLAIN = ("_cpu", "_table", "_openmp", "_cpu_features")
N_VARIANTS = 4


@functools.cache
def functions(module: str) -> dict[str, list[str]]:
    """The instructions of an extension module by function, as objdump prints them."""
    spec = importlib.util.find_spec(f"fastadam.kernels.{module}")
    assert spec is not None
    assert spec.origin is not None
    command = ["objdump", "-d", "--no-show-raw-insn", spec.origin]
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found: dict[str, list[str]] = {}
    name = ""
    for line in listing.splitlines():
        if header := re.match(r"[0-9a-f]+ <(.+)>:$", line):
            name = header[1]
            found[name] = []
        elif "\t" in line:
            found[name].append(line.split("\t", 1)[1].strip())
    assert len(found) > 1
    return found


def loops(module: str, fused: str) -> list[str]:
    """The instructions of the kernels for one type ('fuse_0' is float, 'fuse_1' double)."""
    kernels = [
        code for name, code in functions(module).items() if "adam_" in name and fused in name
    ]
    assert kernels, "the symbols of the kernels are missing from the extension"
    return [line for code in kernels for line in code]


def count(lines: list[str], mnemonic: str, register: str) -> int:
    """How often an instruction uses registers of a kind."""
    return sum(line.split()[0] == mnemonic and register in line for line in lines)


@pytest.mark.parametrize("operation", ["sqrt", "div", "mul", "sub"])
@pytest.mark.parametrize(("fused", "suffix"), [("fuse_0", "ps"), ("fuse_1", "pd")])
@pytest.mark.parametrize("module", WIDTH)
def test_every_variant_is_vectorized(module: str, fused: str, suffix: str, operation: str) -> None:
    register, prefix = WIDTH[module]
    n = count(loops(module, fused), f"{prefix}{operation}{suffix}", register)
    assert n >= N_VARIANTS, f"{n} full-width {operation} for {N_VARIANTS} variants"


@pytest.mark.parametrize("module", WIDTH)
def test_amsgrad_and_adabound_select_by_masks(module: str) -> None:
    for fused, suffix in (("fuse_0", "ps"), ("fuse_1", "pd")):
        masks = [
            line
            for line in loops(module, fused)
            if re.match(rf"v?(cmp\w*{suffix}|(max|min){suffix})\b", line)
        ]
        # two for the maximum in two variants, four for the clip in two variants
        assert len(masks) >= 12


@pytest.mark.parametrize("module", WIDTH)
def test_no_contraction(module: str) -> None:
    for fused in ("fuse_0", "fuse_1"):
        assert not [line for line in loops(module, fused) if re.match(r"vfn?m(add|sub)", line)]


@pytest.mark.parametrize("module", WIDTH)
def test_no_double_in_a_float32_kernel_nor_float_in_a_float64_one(module: str) -> None:
    for fused in ("fuse_0", "fuse_1"):
        lines = loops(module, fused)
        assert not [line for line in lines if re.match(r"v?cvt(ss2sd|ps2pd|sd2ss|pd2ps)", line)]
    wrong = re.compile(r"v?(sqrt|div|mul|add|sub)(sd|pd)\b")
    assert not [line for line in loops(module, "fuse_0") if wrong.match(line)]


@pytest.mark.parametrize("module", WIDTH)
def test_division_and_root_are_exact_not_estimated(module: str) -> None:
    for fused in ("fuse_0", "fuse_1"):
        assert not [line for line in loops(module, fused) if re.match(r"v?(rsqrt|rcp)", line)]


@pytest.mark.parametrize("module", PLAIN)
def test_no_avx_outside_the_dispatched_modules(module: str) -> None:
    stray = [
        f"{name}: {line}"
        for name, code in functions(module).items()
        for line in code
        if re.search(r"%[yz]mm|%k[1-7]\b", line)
        or re.match(r"v(add|sub|mul|div|sqrt|mov|p|cmp|max|min|cvt|xor|and|zero|broadcast)", line)
    ]
    assert stray == []


def test_the_test_knows_avx_when_it_sees_it() -> None:
    lines = [line for code in functions("_cpu_avx2").values() for line in code]
    assert any(re.search(r"%ymm", line) for line in lines)
    assert any(line.startswith("vmov") for line in lines)
