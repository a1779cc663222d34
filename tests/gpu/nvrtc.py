"""NVIDIA's compiler for CUDA source, from its wheel: no GPU, no driver and no toolkit is needed."""

from __future__ import annotations

import ctypes
import re
import site
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["Compiled", "Program", "architectures", "compile_kernels", "libraries"]

# The kinds of an attribute, and the attribute, in a cubin's sections .nv.info.
SIZED, PARAMETER = 4, 0x17


@dataclass
class Compiled:
    """What one kernel has become on one architecture."""

    registers: int = -1
    spill_stores: int = -1
    spill_loads: int = -1
    stack: int = -1
    # of each parameter, in order
    widths: list[int] = field(default_factory=list)
    # its name in the code, and its own part of the intermediate code
    entry: str = ""
    ptx: str = ""


class Program(NamedTuple):
    """What kernels have become on one architecture.

    Attributes
    ----------
    kernels : dict
        What each name has become.
    ptx : str
        The intermediate code.
    log : str
        What the compiler has said.
    cubin : bytes
        The code itself.
    """

    kernels: dict[str, Compiled]
    ptx: str
    log: str
    cubin: bytes


@lru_cache
def libraries() -> dict[str, Any]:
    """Return NVRTC of every wheel that is installed, by the version of CUDA."""
    found = {}
    for folder in dict.fromkeys([*site.getsitepackages(), *sys.path]):
        for path in sorted(Path(folder).glob("nvidia/*/lib/libnvrtc.so.*[0-9]")):
            loaded = ctypes.CDLL(str(path))
            loaded.nvrtcGetErrorString.restype = ctypes.c_char_p
            major, minor = ctypes.c_int(), ctypes.c_int()
            _check(loaded, loaded.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)))
            found[f"{major.value}.{minor.value}"] = loaded
    return found


def _check(nvrtc: Any, code: int) -> None:
    if code:
        raise RuntimeError(nvrtc.nvrtcGetErrorString(code).decode())


def architectures(nvrtc: Any, least: int) -> list[int]:
    """Return the architectures that NVRTC knows, such as 90 for sm_90, from one on."""
    n = ctypes.c_int()
    _check(nvrtc, nvrtc.nvrtcGetNumSupportedArchs(ctypes.byref(n)))
    numbers = (ctypes.c_int * n.value)()
    _check(nvrtc, nvrtc.nvrtcGetSupportedArchs(numbers))
    return [number for number in numbers if number >= least]


def compile_kernels(
    nvrtc: Any, source: str, names: Sequence[str], options: Sequence[str], arch: int
) -> Program:
    """Compile kernels for one architecture."""
    program = ctypes.c_void_p()
    code = source.encode()
    _check(
        nvrtc, nvrtc.nvrtcCreateProgram(ctypes.byref(program), code, b"kernel.cu", 0, None, None)
    )
    try:
        for name in names:
            _check(nvrtc, nvrtc.nvrtcAddNameExpression(program, name.encode()))
        given = [*options, f"-arch=sm_{arch}", "--ptxas-options=-v"]
        array = (ctypes.c_char_p * len(given))(*(option.encode() for option in given))
        failed = nvrtc.nvrtcCompileProgram(program, len(given), array)
        log = _text(nvrtc, program, "ProgramLog").decode()
        if failed:
            raise RuntimeError(log)
        lowered = {}
        for name in names:
            found = ctypes.c_char_p()
            _check(nvrtc, nvrtc.nvrtcGetLoweredName(program, name.encode(), ctypes.byref(found)))
            lowered[(found.value or b"").decode()] = name
        cubin = _text(nvrtc, program, "CUBIN")
        ptx = _text(nvrtc, program, "PTX").decode()
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    widths, bodies = _widths(cubin), _bodies(ptx)
    kernels = {
        name: Compiled(widths=widths[entry], entry=entry, ptx=bodies[entry])
        for entry, name in lowered.items()
    }
    for entry in lowered.keys() & (resources := _resources(log)).keys():
        for key, value in resources[entry].items():
            setattr(kernels[lowered[entry]], key, value)
    return Program(kernels, ptx, log, cubin)


def _text(nvrtc: Any, program: Any, what: str) -> bytes:
    """Return a result of a program."""
    size = ctypes.c_size_t()
    _check(nvrtc, getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
    buffer = ctypes.create_string_buffer(size.value)
    _check(nvrtc, getattr(nvrtc, f"nvrtcGet{what}")(program, buffer))
    return buffer.raw if what == "CUBIN" else buffer.value


def _bodies(ptx: str) -> dict[str, str]:
    """Return the intermediate code of each kernel."""
    parts = re.split(r"^(?:\.weak |\.visible )+\.entry (\w+)\(", ptx, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def _resources(log: str) -> dict[str, dict[str, int]]:
    """Read what ptxas says of each kernel."""
    found: dict[str, dict[str, int]] = {}
    entry = ""
    for line in log.splitlines():
        if begun := re.search(r"Compiling entry function '([^']+)'", line):
            entry = begun[1]
            found[entry] = {}
        if memory := re.search(
            r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line
        ):
            numbers = map(int, memory.groups())
            found[entry].update(zip(("stack", "spill_stores", "spill_loads"), numbers, strict=True))
        if used := re.search(r"Used (\d+) registers", line):
            found[entry]["registers"] = int(used[1])
    return found


def _widths(cubin: bytes) -> dict[str, list[int]]:
    """Read the widths of all kernels' parameters from a cubin, which is an ELF file."""
    (table,) = struct.unpack_from("<Q", cubin, 0x28)
    entry_size, n, names_at = struct.unpack_from("<3H", cubin, 0x3A)
    sections = [struct.unpack_from("<IIQQQQ", cubin, table + i * entry_size) for i in range(n)]
    names = cubin[sections[names_at][4] :]
    found: dict[str, list[int]] = {}
    for name_at, _, _, _, offset, size in sections:
        name = names[name_at : names.index(b"\0", name_at)].decode()
        if name.startswith(".nv.info."):
            found[name.removeprefix(".nv.info.")] = _parameters(cubin[offset : offset + size])
    return found


def _parameters(info: bytes) -> list[int]:
    """Read the widths of one kernel's parameters."""
    widths, at = {}, 0
    while at < len(info):
        kind, attribute, size = struct.unpack_from("<BBH", info, at)
        at += 4
        if kind == SIZED:
            if attribute == PARAMETER:
                _, ordinal, _, packed = struct.unpack_from("<IHHI", info, at)
                widths[ordinal] = packed >> 18
            at += size
    return [widths[i] for i in range(len(widths))]
