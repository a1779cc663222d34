"""On what a benchmark was made: the CPU, its caches, the system and the versions."""

from __future__ import annotations

import datetime
import os
import platform
import re
from pathlib import Path
from typing import Any

from fastadam.configuration import get_config

__all__ = ["cache_bytes", "cpu_model", "cpus", "describe", "line", "others_seconds"]

_CPU0 = Path("/sys/devices/system/cpu/cpu0/cache")
_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return the CPU's name, 'unknown CPU' where the system does not say."""
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.M)
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or "unknown CPU"


def cpus() -> int:
    """Return how many CPUs this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cache_bytes(folder: Path = _CPU0) -> dict[str, int]:
    """Return the sizes of the first CPU's data caches by name, without those that are unknown.

    Parameters
    ----------
    folder : pathlib.Path
        Where Linux tells of them.

    Returns
    -------
    dict of str to int
        Such as ``{'L1': 49152, 'L2': 1048576, 'L3': 33554432}``.
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
    """Return everything about machine and software that numbers depend on, ready for JSON.

    Parameters
    ----------
    versions : dict of str to str
        Of the libraries beside fastadam, by contender.
    """
    try:
        huge_pages = re.search(r"\[(\w+)\]", _HUGE_PAGES.read_text())
    except OSError:
        huge_pages = None
    return {
        "cpu": cpu_model(),
        "cpus": cpus(),
        "caches": cache_bytes(),
        "load_average": os.getloadavg()[0],
        "transparent_huge_pages": huge_pages[1] if huge_pages else None,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "versions": versions,
        "config": get_config(),
    }


def line(made_on: dict[str, Any], threads: list[int]) -> str:
    """Spell in a line on what a benchmark was made.

    Parameters
    ----------
    made_on : dict
        As `describe` returns it.
    threads : list of int
        With which numbers of threads it was run.
    """
    config = made_on["config"]
    versions = dict.fromkeys(made_on["versions"].values())
    on_gpu = made_on.get("gpu")
    parts = (
        *([f"{on_gpu}, driver {made_on['driver']}, cupy {made_on['cupy']}"] if on_gpu else []),
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
