"""What the compiler made of the loops: vectors in every variant, and no stray instruction sets.

Cython numbers the types of a fused function in the symbol's name, ``fuse_2_0_...`` being the third
type of the first argument and the first of the second; the compiler may add to the name's end.
"""

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

# The numbers of the types, as the ctypedefs of _cpu.pyx list them.
NUMBER = {"float32": 0, "float64": 1, "float16": 2, "bfloat16": 3}
PAIRS = [
    ("float32", "float32"),
    ("float64", "float64"),
    ("float16", "float16"),
    ("float16", "float32"),
    ("bfloat16", "bfloat16"),
    ("bfloat16", "float32"),
    ("float32", "float16"),
    ("float32", "bfloat16"),
]


@functools.cache
def functions(module: str) -> dict[str, list[tuple[int, str]]]:
    """The addresses and instructions of an extension module by function, as objdump prints them."""
    spec = importlib.util.find_spec(f"fastadam.kernels.{module}")
    assert spec is not None
    assert spec.origin is not None
    command = ["objdump", "-d", "--no-show-raw-insn", spec.origin]
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found: dict[str, list[tuple[int, str]]] = {}
    name = ""
    for line in listing.splitlines():
        if header := re.match(r"[0-9a-f]+ <(.+)>:$", line):
            name = header[1]
            found[name] = []
        elif "\t" in line:
            address, _, text = line.partition("\t")
            found[name].append((int(address.strip(" :"), 16), text.strip()))
    assert len(found) > 1
    return found


def symbols(module: str, function: str, *fused: int) -> list[list[tuple[int, str]]]:
    """The functions into which one function of the source was compiled for these fused types."""
    # what stands between is the module, whose name has the length before it: 7kernels_9_cpu_avx2_
    types = "_".join(map(str, fused))
    name = f"8fastadam_7kernels_{len(module)}{module}_{function}"
    pattern = re.compile(rf"__pyx_fuse_{types}__pyx_f_{name}($|\.)")
    found = [code for symbol, code in functions(module).items() if pattern.match(symbol)]
    assert found, f"the symbols of {function} are missing from {module}"
    return found


def step_loops(module: str, pair: tuple[str, str]) -> list[tuple[int, str]]:
    """The instructions of the steps of one pair of types."""
    real = int(pair[0] == "float64")
    fused = (NUMBER[pair[0]], NUMBER[pair[1]], real, real)
    return [line for code in symbols(module, "adam_typed", *fused) for line in code]


def texts(code: list[tuple[int, str]]) -> list[str]:
    """The instructions alone."""
    return [text for _, text in code]


def loops(code: list[tuple[int, str]]) -> list[list[str]]:
    """The bodies of the innermost loops: between a conditional jump back and where it goes."""
    jumps = []
    for address, text in code:
        if (jump := re.match(r"j(?!mp)\w+\s+([0-9a-f]+)\b", text)) and int(jump[1], 16) <= address:
            jumps.append((int(jump[1], 16), address))
    innermost = [
        (first, last)
        for first, last in jumps
        if not any(first <= a and b <= last and (a, b) != (first, last) for a, b in jumps)
    ]
    return [[text for at, text in code if first <= at <= last] for first, last in innermost]


def has(lines: list[str], mnemonic: str, register: str) -> bool:
    """Whether an instruction uses registers of a kind."""
    return any(line.split()[0] == mnemonic and register in line for line in lines)


