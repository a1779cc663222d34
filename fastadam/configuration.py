"""What this installation consists of and uses: the first thing to put into a bug report."""

from __future__ import annotations

import importlib.metadata
import os
import platform

import numpy as np

from fastadam._version import __version__
from fastadam.kernels.cpu import _cpu_features, _openmp, _threads, engine, threads
from fastadam.update.text_table import table

__all__ = ["get_config", "show_config"]

# The dates by which OpenMP names its versions.
_OPENMP_VERSIONS = {
    200505: "2.5",
    200805: "3.0",
    201107: "3.1",
    201307: "4.0",
    201511: "4.5",
    201811: "5.0",
    202011: "5.1",
    202111: "5.2",
    202411: "6.0",
}

# CuPy is one module with a distribution per CUDA version.
_CUPY = ("cupy-cuda13x", "cupy-cuda12x", "cupy-cuda11x", "cupy")


def get_config() -> dict[str, object]:
    """Return versions, compiler, instruction sets, threads and settings, ready for JSON.

    Returns
    -------
    dict of str to object
        Strings, numbers, None, lists, and dictionaries of these. ``instruction_set`` and
        ``threads`` are dictionaries, and so is ``environment``: the variables ``FASTADAM_*``.

    Examples
    --------
    >>> import fastadam
    >>> fastadam.get_config()['threads']['in_use'] >= 1
    True
    """
    return {
        "fastadam": __version__,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "numpy": np.__version__,
        "platform": platform.platform(),
        "machine": _cpu_features.machine(),
        "compiler": _openmp.compiler(),
        "openmp": _openmp_version(),
        "instruction_set": {
            "in_use": engine.instruction_set(),
            "built": list(engine.built_instruction_sets()),
            "supported": list(_cpu_features.supported()),
        },
        "threads": {
            "in_use": threads.get_num_threads(),
            "openmp_max": _openmp.max_threads(),
            "cgroup_quota": _threads.quota(),
            "set_by_hand": threads.set_by_hand(),
        },
        "gpu": _cupy_version(),
        "environment": {
            name: value
            for name, value in sorted(os.environ.items())
            if name.startswith("FASTADAM_")
        },
    }


def show_config() -> None:
    """Print `get_config` as aligned text.

    Examples
    --------
    >>> import fastadam
    >>> fastadam.show_config()  # doctest: +ELLIPSIS
    fastadam:                   ...
    python:                     ...
    """
    for line in _lines(get_config()):
        print(line)


def _lines(config: dict[str, object]) -> list[str]:
    """Turn the configuration into lines of one column of names and one of values."""
    rows: list[tuple[str, str]] = []
    for key, value in config.items():
        name = key.replace("_", " ")
        if key == "environment":
            settings = value if isinstance(value, dict) else {}
            rows.extend((variable, str(setting)) for variable, setting in settings.items())
        elif isinstance(value, dict):
            rows.extend(
                (f"{name}, {part.replace('_', ' ')}", _text(entry)) for part, entry in value.items()
            )
        else:
            rows.append((name, _text(value)))
    return table([(f"{name}:", text) for name, text in rows], "ll")


def _text(value: object) -> str:
    """Spell one value: a list without brackets, None as 'none'."""
    if value is None:
        return "none"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _openmp_version() -> str:
    """Name the OpenMP version of the build."""
    date = _openmp.version()
    if date == 0:
        return "not built"
    return f"{_OPENMP_VERSIONS.get(date, 'unknown version')} ({date})"


def _cupy_version() -> str:
    """Name the installed CuPy without importing it."""
    for distribution in _CUPY:
        try:
            return f"cupy {importlib.metadata.version(distribution)}"
        except importlib.metadata.PackageNotFoundError:
            continue
    return "cupy not installed"
