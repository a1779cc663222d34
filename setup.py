"""Builds the extensions of fastadam; everything else about the package is in pyproject.toml.

What is built depends on the machine that will run it (the target platform), never on the machine
that builds. ``FASTADAM_OPENMP`` says what to do about OpenMP: ``auto`` (the default) compiles and
runs a small program, and where that fails the build fails, with what to install; ``on`` uses the
flags and tries nothing, as a cross build needs; ``off`` builds kernels for one thread.
``FASTADAM_CHECKS=on`` makes a slow build that finds mistakes, for tests.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from sysconfig import get_platform

try:
    import numpy
    from Cython import __version__ as cython_version
    from Cython.Build import cythonize
except ModuleNotFoundError as error:
    # pip brings what pyproject.toml asks for, unless it is told not to
    raise SystemExit(
        f"fastadam is built with Cython and NumPy, and {error.name} is not installed here. Leave "
        "--no-build-isolation out, so that pip brings them, or install them first: "
        'pip install "setuptools>=77" "Cython>=3.1" "numpy>=2.0"'
    ) from None
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py
from setuptools.errors import CCompilerError, CompileError, ExecError, OptionError

KERNELS = "fastadam/kernels"

# Module: what its source includes. A change there compiles it anew.
LOOPS = (
    "cpu/_step.pyx",
    "cpu/_cut.pxi",
    "cpu/_half.pxi",
    "cpu/_mode.pxi",
    "cpu/_norm.pxi",
    "cpu/_ops.pxi",
    "cpu/_walk.pxi",
    "cpu/_tensors.pxd",
)
STEPS = ("cpu/_tensors.pxd", "cpu/_steps.pxd", "_source.pxd")
ROWS = (*STEPS, "cpu/_written.pxd", "cpu/_rows.pxd")
READING = ("cpu/_tensors.pxd", "../torch/_reading.pxd", "../torch/_views.pxd")
INCLUDED = {
    "cpu._step": LOOPS,
    "cpu._step_avx2": LOOPS,
    "cpu._step_avx512": LOOPS,
    "cpu._floor": ("cpu/_cut.pxi", "cpu/_tensors.pxd"),
    "cpu._tensors": ("cpu/_tensors.pxd", "cpu/_layout.pxd"),
    "cpu._layout": ("cpu/_tensors.pxd", "cpu/_layout.pxd"),
    "cpu._written": ("cpu/_written.pxd",),
    "cpu._steps": STEPS,
    "cpu._walks": ("cpu/_tensors.pxd", "cpu/_walks.pxd"),
    "cpu._rows": ("cpu/_layout.pxd", "cpu/_walks.pxd", *ROWS),
    "cpu._door": ROWS,
    "cpu._single": ("cpu/_tensors.pxd", "cpu/_layout.pxd"),
    "_source": ("cpu/_tensors.pxd", "_source.pxd"),
    "gpu._tensors": ("cpu/_tensors.pxd", "_source.pxd"),
    "update._rule_source": ("cpu/_tensors.pxd", "_source.pxd"),
    "torch._reading": READING,
    "torch._tensors": (
        *READING,
        "_source.pxd",
        "../torch/_unchanged.pxi",
        "../torch/_fetching.pxi",
        "../torch/_rows_on_gpu.pxi",
    ),
    "_commit": ("_copies.pxi", "_effect.pxi"),
}

# Extensions that read NumPy's arrays.
OF_ARRAYS = (
    *("cpu._tensors", "cpu._layout", "cpu._written", "cpu._steps", "cpu._rows", "cpu._door"),
    *("cpu._single", "cpu._walks"),
    *("_commit", "model._gradients", "update._tree"),
    *("torch._reading", "torch._tensors"),
)
# Folders beside the kernels that have extensions.
OTHERS = ("algorithms.", "model.", "torch.", "update.")

# Instruction set: the module that holds its loops, and the flags that compile them. Whoever adds
# a flag adds the feature to supported() in _cpu_features.pyx.
FMA = ["-mfma", "-mf16c"]
AVX512 = ["-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mprefer-vector-width=512"]
BASELINE = {"baseline": ("cpu._step", [])}
X86_64 = BASELINE | {
    "avx2": ("cpu._step_avx2", ["-mavx2", *FMA]),
    "avx512": ("cpu._step_avx512", [*AVX512, *FMA]),
}

# Appended last, so that nothing before them changes the numbers: every instruction set and every
# compiler gives the same bits only without contraction. Those of TAKE_BACK stand in front of them
# and undo what CFLAGS may hold, such as -ffinite-math-only or clang's -ffp-model=fast. -ffast-math
# cannot be taken back: whoever links with it flushes subnormal numbers in the whole process.
TAKE_BACK = [
    "-fno-fast-math",
    "-fno-unsafe-math-optimizations",
    "-fno-finite-math-only",
    "-fno-associative-math",
    "-fno-reciprocal-math",
    "-fsigned-zeros",
]
# Clang warns that -fno-trapping-math overrides a part of this one; its other parts are above.
WARNED_OF_BY_CLANG = "-fno-unsafe-math-optimizations"
TAKE_BACK_X86_64 = ["-mfpmath=sse"]
NUMERICS = ["-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off"]
FORBIDDEN = {
    "-ffast-math",
    "-Ofast",
    "-funsafe-math-optimizations",
    "-fassociative-math",
    "-mdaz-ftz",
}

# What the name of a platform ends in, or has after its version, where the source knows how to flush
# subnormal numbers.
MACHINES = ("x86_64", "amd64", "aarch64", "arm64", "universal2")

# How OpenMP is spelled: (compiler flags, linker flags). Apple's clang takes it as an add-on.
OPENMP = ["-fopenmp"], ["-fopenmp"]
OPENMP_MACOS = ["-Xpreprocessor", "-fopenmp"], ["-lomp"]
THREADED = {f"cpu.{name}" for name in ("_step", "_step_avx2", "_step_avx512", "_floor", "_openmp")}

NUMPY_MACROS = [("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION")]

# They hold for the included _step.pyx too, where directives in a comment would not.
DIRECTIVES = {
    "language_level": 3,
    "boundscheck": False,
    "wraparound": False,
    "cdivision": True,
    "initializedcheck": False,
}

# For a build that finds mistakes: what Cython can check, it does.
CHECKS = {"boundscheck": True, "initializedcheck": True, "nonecheck": True}

PROBE_C = "#include <Python.h>\nint main(void) { return 0; }\n"
PROBE_OPENMP = """#include <omp.h>
int main(void) {
    int threads = 0;
    #pragma omp parallel num_threads(2) reduction(+:threads)
    threads += 1;
    return threads < 1 || omp_get_max_threads() < 1;
}
"""
NO_COMPILER = """no C program could be compiled and linked with {compiler} for {python}: {reason}
fastadam's kernels need GCC or Clang and Python's headers:
    Debian, Ubuntu:  apt-get install gcc python3-dev
    Fedora, RHEL:    dnf install gcc python3-devel
    macOS:           xcode-select --install"""
NO_OPENMP = """no OpenMP program could be compiled and run with {compiler}: {reason}
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
    if not any(machine in platform for machine in MACHINES):
        raise OptionError(
            "fastadam is for x86-64 and 64-bit Arm, on which it knows how to flush subnormal "
            f"numbers; the target is {platform}"
        )
    return X86_64 if platform.endswith(("-x86_64", "-amd64")) else BASELINE