def vector_loops(module: str, code: list[tuple[int, str]], mnemonic: str) -> list[list[str]]:
    """The innermost loops that compute with an instruction at the full width."""
    register, prefix = WIDTH[module]
    return [body for body in loops(code) if has(body, prefix + mnemonic, register)]


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
@pytest.mark.parametrize("module", WIDTH)
def test_every_variant_of_every_pair_is_a_loop_of_full_vectors(
    module: str, pair: tuple[str, str]
) -> None:
    suffix = "pd" if pair[0] == "float64" else "ps"
    found = vector_loops(module, step_loops(module, pair), f"sqrt{suffix}")
    assert len(found) >= N_VARIANTS, f"{len(found)} vector loops for {N_VARIANTS} variants"
    register, prefix = WIDTH[module]
    for body in found:
        for operation in ("div", "mul", "add", "sub"):
            assert has(body, f"{prefix}{operation}{suffix}", register)
        # nor is anything done one element at a time
        single = r"v?(sqrt|div|mul|add|sub)s[sd]\b|v?p(insr|extr)[bwdq]\b|call"
        assert not [line for line in body if re.match(single, line)]


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
@pytest.mark.parametrize("module", WIDTH)
def test_amsgrad_and_adabound_select_by_masks(module: str, pair: tuple[str, str]) -> None:
    suffix = "pd" if pair[0] == "float64" else "ps"
    masks = []
    for body in vector_loops(module, step_loops(module, pair), f"sqrt{suffix}"):
        pattern = rf"v?(cmp\w*{suffix}|(max|min){suffix})\b"
        masks.append(sum(bool(re.match(pattern, line)) for line in body))
    # none, two for the maximum, four for the clip, six for both
    assert sum(masks) >= 12
    assert max(masks) >= 6


@pytest.mark.parametrize("dtype", NUMBER)
@pytest.mark.parametrize("module", WIDTH)
def test_sums_of_squares_are_loops_of_full_vectors(module: str, dtype: str) -> None:
    fused = NUMBER[dtype], int(dtype == "float64")
    compiled = symbols(module, "chunk_squares", *fused)
    register, prefix = WIDTH[module]
    squares, quotients, adds = [], [], 0
    for code in compiled:
        found = vector_loops(module, code, "mulpd")
        squares += [body for body in found if has(body, f"{prefix}addpd", register)]
        div = "divpd" if dtype == "float64" else "divps"
        quotients += [body for body in found if has(body, prefix + div, register)]
        adds += sum(has([line], f"{prefix}addpd", register) for line in texts(code))
    # once of the gradient, once of its quotient
    assert len(squares) >= 2
    assert quotients
    # and in each the lanes are folded
    assert adds >= 4
    for body in squares:
        single = r"v?(div|mul|add)s[sd]\b|v?p(insr|extr)[bwdq]\b|call"
        assert not [line for line in body if re.match(single, line)]


@pytest.mark.parametrize("module", WIDTH)
def test_no_contraction(module: str) -> None:
    everything = [line for code in functions(module).values() for line in texts(code)]
    assert not [line for line in everything if re.match(r"vfn?m(add|sub)", line)]


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
@pytest.mark.parametrize("module", WIDTH)
def test_no_double_in_a_float32_kernel_nor_float_in_a_float64_one(
    module: str, pair: tuple[str, str]
) -> None:
    lines = texts(step_loops(module, pair))
    assert not [line for line in lines if re.match(r"v?cvt(ss2sd|ps2pd|sd2ss|pd2ps)", line)]
    other = "[ps]s" if pair[0] == "float64" else "[ps]d"
    assert not [line for line in lines if re.match(rf"v?(sqrt|div|mul|add|sub){other}\b", line)]


@pytest.mark.parametrize("module", WIDTH)
def test_division_and_root_are_exact_not_estimated(module: str) -> None:
    everything = [line for code in functions(module).values() for line in texts(code)]
    assert not [line for line in everything if re.match(r"v?(rsqrt|rcp)", line)]


@pytest.mark.parametrize("module", PLAIN)
def test_no_avx_outside_the_dispatched_modules(module: str) -> None:
    stray = [
        f"{name}: {line}"
        for name, code in functions(module).items()
        for line in texts(code)
        if re.search(r"%[yz]mm|%k[1-7]\b", line)
        or re.match(r"v(add|sub|mul|div|sqrt|mov|p|cmp|max|min|cvt|xor|and|zero|broadcast)", line)
    ]
    assert stray == []


def test_the_test_knows_avx_when_it_sees_it() -> None:
    lines = [line for code in functions("_cpu_avx2").values() for line in texts(code)]
    assert any(re.search(r"%ymm", line) for line in lines)
    assert any(line.startswith("vmov") for line in lines)
