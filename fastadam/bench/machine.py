"""On what a benchmark was made: the CPU, its caches, the system and the versions."""

from __future__ import annotations

import datetime
import os
import platform
import re
from pathlib import Path
from typing import Any

from fastadam.configuration import get_config

__all__ = ["cache_bytes", "cpu_model", "cpus", "describe", "found", "line", "others_seconds"]

_CPU0 = Path("/sys/devices/system/cpu/cpu0/cache")
_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def found(path: Path, pattern: str) -> str | None:
    """Return what a pattern's group has in a file of the system; None if it has nothing there."""
    try:
        match = re.search(pattern, path.read_text(), re.M)
    except OSError:
        return None
    return match[1] if match else None


def cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return the CPU's name, 'unknown CPU' where the system does not say."""
    name = found(cpuinfo, r"^model name\s*:\s*(.+)$") or platform.processor()
    return name.strip() or "unknown CPU"


def cpus() -> int:
    """Return how many CPUs this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cache_bytes(folder: Path = _CPU0) -> dict[str, int]:
    """Return the sizes of the first CPU's data caches by name, without those that are unknown.

    Such as ``{'L1': 49152, 'L2': 1048576, 'L3': 33554432}``; the folder is where Linux tells.
    """
    sizes = {}
    for entry in sorted(folder.glob("index*")):
        try:
            kind = (entry / "type").read_text().strip()
            level = int((entry / "level").read_text())
            size = re.fullmatch(r"(\d+)([KMG]?)", (entry / "size").read_text().strip())
        except (OSError, ValueError):
            continue
        if kind != "Instruction" and size:
            sizes[f"L{level}"] = int(size[1]) * _UNITS[size[2]]
    return sizes


def others_seconds(stat: Path = Path("/proc/stat")) -> float | None:
    """Return how many seconds of CPU everybody but this process has taken; None if unknown."""
    try:
        user, nice, system, _, _, *interrupts = map(int, stat.read_text().split(maxsplit=9)[1:9])
    except (OSError, ValueError):
        return None
    everybody = (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")
    own = os.times()
    return everybody - own.user - own.system


def describe(versions: dict[str, str]) -> dict[str, Any]:
    """Return everything that numbers depend on, ready for JSON; versions are by contender."""
    return {
        "cpu": cpu_model(),
        "cpus": cpus(),
        "caches": cache_bytes(),
        "load_average": os.getloadavg()[0],
        "transparent_huge_pages": found(_HUGE_PAGES, r"\[(\w+)\]"),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "versions": versions,
        "config": get_config(),
    }


def line(made_on: dict[str, Any], threads: list[int]) -> str:
    """Spell in a line what `describe` has returned, and numbers of threads."""
    config = made_on["config"]
    versions = dict.fromkeys(made_on["versions"].values())
    parts = (
        made_on["cpu"],
        f"{made_on['cpus']} CPUs",
        f"threads: {', '.join(map(str, threads))}",
        f"instruction set {config['instruction_set']['in_use']}",
        f"fastadam {config['fastadam']}",
        config["python"],
        f"numpy {config['numpy']}",
        *versions,
        made_on["date"],
    )
    return ", ".join(parts)