def directives() -> dict[str, object]:
    """Return Cython's directives, with its checks if FASTADAM_CHECKS asks for them."""
    return DIRECTIVES | (CHECKS if os.environ.get("FASTADAM_CHECKS") == "on" else {})


def openmp_choice(environ: Mapping[str, str]) -> str:
    """Return the value of FASTADAM_OPENMP, checked."""
    choice = environ.get("FASTADAM_OPENMP", "auto")
    if choice not in ("auto", "on", "off"):
        raise OptionError(f"FASTADAM_OPENMP={choice!r}: it must be auto, on or off")
    return choice


def full_name(module: str) -> str:
    """Return the name of an extension; those of the kernels are written without their folder."""
    return f"fastadam.{module}" if module.startswith(OTHERS) else f"fastadam.kernels.{module}"


def extensions(platform: str) -> list[Extension]:
    """List the extensions for a target platform, the slowest to compile first."""
    sets = instruction_sets(platform)
    take_back = [*TAKE_BACK, *(TAKE_BACK_X86_64 if sets is X86_64 else [])]
    flags = {module: [*options, *take_back, *NUMERICS] for module, options in sets.values()}
    for module in ("cpu._floor", "algorithms._coefficients"):
        flags[module] = [*take_back, *NUMERICS]
    include = {module: [numpy.get_include()] for module in OF_ARRAYS}
    macros = {
        **dict.fromkeys(OF_ARRAYS, NUMPY_MACROS),
        "cpu._cpu_features": [("FASTADAM_BUILT", f'"{" ".join(sets)}"')],
    }
    return [
        Extension(
            full_name(module),
            [f"{full_name(module).replace('.', '/')}.pyx"],
            depends=[os.path.normpath(f"{KERNELS}/{name}") for name in INCLUDED.get(module, ())],
            extra_compile_args=list(flags.get(module, take_back)),
            include_dirs=include.get(module, []),
            define_macros=macros.get(module, []),
        )
        for module in (
            *(*flags, *OF_ARRAYS, "_noted", "_pages", "_source", "gpu._tensors"),
            *(
                "update._rule_source",
                "update._scalars",
                "torch._items",
                "cpu._cpu_features",
                "cpu._openmp",
            ),
            *("cpu._threads", "cpu._late_steps"),
        )
    ]


