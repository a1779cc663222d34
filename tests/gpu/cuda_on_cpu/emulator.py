"""Compiles unmodified CUDA C++ with g++, and launches its kernels on the host's memory."""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["ORDERS", "EmulatorError", "Kernels", "compiler"]

HEADER = Path(__file__).with_name("cuda_on_cpu.h")
FLAGS = (
    "-std=c++17",
    "-O1",
    "-shared",
    "-fPIC",
    "-fno-math-errno",
    # the contract: one rounding for every operation
    "-ffp-contract=off",
    # a misaligned access is an error, as on a GPU
    "-fsanitize=alignment",
    # what g++ does not know of CUDA
    "-Wno-unknown-pragmas",
)
# In which order the threads of a block, and the blocks, are run.
ORDERS = ("forward", "reverse", "shuffled")


class EmulatorError(RuntimeError):
    """What a GPU would answer with an error, or do wrong without a word."""


class _Launch(ctypes.Structure):
    """As cuda_on_cpu.h spells it."""

    _fields_ = (
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared", ctypes.c_size_t),
        ("flush", ctypes.c_int),
        ("order", ctypes.c_int),
        ("seed", ctypes.c_uint),
    )


def compiler() -> str | None:
    """Return the C++ compiler, None if there is none."""
    return shutil.which(os.environ.get("CXX", "g++"))


def cache() -> Path:
    """Return the folder of what has been compiled."""
    folder = os.environ.get("FASTADAM_EMULATOR_CACHE")
    path = Path(folder or Path(tempfile.gettempdir(), f"fastadam-cuda-on-cpu-{os.getuid()}"))
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


class Kernels:
    """Kernels of one source.

    Parameters
    ----------
    source : str
        CUDA C++.
    names : sequence of str
        Which kernels, with their template arguments.
    """

    def __init__(self, source: str, names: Sequence[str]) -> None:
        self.names = list(names)
        doors = "".join(
            f'extern "C" int launch_{i}(void **arguments, const cuda_on_cpu::Launch *launch) '
            f"{{ return cuda_on_cpu::launch(&{name}, arguments, launch); }}\n"
            f'extern "C" const char *signature_{i}() {{ static const std::string all = '
            f"cuda_on_cpu::signature(&{name}); return all.c_str(); }}\n"
            for i, name in enumerate(self.names)
        )
        doors += 'extern "C" const char *error() { return cuda_on_cpu::error.c_str(); }\n'
        self._library: Any = ctypes.CDLL(str(_compiled(f'#line 1 "kernel.cu"\n{source}\n{doors}')))
        self._library.error.restype = ctypes.c_char_p

    def signature(self, name: str) -> list[tuple[str, int]]:
        """Return kind and width of every parameter of a kernel."""
        function = getattr(self._library, f"signature_{self.names.index(name)}")
        function.restype = ctypes.c_char_p
        parameters = function().decode().split()
        return [
            (parameter.rstrip("0123456789"), int(parameter.lstrip("abcdefghijklmnopqrstuvwxyz")))
            for parameter in parameters
        ]

    def launch(
        self,
        name: str,
        grid: Sequence[int],
        block: Sequence[int],
        addresses: Sequence[int],
        *,
        shared: int = 0,
        flush: bool = False,
        order: str = "forward",
        seed: int = 0,
    ) -> None:
        """Run a kernel to its end.

        Parameters
        ----------
        name : str
            The kernel.
        grid, block : sequence of int
            Up to three numbers.
        addresses : sequence of int
            Where each argument is.
        shared : int
            Bytes of shared memory beyond the kernel's own.
        flush : bool
            Whether subnormal numbers are zero.
        order : str
            One of ORDERS.
        seed : int
            Of a shuffled order.

        Raises
        ------
        EmulatorError
            For launches beyond CUDA's limits, misaligned accesses and barriers that not all
            threads reach.
        """
        triple = ctypes.c_uint * 3
        launch = _Launch(
            triple(*(*grid, 1, 1)[:3]),
            triple(*(*block, 1, 1)[:3]),
            shared,
            flush,
            ORDERS.index(order),
            seed,
        )
        function = getattr(self._library, f"launch_{self.names.index(name)}")
        arguments = (ctypes.c_void_p * len(addresses))(*addresses)
        if function(arguments, ctypes.byref(launch)):
            raise EmulatorError(f"{name}: {self._library.error().decode()}")


def _compiled(source: str) -> Path:
    """Return the library that a source makes, compiled if it has not been before."""
    text = "\n".join((HEADER.read_text(), source, *FLAGS))
    library = cache() / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.so"
    with _alone(library):
        if not library.exists():
            _run_compiler("-include", str(_header()), source=source, made=library)
    return library


def _header() -> Path:
    """Return a copy of the header that has been compiled: it is most of what there is to read."""
    text = "\n".join((HEADER.read_text(), *FLAGS))
    folder = cache() / hashlib.sha256(text.encode()).hexdigest()[:32]
    header = folder / HEADER.name
    with _alone(folder):
        if not header.exists():
            folder.mkdir(exist_ok=True)
            made = header.with_name(f"{HEADER.name}.gch")
            _run_compiler("-x", "c++-header", source=HEADER.read_text(), made=made)
            shutil.copy(HEADER, header)
    return header


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Let other processes wait that are about to make the same."""
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _run_compiler(*options: str, source: str, made: Path) -> None:
    found = compiler()
    if found is None:
        raise EmulatorError("there is no C++ compiler: apt-get install g++")
    with tempfile.TemporaryDirectory(dir=cache()) as folder:
        code, part = Path(folder, "kernel.cpp"), Path(folder, "part")
        code.write_text(source)
        command = [found, *FLAGS, *options, str(code), "-o", str(part)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise EmulatorError(f"g++ cannot compile the source:\n{done.stderr}")
        part.replace(made)
