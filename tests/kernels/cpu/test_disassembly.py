"""What the compiler made of the loops: vectors in every variant, and no stray instruction sets.

Cython numbers the types of a fused function in the symbol's name, ``fuse_2_0_...`` being the third
type of the first argument and the first of the second; the compiler may add to the name's end.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import shutil
import subprocess

import pytest

from fastadam.kernels.cpu import _cpu_features

pytestmark = [
    pytest.mark.skipif(shutil.which("objdump") is None, reason="needs objdump, of GNU binutils"),
    pytest.mark.skipif(
        _cpu_features.machine() != "x86_64", reason="knows the instructions of x86-64 only"
    ),
    pytest.mark.skipif(
        os.environ.get("FASTADAM_TEST_INSTRUMENTED") == "1", reason="checks are between the loops"
    ),
]

# Of the full width of each instruction set: the register's name, and the prefix of mnemonics.
WIDTH = {"_step": ("xmm", ""), "_step_avx2": ("ymm", "v"), "_step_avx512": ("zmm", "v")}
PLAIN = ("_step", "_floor", "_tensors", "_openmp", "_cpu_features")
N_VARIANTS = 4

# The numbers of the types, as the ctypedefs of _step.pyx list them.
NUMBER = {"float32": 0, "float64": 1}


@functools.cache
def functions(module: str) -> dict[str, list[tuple[int, str]]]:
    """The addresses and instructions of an extension module by function, as objdump prints them."""
    spec = importlib.util.find_spec(f"fastadam.kernels.cpu.{module}")
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
    # what stands between is the module, whose name has the length before it: 3cpu_10_step_avx2_
    types = "_".join(map(str, fused))
    fuse = f"fuse_{types}__pyx_" if fused else ""
    name = f"8fastadam_7kernels_3cpu_{len(module)}{module}_{function}"
    pattern = re.compile(rf"__pyx_{fuse}f_{name}($|\.)")
    found = [code for symbol, code in functions(module).items() if pattern.match(symbol)]
    assert found, f"the symbols of {function} are missing from {module}"
    return found


def step_loops(module: str, dtype: str) -> list[tuple[int, str]]:
    """The instructions of the steps in one type."""
    fused = NUMBER[dtype], NUMBER[dtype]
    return [line for code in symbols(module, "adam_variant", *fused) for line in code]


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


@pytest.mark.parametrize("dtype", NUMBER)
@pytest.mark.parametrize("module", WIDTH)
def test_every_variant_is_a_loop_of_full_vectors(module: str, dtype: str) -> None:
    suffix = "pd" if dtype == "float64" else "ps"
    found = vector_loops(module, step_loops(module, dtype), f"sqrt{suffix}")
    assert len(found) >= N_VARIANTS, f"{len(found)} vector loops for {N_VARIANTS} variants"
    register, prefix = WIDTH[module]
    for body in found:
        for operation in ("div", "mul", "add", "sub"):
            assert has(body, f"{prefix}{operation}{suffix}", register)
        # nor is anything done one element at a time
        single = r"v?(sqrt|div|mul|add|sub)s[sd]\b|v?p(insr|extr)[bwdq]\b|call"
        assert not [line for line in body if re.match(single, line)]


@pytest.mark.parametrize("dtype", NUMBER)
@pytest.mark.parametrize("module", WIDTH)
def test_amsgrad_and_adabound_select_by_masks(module: str, dtype: str) -> None:
    suffix = "pd" if dtype == "float64" else "ps"
    masks = []
    for body in vector_loops(module, step_loops(module, dtype), f"sqrt{suffix}"):
        pattern = rf"v?(cmp\w*{suffix}|(max|min){suffix})\b"
        masks.append(sum(bool(re.match(pattern, line)) for line in body))
    # none, two for the maximum, four for the clip, six for both
    assert sum(masks) >= 12
    assert max(masks) >= 6


@pytest.mark.parametrize("dtype", NUMBER)
@pytest.mark.parametrize("module", WIDTH)
def test_sums_of_squares_are_loops_of_full_vectors(module: str, dtype: str) -> None:
    compiled = symbols(module, "chunk_squares", NUMBER[dtype])
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


@pytest.mark.parametrize("dtype", NUMBER)
@pytest.mark.parametrize("module", WIDTH)
def test_gradients_are_prepared_in_full_vectors(module: str, dtype: str) -> None:
    suffix = "pd" if dtype == "float64" else "ps"
    register, prefix = WIDTH[module]
    [code] = symbols(module, "op_typed", NUMBER[dtype], NUMBER[dtype])
    found = vector_loops(module, code, f"div{suffix}")
    assert [body for body in found if has(body, f"{prefix}mul{suffix}", register)]


@pytest.mark.parametrize("function", ["widen", "narrow"])
@pytest.mark.parametrize("module", WIDTH)
def test_half_precision_is_converted_in_full_vectors(module: str, function: str) -> None:
    register, _ = WIDTH[module]
    [code] = symbols(module, function)
    found = loops(code)
    if module == "_step":
        # whole numbers, of both half types
        shifted = [body for body in found if any(re.match(r"ps(ll|rl|ra)d", line) for line in body)]
        unpacked = [body for body in found if any(line.startswith("punpck") for line in body)]
        assert len({id(body) for body in shifted + unpacked}) >= 2
        return
    hardware = "vcvtph2ps" if function == "widen" else "vcvtps2ph"
    assert [body for body in found if has(body, hardware, register)]
    whole = "vpslld" if function == "widen" else "vpsrad"
    shifts = [body for body in found if has(body, whole, register)]
    assert shifts or [body for body in found if has(body, "vpsrld", register)]


@pytest.mark.parametrize("dtype", NUMBER)
@pytest.mark.parametrize("module", WIDTH)
def test_changes_of_gradients_are_loops_of_full_vectors(module: str, dtype: str) -> None:
    suffix = "pd" if dtype == "float64" else "ps"
    register, prefix = WIDTH[module]
    [code] = symbols(module, "op_typed", NUMBER[dtype], NUMBER[dtype])
    found = [
        body
        for body in loops(code)
        if any(
            re.match(rf"{prefix}(mul|max|min|cmp\w*){suffix}", x) and register in x for x in body
        )
    ]
    # decay, lasso, clipping of both kinds
    assert len(found) >= 4


@pytest.mark.parametrize("module", WIDTH)
def test_masters_follow_in_full_vectors(module: str) -> None:
    register, _ = WIDTH[module]
    [code] = symbols(module, "follow")
    compare = re.compile(r"v?pcmp\w*d\b|vpcmp\w+\b|vptestn?md\b")
    assert [body for body in loops(code) if any(compare.match(x) and register in x for x in body)]


@pytest.mark.parametrize("module", WIDTH)
def test_no_contraction(module: str) -> None:
    everything = [line for code in functions(module).values() for line in texts(code)]
    assert not [line for line in everything if re.match(r"vfn?m(add|sub)", line)]


@pytest.mark.parametrize("dtype", NUMBER)
@pytest.mark.parametrize("module", WIDTH)
def test_no_double_in_a_float32_kernel_nor_float_in_a_float64_one(module: str, dtype: str) -> None:
    lines = texts(step_loops(module, dtype))
    assert not [line for line in lines if re.match(r"v?cvt(ss2sd|ps2pd|sd2ss|pd2ps)", line)]
    other = "[ps]s" if dtype == "float64" else "[ps]d"
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
    lines = [line for code in functions("_step_avx2").values() for line in texts(code)]
    assert any(re.search(r"%ymm", line) for line in lines)
    assert any(line.startswith("vmov") for line in lines)


@pytest.mark.parametrize("widths", [(0, 0, 0), (0, 1, 0), (1, 0, 0), (1, 1, 0), (2, 2, 1)])
def test_the_memory_floor_reads_and_writes_every_stream(widths: tuple[int, int, int]) -> None:
    (code,) = symbols("_floor", "pass_over", *widths)
    found = []
    for body in loops(code):
        moves = [line for line in body if re.match(r"mov(dqu|ups|dqa|upd)\b", line)]
        written = {match[1] for line in moves if (match := re.search(r",(-?\w*\(\S+\))$", line))}
        read = {match[1] for line in moves if (match := re.match(r"\w+\s+(-?\w*\(\S+\)),", line))}
        if written:
            found.append((written, read))
    # p, m, v, and with amsgrad vhat: all of them read, and the gradient besides; where p or g are
    # narrower than the state, a loop reads and writes two or more vectors of the wide streams
    at_least = sorted(len(written) for written, _ in found)
    assert len(found) >= 2
    assert at_least[0] >= 3
    assert at_least[-1] >= 4
    for written, read in found:
        assert written <= read
        assert read - written
