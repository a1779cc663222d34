"""Builds the extensions with sanitizers, or with Cython's own checks, and runs the tests with them.

Usage: python sanitize.py asan|bounds ARGUMENTS_OF_PYTEST...

With ``asan``, AddressSanitizer and UBSan watch everything that the extensions read and write;
before the tests an overflow is seeded, which must be found. With ``bounds``, every index that
Cython knows the bounds of is checked, and C's assertions are on.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SANITIZERS = "-fsanitize=address,undefined -fno-sanitize-recover=undefined -g"
LOOPS = "fastadam/kernels/cpu/_step.pyx"
# The last element of a range is where a loop ends: one more is beyond the array.
SEEDED = ("for i in range(n):", "for i in range(n + 1):")
STEP = """
import numpy as np
from fastadam import adam_step
p, g, m, v = (np.zeros(1024, np.float32) for _ in range(4))
adam_step(p, g, m, v, t=1)
print('nothing was found')
"""


def copied(folder: Path) -> Path:
    """Copy the checkout, without what was built."""
    ignored = shutil.ignore_patterns(".git", ".tox", "build", "*.so", "__pycache__", "*.egg-info")
    return Path(shutil.copytree(ROOT, folder / "fastadam", ignore=ignored))


def build(tree: Path, kind: str) -> None:
    """Build in place."""
    env = dict(os.environ)
    if kind == "asan":
        # the build's probe for OpenMP is linked without LDFLAGS
        env |= {"CFLAGS": SANITIZERS, "LDFLAGS": SANITIZERS, "FASTADAM_OPENMP": "on"}
    else:
        env |= {"FASTADAM_CHECKS": "on", "CFLAGS": "-O1 -g -UNDEBUG"}
    argv = [sys.executable, "setup.py", "-q", "build_ext", "--inplace", "--force"]
    subprocess.run(argv, cwd=tree, env=env, check=True)


def environment(tree: Path, kind: str) -> dict[str, str]:
    """Return the environment in which the built extensions are used."""
    env = os.environ | {
        "PYTHONPATH": str(tree),
        "FASTADAM_TEST_INSTALLED": "0",
        "FASTADAM_TEST_INSTRUMENTED": "1",
    }
    if kind == "asan":
        # C++'s library, too: AddressSanitizer looks for it once, at the start, and other packages
        # that the tests use throw exceptions
        preloaded = [
            subprocess.run(
                ["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True
            ).stdout.strip()
            for name in ("libasan.so", "libstdc++.so.6")
        ]
        env |= {
            "LD_PRELOAD": " ".join(preloaded),
            # Python itself leaks what it keeps until the end; reports go into files, since pytest
            # captures what is printed
            "ASAN_OPTIONS": f"detect_leaks=0:allocator_may_return_null=1:log_path={tree}/found",
            "UBSAN_OPTIONS": f"halt_on_error=1:print_stacktrace=1:log_path={tree}/found",
            "PYTHONMALLOC": "malloc",
        }
    return env


def seeded_overflow_is_found(tree: Path) -> bool:
    """Break a loop, and tell whether the sanitizer says so."""
    source = tree / LOOPS
    whole = source.read_text()
    assert SEEDED[0] in whole
    source.write_text(whole.replace(*SEEDED))
    build(tree, "asan")
    subprocess.run([sys.executable, "-c", STEP], env=environment(tree, "asan"), cwd=tree)
    source.write_text(whole)
    reports = list(tree.glob("found.*"))
    found = any("heap-buffer-overflow" in report.read_text() for report in reports)
    for report in reports:
        report.unlink()
    return found


def main(kind: str, arguments: list[str]) -> int:
    """Build, and run the tests; return 1 if anything was found, or the seeded overflow was not."""
    with tempfile.TemporaryDirectory() as name:
        tree = copied(Path(name))
        if kind == "asan":
            if not seeded_overflow_is_found(tree):
                print("the seeded overflow was not found")
                return 1
            print("the seeded overflow was found", flush=True)
        build(tree, kind)
        argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
        code = subprocess.run(argv, cwd=tree, env=environment(tree, kind)).returncode
        found = sorted(tree.glob("found.*"))
        for report in found:
            print(report.read_text())
        return 1 if found else code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
