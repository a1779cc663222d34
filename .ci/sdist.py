"""Checks what an sdist holds, and unpacks it.

Usage: python sdist.py FOLDER_WITH_SDISTS TARGET_FOLDER
"""

from __future__ import annotations

import shutil
import sys
import tarfile
from pathlib import Path

REQUIRED = (
    "LICENSE",
    "README.md",
    "fastadam/kernels/_copies.pxi",
    "fastadam/kernels/_effect.pxi",
    "fastadam/kernels/cpu/_step.pyx",
    "fastadam/kernels/cpu/_step_avx2.pyx",
    "fastadam/kernels/cpu/_step_avx512.pyx",
    "fastadam/kernels/cpu/_cpu_features.pyi",
    "fastadam/kernels/cpu/_cut.pxi",
    "fastadam/kernels/cpu/_floor.pyx",
    "fastadam/kernels/cpu/_half.pxi",
    "fastadam/kernels/cpu/_mode.pxi",
    "fastadam/kernels/cpu/_norm.pxi",
    "fastadam/kernels/cpu/_ops.pxi",
    "fastadam/kernels/cpu/_openmp.pyx",
    "fastadam/kernels/cpu/_tensors.pxd",
    "fastadam/py.typed",
    "pyproject.toml",
    "setup.py",
    "tests/conftest.py",
    "tests/golden/787acc2/expected.json",
    "tests/golden/787acc2/ways.save.h5",
    "tests/golden/787acc2/ways.save.npz",
    "tests/golden/chainer-7.8.1/adam.optimizer.npz",
    "tox.ini",
)


def main(folder: Path, target: Path) -> None:
    """Unpack the newest sdist of a folder into a new folder, if its contents are right."""
    sdist = max(folder.glob("fastadam-*.tar.gz"), key=lambda path: path.stat().st_mtime)
    shutil.rmtree(target, ignore_errors=True)
    with tarfile.open(sdist) as archive:
        # every name begins with the folder fastadam-VERSION/
        names = [name.partition("/")[2] for name in archive.getnames()]
        missing = [name for name in REQUIRED if name not in names]
        generated = [name for name in names if name.endswith((".c", ".cpp", ".so", ".o", ".pyc"))]
        if missing or generated:
            raise SystemExit(f"{sdist.name} lacks {missing} and should not hold {generated}")
        # Python before 3.11.4 has no filters
        archive.extraction_filter = getattr(tarfile, "data_filter", lambda member, _path: member)
        archive.extractall(target.parent)
    target.parent.joinpath(sdist.name.removesuffix(".tar.gz")).rename(target)
    print(f"{sdist.name}: {len(names)} entries, .pyx and no .c; unpacked to {target}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
