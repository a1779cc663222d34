"""Compares the stub of every extension in a source tree with the installed extension.

Usage: python stubs.py PACKAGE_FOLDER [FOLDER]

Of all modules, or of those in one folder of the package. Those of fastadam.torch need PyTorch, and
are left out where it is not there.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path


def main(package: Path, folder: str) -> int:
    """Run stubtest on the module of every .pyx file."""
    modules = []
    for source in sorted((package / folder).rglob("*.pyx")):
        if not source.with_suffix(".pyi").is_file():
            raise SystemExit(f"{source} has no stub beside it: mypy would take it for Any")
        parts = source.relative_to(package.parent).with_suffix("").parts
        if parts[1] == "torch" and importlib.util.find_spec("torch") is None:
            continue
        modules.append(".".join(parts))
    return subprocess.run([sys.executable, "-m", "mypy.stubtest", *modules]).returncode


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else ""))