class BuildModules(build_py):
    """Copies the modules, after removing those of the last build: one of them may be gone."""

    def run(self) -> None:
        """Empty the folder of everything but extensions, then fill it."""
        for path in Path(self.build_lib, "fastadam").rglob("*.py*"):
            path.unlink()
        super().run()


class BuildExtensions(build_ext):
    """Probes the compiler, adds its flags and translates the .pyx files into the build folder."""

    def finalize_options(self) -> None:
        """Compile as many files at once as there are CPUs, unless told otherwise."""
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()

    def build_extensions(self) -> None:
        """Build everything, and everything anew when the settings are not those of last time."""
        compile_flags, link_flags = self.openmp_flags()
        clang = self.is_clang()
        for extension in self.extensions:
            if clang:
                extension.extra_compile_args.remove(WARNED_OF_BY_CLANG)
            if not self.debug:  # build_ext --debug keeps them
                extension.extra_compile_args.insert(0, "-g0")
            if extension.name.removeprefix("fastadam.kernels.") in THREADED:
                extension.extra_compile_args[:0] = compile_flags
                extension.extra_link_args[:0] = link_flags
        now = [cython_version, numpy.__version__, directives(), self.compiler.compiler_so]
        text = "\n".join(map(str, now + [vars(extension) for extension in self.extensions]))
        settings = Path(self.build_temp, "settings.txt")
        self.force = self.force or not settings.is_file() or settings.read_text() != text
        settings.unlink(missing_ok=True)
        translated = cythonize(
            self.extensions,
            build_dir=str(Path(self.build_temp, "cython")),
            compiler_directives=directives(),
            force=self.force,
            nthreads=self.parallel,
        )
        for extension, c in zip(self.extensions, translated, strict=True):
            extension.sources = c.sources
        self.remove_old()
        super().build_extensions()
        settings.write_text(text)

    def remove_old(self) -> None:
        """Remove the extensions of the last build, for this Python, that this one does not make."""
        made = {self.get_ext_fullpath(extension.name) for extension in self.extensions}
        first = Path(self.get_ext_fullpath("fastadam.extension"))
        for path in first.parent.rglob(first.name.replace("extension", "*", 1)):
            if str(path) not in made:
                path.unlink()

    def is_clang(self) -> bool:
        """Tell whether the compiler is clang, whatever its name."""
        command = [*self.compiler.compiler_so, "--version"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        except (OSError, subprocess.SubprocessError):
            return False
        return "clang" in done.stdout

    def openmp_flags(self) -> tuple[list[str], list[str]]:
        """Return (compiler flags, linker flags) for OpenMP, by FASTADAM_OPENMP and the probes."""
        found = FORBIDDEN.intersection(self.compiler.compiler_so + self.compiler.linker_so)
        if found:
            raise OptionError(
                f"{' '.join(sorted(found))} would change the numbers, and flush subnormal numbers "
                "in the whole process: take it out of CC, CFLAGS and LDFLAGS"
            )
        choice = openmp_choice(os.environ)
        flags = OPENMP_MACOS if get_platform().startswith("macosx") else OPENMP
        if choice == "on":
            return flags
        self.probe(PROBE_C, ([], []), NO_COMPILER)
        if choice == "off":
            return [], []
        self.probe(PROBE_OPENMP, flags, NO_OPENMP)
        return flags

    def probe(self, source: str, flags: tuple[list[str], list[str]], message: str) -> None:
        """Compile a program and link it as an extension, or run one that uses OpenMP, or fail."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "probe.c")
            path.write_text(source)
            try:
                objects = self.compiler.compile(
                    [str(path)], folder, include_dirs=self.include_dirs, extra_postargs=flags[0]
                )
                if source == PROBE_C:
                    self.compiler.link_shared_object(objects, str(Path(folder, "probe.so")))
                    return
                self.compiler.link_executable(objects, "probe", folder, extra_postargs=flags[1])
                subprocess.run([Path(folder, "probe")], check=True, timeout=60)
            except (CCompilerError, ExecError, OSError, subprocess.SubprocessError) as error:
                compiler = self.compiler.compiler_so[0]
                raise CompileError(
                    message.format(compiler=compiler, python=sys.executable, reason=error)
                ) from error


if __name__ == "__main__":
    serial = "-serial" if openmp_choice(os.environ) == "off" else ""
    flags = os.environ.get("CFLAGS", "")
    flags = f"-{zlib.crc32(flags.encode()):08x}" if flags else ""
    setup(
        # the target platform, which cross builds name in _PYTHON_HOST_PLATFORM
        ext_modules=extensions(get_platform()),
        cmdclass={"build_ext": BuildExtensions, "build_py": BuildModules},
        # builds of one tree do not get into each other's way
        options={"build": {"build_base": f"build/{sys.implementation.cache_tag}{serial}{flags}"}},
    )
