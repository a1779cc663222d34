"""What the tests of the GPU engine share: a stand-in for CuPy, or CuPy where a GPU is."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastadam.kernels import gpu
from fastadam.kernels.cuda_source import SOURCE

sys.path.insert(0, str(Path(__file__).parent))

from cuda_on_cpu import emulator
from cuda_on_cpu.cuda import precompile
from cuda_on_cpu.cupy_stand_in import make_cupy
from instantiations import ALL_KERNELS

pytest.register_assert_rewrite("cases")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is for a GPU, unless it is asked for by its marker."""
    if "gpu" in config.getoption("-m"):
        return
    left_out = [item for item in items if item.get_closest_marker("gpu")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("gpu")]


@pytest.fixture(scope="session")
def _kernels() -> None:
    """Compile all kernels for the CPU, once."""
    if emulator.compiler() is None:
        pytest.skip("CUDA on a CPU needs a C++ compiler: apt-get install g++")
    precompile(SOURCE, ALL_KERNELS)


@pytest.fixture
def stand_in(_kernels: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Put the stand-in in the place of CuPy."""
    cupy = make_cupy()
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    gpu.forget()
    yield cupy
    gpu.forget()


@pytest.fixture(params=["stand-in", pytest.param("gpu", marks=pytest.mark.gpu)])
def cupy(request: pytest.FixtureRequest) -> Any:
    """CuPy: the stand-in, and with ``-m gpu`` the real one."""
    if request.param == "stand-in":
        return request.getfixturevalue("stand_in")
    real = pytest.importorskip("cupy", reason="this test needs CuPy")
    if not real.cuda.is_available():
        pytest.skip("this test needs a GPU")
    return real


@pytest.fixture(
    params=["numpy", "stand-in", pytest.param("gpu", marks=pytest.mark.gpu)], ids=lambda p: p
)
def xp(request: pytest.FixtureRequest) -> Any:
    """An array library: NumPy, the stand-in for CuPy, and with ``-m gpu`` CuPy itself."""
    if request.param == "numpy":
        return np
    if request.param == "stand-in":
        return request.getfixturevalue("stand_in")
    real = pytest.importorskip("cupy", reason="this test needs CuPy")
    if not real.cuda.is_available():
        pytest.skip("this test needs a GPU")
    return real
