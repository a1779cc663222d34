"""What kernels become on GPUs, without one: registers, instructions, accesses, bytes in flight.

NVRTC compiles, and nvdisasm, from the wheel nvidia-cuda-nvdisasm, tells the instructions. Run as
a program, it writes the figures of docs/design/018 anew, and the page's tables from them, with what
`estimates` makes of them::

    python tests/gpu/assembly.py
"""

from __future__ import annotations

import json
import re
import shutil
import site
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import estimates
import nvrtc
from instantiations import adam_name

from fastadam.kernels.gpu import engine
from fastadam.kernels.gpu.source import SOURCE

__all__ = [
    "ARCHITECTURES",
    "FIGURES",
    "KERNELS",
    "OPTIONS",
    "Measured",
    "accesses",
    "asked_for",
    "compiled",
    "instructions_of",
    "library_for",
    "loops",
    "measure",
    "nvdisasm",
    "operations",
    "tables",
]

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/design/018-what-kernels-compile-to.rst"
FIGURES = ROOT / "docs/figures/gpu-assembly.json"
# fastadam's, and what CuPy adds to them
OPTIONS = (*engine.OPTIONS, "-ftz=true", "--device-as-default-execution-space")
ARCHITECTURES = (70, 80, 90, 100, 120)
# Registers of a multiprocessor, and threads that it holds at most.
REGISTERS = 1 << 16
THREADS = {70: 2048, 75: 1024, 80: 2048, 90: 2048, 100: 2048, 120: 1536}

# An instruction, or a label, as nvdisasm writes it; and what an instruction may begin with.
LINE = r"^\s*/\*[0-9a-f]{4,}\*/\s+(.*?)\s*;|^(\.L\w+):"
PREDICATE = r"^@!?U?P\w+ +"

_PLAIN, _AMSGRAD = ("false", "false"), ("true", "false")
_FLOAT, _DOUBLE = ("float",) * 3, ("double",) * 3
# What the tables show: what it is called there, and the kernel.
KERNELS = {
    "step, float32": adam_name(_FLOAT, _PLAIN),
    "step, float32, clipped": adam_name(_FLOAT, _PLAIN, "PREPARED"),
    "step, float32, masters": adam_name(_FLOAT, _PLAIN, masters=True),
    "step, float32, AMSGrad": adam_name(_FLOAT, _AMSGRAD),
    "step, float16": adam_name(("float", "float16", "float16"), _PLAIN),
    "step, bfloat16": adam_name(("float", "bfloat16", "bfloat16"), _PLAIN),
    "step, float32, bfloat16 gradients": adam_name(("float", "float", "bfloat16"), _PLAIN),
    "step, float64": adam_name(_DOUBLE, _PLAIN),
    "norm, float32": "squares<float, float, false, false>",
    "norm, float32, divided": "squares<float, float, true, false>",
    "norm, float16": "squares<float, float16, false, false>",
    "norm, bfloat16": "squares<float, bfloat16, false, false>",
    "norm, float64": "squares<double, double, false, false>",
}


@dataclass
class Measured:
    """One kernel on one architecture; None for what needs instructions that nvdisasm cannot read.

    Attributes
    ----------
    registers : int
        Of a thread.
    spills : int
        Bytes that are written to and read from local memory for want of registers.
    blocks : int
        Of 256 threads that a multiprocessor holds.
    instructions : int or None
        Of the kernel and of the divisions and roots that it calls.
    widest : str or None
        The widest access in a loop, such as LDG.E.128.
    in_flight : int or None
        Bytes that the threads of a multiprocessor ask for in a loop before any has to wait.
    """

    registers: int
    spills: int
    blocks: int
    instructions: int | None = None
    widest: str | None = None
    in_flight: int | None = None


def nvdisasm() -> str | None:
    """Return the disassembler, of a wheel or a toolkit; None if there is none."""
    for folder in dict.fromkeys([*site.getsitepackages(), *sys.path]):
        for path in Path(folder).glob("nvidia/*/bin/nvdisasm"):
            return str(path)
    return shutil.which("nvdisasm")


def library_for(arch: int) -> tuple[str, Any] | None:
    """Return the newest NVRTC that knows an architecture, and its version; None if none does."""
    for version, library in sorted(nvrtc.libraries().items(), key=_numbers, reverse=True):
        if arch in nvrtc.architectures(library, arch):
            return version, library
    return None


def _numbers(item: tuple[str, Any]) -> list[int]:
    return [int(number) for number in item[0].split(".")]


def compiled(arch: int, names: list[str], source: str = SOURCE) -> nvrtc.Program:
    """Compile kernels for an architecture that some compiler knows."""
    found = library_for(arch)
    assert found is not None
    return nvrtc.compile_kernels(found[1], source, names, OPTIONS, arch)


def instructions_of(program: nvrtc.Program) -> dict[str, list[str]] | None:
    """Return the instructions and labels of every kernel; None where nvdisasm cannot read them."""
    tool = nvdisasm()
    if tool is None:
        return None
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(program.cubin)
        file.flush()
        done = subprocess.run([tool, "-c", file.name], capture_output=True, text=True)
    if done.returncode:
        return None
    sections = re.split(r"^\s*\.section\s+\.text\.(\w+)", done.stdout, flags=re.M)
    bodies = dict(zip(sections[1::2], sections[2::2], strict=True))
    found = {}
    for name, kernel in program.kernels.items():
        lines = re.findall(LINE, bodies[kernel.entry], re.M)
        found[name] = [code or label for code, label in lines if code != "NOP"]
    return found


