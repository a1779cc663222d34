"""Builds the extensions of fastadam; everything else about the package is in pyproject.toml.

What is built depends on the machine that will run it (the target platform), never on the machine
that builds. ``FASTADAM_OPENMP`` says what to do about OpenMP:

``auto`` (the default)
    A small program is compiled and run; where it fails, so does the build, with what to install.
``on``
    The OpenMP flags are used and nothing is tried, as a cross build needs.
``off``
    The kernels are built to run on one thread.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from sysconfig import get_platform

import numpy
from Cython import __version__ as cython_version
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py
from setuptools.errors import CCompilerError, CompileError, ExecError, OptionError

KERNELS = "fastadam/kernels"

# Instruction set: the module that holds its loops, and the flags that compile them. Whoever adds
# a flag adds the feature to supported() in _cpu_features.pyx.
BASELINE = {"baseline": ("_cpu", [])}
X86_64 = BASELINE | {
    "avx2": ("_cpu_avx2", ["-mavx2", "-mfma", "-mf16c"]),
    "avx512": (
        "_cpu_avx512",
        ["-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mfma", "-mf16c"]
        + ["-mprefer-vector-width=512"],
    ),
}

# Appended last, so that nothing before them changes the numbers: every instruction set and every
# compiler gives the same bits only without contraction, and -ffast-math cannot be taken back.
NUMERICS = ["-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off"]
FORBIDDEN = {"-ffast-math", "-Ofast", "-funsafe-math-optimizations", "-fassociative-math"}

# How OpenMP is spelled: (compiler flags, linker flags). Apple's clang takes it as an add-on.
OPENMP = ["-fopenmp"], ["-fopenmp"]
OPENMP_MACOS = ["-Xpreprocessor", "-fopenmp"], ["-lomp"]
THREADED = {"_cpu", "_cpu_avx2", "_cpu_avx512", "_openmp"}

# They hold for the included _cpu.pyx too, where directives in a comment would not.
DIRECTIVES = {
    "language_level": 3,
    "boundscheck": False,
    "wraparound": False,
    "cdivision": True,
    "initializedcheck": False,
}

PROBE_C = "#include <Python.h>\nint main(void) { return 0; }\n"
PROBE_OPENMP = """
#include <omp.h>
#include <stdio.h>
int main(void) {
    int threads = 0;
    #pragma omp parallel num_threads(2) reduction(+:threads)
    threads += 1;
    return printf("%d threads at most %d\\n", threads, omp_get_max_threads()) < 1 || threads < 1;
}
"""

NO_COMPILER = """no C program could be compiled and linked with {compiler} for {python}:
{reason}
fastadam's kernels need GCC or Clang and Python's headers:
    Debian, Ubuntu:  apt-get install gcc python3-dev
    Fedora, RHEL:    dnf install gcc python3-devel
    macOS:           xcode-select --install"""
NO_OPENMP = """a program with an OpenMP parallel region could not be compiled and run with {compiler}:
{reason}
fastadam needs OpenMP to use more than one CPU core:
    Debian, Ubuntu:  apt-get install gcc     (for clang: libomp-dev)
    Fedora, RHEL:    dnf install gcc         (for clang: libomp-devel)
    macOS:           brew install libomp, and its folders in CPPFLAGS=-I... and LDFLAGS=-L...
    FASTADAM_OPENMP=off builds kernels that run on one thread,
    FASTADAM_OPENMP=on takes OpenMP for granted, as a cross build must."""


def instruction_sets(platform: str) -> dict[str, tuple[str, list[str]]]:
    """Return what is built for a target platform, such as 'linux-x86_64'.

    A universal macOS build is compiled for two machines at once, so it gets the baseline alone.
    """
    if platform.startswith("win"):
        raise OptionError("fastadam builds with GCC or Clang on Linux and macOS, not on Windows")
    return X86_64 if platform.endswith(("-x86_64", "-amd64")) else BASELINE


def openmp_choice(environ: os._Environ[str] | dict[str, str]) -> str:
    """Return the value of FASTADAM_OPENMP, checked."""
    choice = environ.get("FASTADAM_OPENMP", "auto")
    if choice not in ("auto", "on", "off"):
        raise OptionError(f"FASTADAM_OPENMP={choice!r}: it must be auto, on or off")
    return choice


def extensions(platform: str) -> list[Extension]:
    """List the extensions for a target platform; the flags of the machine are added later."""
    sets = instruction_sets(platform)
    loops = [
        Extension(
            f"fastadam.kernels.{module}",
            [f"{KERNELS}/{module}.pyx"],
            depends=[f"{KERNELS}/_cpu.pyx", f"{KERNELS}/_table.pxd"],
            extra_compile_args=flags + NUMERICS,
        )
        for module, flags in sets.values()
    ]
    table = Extension(
        "fastadam.kernels._table",
        [f"{KERNELS}/_table.pyx"],
        depends=[f"{KERNELS}/_table.pxd"],
        include_dirs=[numpy.get_include()],
        define_macros=[("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION")],
    )
    features = Extension(
        "fastadam.kernels._cpu_features",
        [f"{KERNELS}/_cpu_features.pyx"],
        define_macros=[("FASTADAM_BUILT", f'"{" ".join(sets)}"')],
    )
    openmp = Extension("fastadam.kernels._openmp", [f"{KERNELS}/_openmp.pyx"])
    return [*loops, table, features, openmp]


class BuildModules(build_py):
    """Copies the modules, after removing those of the last build: one of them may be gone."""

    def run(self) -> None:
        """Empty the folder of everything but extensions, then fill it."""
        for path in Path(self.build_lib, "fastadam").rglob("*.py*"):
            path.unlink()
        super().run()


class BuildExtensions(build_ext):
    """Probes the compiler, adds the flags and translates the .pyx files into the build folder."""

    def finalize_options(self) -> None:
        """Compile as many files at once as there are CPUs, unless told otherwise."""
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()

    def build_extensions(self) -> None:
        """Build everything, and everything anew when the flags are not those of the last time."""
        self.refuse_fast_math()
        compile_flags, link_flags = self.openmp_flags()
        for extension in self.extensions:
            if not self.debug:  # build_ext --debug keeps them
                extension.extra_compile_args = ["-g0", *extension.extra_compile_args]
            if extension.name.rpartition(".")[2] in THREADED:
                extension.extra_compile_args = compile_flags + extension.extra_compile_args
                extension.extra_link_args = link_flags + extension.extra_link_args
        settings = Path(self.build_temp, "settings.txt")
        now = "\n".join(
            [cython_version, numpy.__version__, str(DIRECTIVES), str(self.compiler.compiler_so)]
            + [str(vars(extension)) for extension in self.extensions]
        )
        self.force = self.force or not settings.is_file() or settings.read_text() != now
        settings.unlink(missing_ok=True)
        translated = cythonize(
            self.extensions,
            build_dir=str(Path(self.build_temp, "cython")),
            compiler_directives=DIRECTIVES,
            force=self.force,
        )
        for extension, c in zip(self.extensions, translated, strict=True):
            extension.sources = c.sources
        super().build_extensions()
        settings.write_text(now)

    def refuse_fast_math(self) -> None:
        """Stop where CFLAGS or the like would change results, in this library or process-wide."""
        found = FORBIDDEN.intersection(self.compiler.compiler_so + self.compiler.linker_so)
        if found:
            raise OptionError(
                f"{' '.join(sorted(found))} would change the numbers, and flush subnormal numbers "
                "in the whole process: take it out of CC, CFLAGS and LDFLAGS"
            )

    def openmp_flags(self) -> tuple[list[str], list[str]]:
        """Return (compiler flags, linker flags) for OpenMP, by FASTADAM_OPENMP and the probes."""
        choice = openmp_choice(os.environ)
        flags = OPENMP_MACOS if get_platform().startswith("macosx") else OPENMP
        if choice == "on":
            return flags
        self.probe(PROBE_C, ([], []), NO_COMPILER, run=False)
        if choice == "off":
            return [], []
        self.probe(PROBE_OPENMP, flags, NO_OPENMP, run=True)
        return flags

    def probe(
        self, source: str, flags: tuple[list[str], list[str]], message: str, *, run: bool
    ) -> None:
        """Compile a program, link or run it, and fail with the message if that fails."""
        compiler = " ".join(self.compiler.compiler_so[:1])
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "probe.c")
            path.write_text(source)
            try:
                objects = self.compiler.compile(
                    [str(path)],
                    output_dir=folder,
                    include_dirs=self.include_dirs,
                    extra_postargs=flags[0],
                )
                if not run:
                    self.compiler.link_shared_object(objects, str(Path(folder, "probe.so")))
                    return
                self.compiler.link_executable(
                    objects, "probe", output_dir=folder, extra_postargs=flags[1]
                )
                subprocess.run([Path(folder, "probe")], check=True, timeout=60, text=True)
            except (CCompilerError, ExecError, OSError, subprocess.SubprocessError) as error:
                raise CompileError(
                    message.format(compiler=compiler, python=sys.executable, reason=error)
                ) from error


if __name__ == "__main__":
    serial = "-serial" if openmp_choice(os.environ) == "off" else ""
    setup(
        # the target platform, which cross builds name in _PYTHON_HOST_PLATFORM
        ext_modules=extensions(get_platform()),
        cmdclass={"build_ext": BuildExtensions, "build_py": BuildModules},
        # builds of one tree do not get into each other's way
        options={"build": {"build_base": f"build/{sys.implementation.cache_tag}{serial}"}},
    )
