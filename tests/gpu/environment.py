"""Tell, as JSON, on which GPU and with which versions all else is run; ends with 1 without a GPU.

python tests/gpu/environment.py
"""

from __future__ import annotations

import importlib
import json
import platform
import shutil
import subprocess
import sys
from importlib import metadata
from typing import Any

import fastadam
from fastadam.bench.cuda import describe

PACKAGES = ("numpy", "ml_dtypes", "torch", "pytest", "pytest-xdist", "matplotlib")
ASKED = "name,driver_version,clocks.sm,clocks.mem,clocks.max.sm,clocks.max.mem,ecc.mode.current"


def versions() -> dict[str, str]:
    """Return the versions of the packages that are installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def nvidia_smi() -> str | None:
    """Return what the driver's tool says of the GPUs; None where there is none.

    What it cannot say is no reason to run nothing: that is for CuPy to tell.
    """
    if shutil.which("nvidia-smi") is None:
        return None
    command = ["nvidia-smi", f"--query-gpu={ASKED}", "--format=csv"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20).stdout.strip()
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{type(error).__name__}: {error}"


def main() -> int:
    """Print it."""
    told: dict[str, Any] = {
        "python": platform.python_version(),
        "system": platform.platform(),
        "fastadam": fastadam.get_config(),
        "versions": versions(),
        "nvidia_smi": nvidia_smi(),
    }
    try:
        told |= describe()
        importlib.import_module("cupy").zeros(1)
    except Exception as error:
        # the driver's errors are of many kinds
        told["error"] = f"{type(error).__name__}: {error}"
    print(json.dumps(told))
    return int("error" in told)


if __name__ == "__main__":
    sys.exit(main())
