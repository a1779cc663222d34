"""Compares the stub of every extension in a source tree with the installed extension.

Usage: python stubs.py PACKAGE_FOLDER
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path


def main(package: Path) -> int:
    """Run stubtest on the module of every .pyx file."""
    modules = []
    for source in sorted(package.rglob("*.pyx")):
        if not source.with_suffix(".pyi").is_file():
            raise SystemExit(f"{source} has no stub beside it: mypy would take it for Any")
        parts = source.relative_to(package.parent).with_suffix("").parts
        if "torch" in parts and importlib.util.find_spec("torch") is None:
            # looked at where PyTorch is
            continue
        modules.append(".".join(parts))
    return subprocess.run([sys.executable, "-m", "mypy.stubtest", *modules]).returncode


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
