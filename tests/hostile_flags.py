"""Builds fastadam with flags that change numbers, and runs the self-test: the digests must be same.

    python tests/hostile_flags.py [--compiler clang-14] [FLAGS ...]

It needs what a build needs, and takes a minute or two for each build; ``tox -e flags`` runs it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1]

# Each changes numbers by itself, with one compiler or with both.
FLAGS = (
    "-ffinite-math-only",
    "-fno-signed-zeros",
    "-freciprocal-math",
    "-ffp-contract=fast",
    "-ffp-model=fast",
    "-fno-honor-nans",
    "-fno-honor-infinities",
    "-fapprox-func",
    "-mfpmath=387",
    "-mfpmath=both",
    "-mrecip",
    "-fsingle-precision-constant",
    "-fdenormal-fp-math=positive-zero",
)
TOGETHER = (
    "-ffinite-math-only -fno-signed-zeros -freciprocal-math -ffp-contract=fast -march=native -O1",
)


def build(compiler: str, flags: str, folder: Path) -> str:
    """Build a copy of the source tree in a folder; return what the compiler says of a flag."""
    ignored = shutil.ignore_patterns("*.so", "__pycache__")
    shutil.copytree(SOURCE / "fastadam", folder / "fastadam", ignore=ignored)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(SOURCE / name, folder)
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace"],
        cwd=folder,
        env=os.environ | {"CC": compiler, "CFLAGS": flags},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"{compiler} {flags}: the build failed\n{done.stderr}")
    return done.stderr


def selftest(folder: Path) -> bool:
    """Run the self-test of every instruction set; tell whether it passed."""
    command = [sys.executable, "-m", "fastadam", "selftest", "--isa", "all"]
    done = subprocess.run(
        command, cwd=folder, env=os.environ | {"PYTHONPATH": str(folder)}, check=False
    )
    return done.returncode == 0


def takes(compiler: str, flags: str) -> bool:
    """Whether a compiler knows the flags on this machine."""
    command = [compiler, *flags.split(), "-x", "c", "-", "-c", "-o", os.devnull]
    return subprocess.run(command, input=b"int x;", capture_output=True).returncode == 0


def main() -> None:
    """Build and test with each of the flags; exit with 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--compiler", default="cc")
    parser.add_argument("flags", nargs="*", help="one argument for each build")
    arguments = parser.parse_args()
    failed = []
    for flags in arguments.flags or (*FLAGS, *TOGETHER):
        if not takes(arguments.compiler, flags):
            print(f"{flags}: {arguments.compiler} does not know it here", flush=True)
            continue
        print(f"{flags}:", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            build(arguments.compiler, flags, Path(folder))
            if not selftest(Path(folder)):
                failed.append(flags)
    print(f"different: {failed}" if failed else "all flags give the published digests")
    raise SystemExit(bool(failed))


if __name__ == "__main__":
    main()
