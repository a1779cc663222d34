"""What the tests of the GPU engine share: a stand-in for CuPy, or CuPy where a GPU is."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastadam.kernels.gpu.source import SOURCE

sys.path.insert(0, str(Path(__file__).parent))

from cuda_on_cpu import emulator
from cuda_on_cpu.cuda import precompile
from instantiations import ALL_KERNELS
from place import SEEDS, cupy_is_the_stand_in

pytest.register_assert_rewrite("cases")

# The files whose tests are run with these, too, and those that are run with the first alone. Single
# kernels gain nothing by it.
LATE = {
    **dict.fromkeys(
        ["test_gpu_graphs", "test_gpu_page", "test_gpu_probes", "test_gpu_streams"], SEEDS
    ),
    **dict.fromkeys(["test_gpu_counts", "test_gpu_files", "test_gpu_hooks"], SEEDS[:1]),
    **dict.fromkeys(["test_gpu_links", "test_gpu_optimizer"], SEEDS[:1]),
}


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


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests with the stand-in, in some files with its streams running late, and on a GPU."""
    seeds = [None, *LATE.get(metafunc.module.__name__.rpartition(".")[2], ())]
    stand_ins = [pytest.param(s, id="stand-in" if s is None else f"late-{s}") for s in seeds]
    real = pytest.param("gpu", marks=pytest.mark.gpu)
    for name, places in {
        "stand_in": stand_ins,
        "cupy": [*stand_ins, real],
        "xp": ["numpy", *stand_ins, real],
    }.items():
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, places, indirect=True)


def library(place: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    """Yield an array library: NumPy, the stand-in for CuPy, and with ``-m gpu`` CuPy itself."""
    if place == "numpy":
        yield np
    elif place == "gpu":
        real = pytest.importorskip("cupy", reason="this test needs CuPy")
        if not real.cuda.is_available():
            pytest.skip("this test needs a GPU")
        yield real
    else:
        request.getfixturevalue("_kernels")
        with cupy_is_the_stand_in(place) as cupy:
            yield cupy


@pytest.fixture
def stand_in(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Put the stand-in in the place of CuPy."""
    yield from library(request.param, request)


@pytest.fixture
def cupy(request: pytest.FixtureRequest) -> Iterator[Any]:
    """CuPy: the stand-in, and with ``-m gpu`` the real one."""
    yield from library(request.param, request)


@pytest.fixture
def xp(request: pytest.FixtureRequest) -> Iterator[Any]:
    """An array library: NumPy or CuPy."""
    yield from library(request.param, request)