def operations(ptx: str) -> Counter[str]:
    """Count the operations of intermediate code."""
    return Counter(re.findall(r"^\s*(?:@!?%p\d+ )?([a-z][\w.]*)[ ;]", ptx, re.M))


def accesses(instructions: list[str]) -> Counter[str]:
    """Count the accesses to memory, such as LDG.E.128; of local memory LDL and STL."""
    opcodes = (re.sub(PREDICATE, "", line).split()[0] for line in instructions)
    return Counter(op for op in opcodes if re.match(r"(LD|ST)(G|L|S)?(\.|$)", op))


def loops(instructions: list[str]) -> Iterator[list[str]]:
    """Find what is between a label and a branch back to it."""
    labels = {line.rstrip(":"): i for i, line in enumerate(instructions) if line[:2] == ".L"}
    for i, line in enumerate(instructions):
        back = re.search(r"\bBRA.*`\((\.L\w+)\)", line)
        if back and labels[back[1]] < i:
            yield instructions[labels[back[1]] : i]


def asked_for(instructions: list[str]) -> int:
    """Return the most bytes that a thread has asked for before it needs any of them."""
    on_their_way: dict[int, int] = {}
    most = 0
    for line in instructions:
        line = re.sub(PREDICATE, "", line)
        opcode, _, operands = line.partition(" ")
        first, _, sources = operands.partition(",")
        stored = opcode.startswith(("ST", "RED"))
        used = {int(n) for n in re.findall(r"\bR(\d+)", operands if stored else sources)}
        if any(_register_in(n, on_their_way) for n in used):
            on_their_way.clear()
        if re.match(r"LDG?\.E", opcode) and (loaded := re.fullmatch(r"\s*R(\d+)", first)):
            width = re.search(r"\.(?:U|S)?(8|16|64|128)\b", opcode)
            on_their_way[int(loaded[1])] = int(width[1]) // 8 if width else 4
            most = max(most, sum(on_their_way.values()))
    return most


def _register_in(n: int, on_their_way: dict[int, int]) -> bool:
    """Tell whether a register is one of those that are being read into."""
    return any(first <= n < first + max(1, size // 4) for first, size in on_their_way.items())


def measure(program: nvrtc.Program, arch: int) -> dict[str, Measured]:
    """Measure all kernels of a program."""
    instructions = instructions_of(program)
    found = {}
    for name, kernel in program.kernels.items():
        # registers are given to a warp in steps of 256
        threads = REGISTERS // (-(-kernel.registers // 8) * 8)
        blocks = min(threads, THREADS[arch]) // engine.THREADS
        measured = Measured(kernel.registers, kernel.spill_stores + kernel.spill_loads, blocks)
        if instructions is not None:
            own = instructions[name]
            measured.instructions = sum(not line.startswith(".L") for line in own)
            inside = list(loops(own))
            found_there = accesses([line for loop in inside for line in loop])
            measured.widest = max(found_there, key=lambda op: (_width(op), op[:2] == "LD"))
            most = max(map(asked_for, inside), default=0)
            measured.in_flight = blocks * engine.THREADS * most
        found[name] = measured
    return found


def _width(opcode: str) -> int:
    width = re.search(r"\.(?:U|S)?(8|16|64|128)$", opcode)
    return int(width[1]) if width else 32


def figures() -> dict[str, dict[str, Any]]:
    """Measure what the tables show, by architecture and kernel."""
    found: dict[str, dict[str, Any]] = {}
    for arch in ARCHITECTURES:
        measured = measure(compiled(arch, list(KERNELS.values())), arch)
        found[str(arch)] = {key: asdict(measured[name]) for key, name in KERNELS.items()}
    return found


def tables(known: dict[str, Any]) -> Iterator[str]:
    """Make the lines of the page's tables: one an architecture, before and after; estimates."""
    for arch in ARCHITECTURES:
        yield f".. csv-table:: sm_{arch}, by NVRTC {known['compilers'][str(arch)]}"
        yield "   :header: kernel, registers, spilled, blocks, instructions, widest, KB"
        yield ""
        for kernel in KERNELS:
            pair = [known[when][str(arch)][kernel] for when in ("before", "after")]
            cells = (_both(key, pair) for key in Measured.__annotations__)
            yield f'   "{kernel}", {", ".join(cells)}'
        yield ""
    yield from estimates.table(known["after"])


def _both(key: str, pair: list[dict[str, Any]]) -> str:
    """Return one figure before and after."""
    shown = []
    for measured in pair:
        value = measured[key]
        if value is None:
            return "not read"
        shown.append(f"{value / 1024:.0f}" if key == "in_flight" else str(value))
    return " → ".join(dict.fromkeys(shown))


BEGIN, END = ".. tables begin\n\n", ".. tables end\n"


def main() -> None:
    """Measure, and write the figures and the page's tables."""
    known = json.loads(FIGURES.read_text())
    found = {arch: library_for(arch) for arch in ARCHITECTURES}
    known["compilers"] = {str(arch): library[0] for arch, library in found.items() if library}
    known["after"] = figures()
    FIGURES.write_text(json.dumps(known, indent=1) + "\n")
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(before + BEGIN + "\n".join(tables(known)) + "\n" + END + after)


if __name__ == "__main__":
    main()
