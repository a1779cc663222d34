"""What the build and the CPU are said to have, against the operating system's own list."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from fastadam.kernels.cpu import _cpu_features

CPUINFO = Path("/proc/cpuinfo")

# The features that the flags in setup.py stand for, as Linux names them.
NEEDED = {
    "avx2": {"avx2", "fma", "f16c"},
    "avx512": {"avx2", "fma", "f16c", "avx512f", "avx512dq", "avx512bw", "avx512vl"},
}


def test_the_baseline_is_always_there_and_first():
    assert _cpu_features.supported()[0] == "baseline"
    assert _cpu_features.built()[0] == "baseline"


def test_the_machine_is_the_one_that_runs_this():
    aliases = {"arm64": "aarch64"}
    assert _cpu_features.machine() == aliases.get(platform.machine(), platform.machine())


@pytest.mark.skipif(
    not CPUINFO.exists() or _cpu_features.machine() != "x86_64", reason="needs Linux on x86-64"
)
@pytest.mark.parametrize("name", ["avx2", "avx512"])
def test_it_agrees_with_linux(name):
    line = next(line for line in CPUINFO.read_text().splitlines() if line.startswith("flags"))
    assert (name in _cpu_features.supported()) == (NEEDED[name] <= set(line.split()))


@pytest.mark.skipif(
    not CPUINFO.exists() or _cpu_features.machine() != "x86_64", reason="needs Linux on x86-64"
)
def test_avx512_at_full_speed_agrees_with_linux():
    line = next(line for line in CPUINFO.read_text().splitlines() if line.startswith("flags"))
    needed = NEEDED["avx512"] | {"avx512_vbmi2"}
    assert _cpu_features.avx512_at_full_speed() == (needed <= set(line.split()))
