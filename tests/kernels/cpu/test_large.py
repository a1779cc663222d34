"""More than 2**31 elements in one tensor, and tables whose elements add up to more."""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from fastadam.algorithms.adam import ADAM
from fastadam.algorithms.coefficients import step_coefficients
from fastadam.kernels.cpu import engine
from fastadam.kernels.cpu.gradient_table import CHUNK
from fastadam.kernels.reference import adam_reference, squares_reference, tree_sum
from fastadam.kernels.sums import sum_of_squares
from fastadam.kernels.table import TENSOR

pytestmark = [
    pytest.mark.serial,
    pytest.mark.huge,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="maps memory as Linux does"),
]

PAGE = 1 << 22  # elements of float32 that have memory of their own
REPEATS = 2**31 // PAGE + 1


@pytest.fixture
def endless() -> Iterator[list[np.ndarray]]:
    """Four arrays of more than 2**31 elements, each the same 16 MB mapped over and over."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    read_write, fixed = mmap.PROT_READ | mmap.PROT_WRITE, 0x10
    nbytes = PAGE * 4
    arrays, mapped = [], []
    for i in range(4):
        memory = os.memfd_create(f"fastadam-{i}")
        os.ftruncate(memory, nbytes)
        anonymous = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000  # reserve no memory
        base = libc.mmap(None, nbytes * REPEATS, 0, anonymous, -1, 0)
        mapped.append((base, nbytes * REPEATS))
        for k in range(REPEATS):
            at = libc.mmap(
                base + k * nbytes, nbytes, read_write, mmap.MAP_SHARED | fixed, memory, 0
            )
            assert at == base + k * nbytes
        os.close(memory)
        buffer = (ctypes.c_float * (PAGE * REPEATS)).from_address(base)
        arrays.append(np.frombuffer(buffer, np.float32))
    yield arrays
    del arrays, buffer
    for base, length in mapped:
        libc.munmap(base, length)


def test_one_tensor_of_more_than_two_to_the_31_elements(endless: list[np.ndarray]) -> None:
    """Every repeat of the memory is one more step on it: the last ones lie beyond 2**31."""
    p, g, m, v = endless
    assert p.size > 2**31
    random = np.random.default_rng(0)
    p[:PAGE] = random.standard_normal(PAGE)
    g[:PAGE] = random.standard_normal(PAGE)
    few = 4096  # the expectation needs only some of the elements
    expected = [array[PAGE - few : PAGE].copy() for array in (p, g, m, v)]
    hp = {"alpha": 0.01, "beta1": 0.8, "beta2": 0.9, "eps": 1e-6, "eta": 0.9}
    hp |= {"weight_decay_rate": 0.01, "amsgrad": False, "adabound": False}
    c = step_coefficients(hp, 3)
    table = np.zeros(1, TENSOR)
    table["step"] = True
    for key, array in zip("pgmv", (p, g, m, v), strict=True):
        table[key] = array.__array_interface__["data"][0]
    table["n"] = p.size
    scalars = np.array([c[: len(ADAM.scalars)]], np.float32)
    engine._kernels.adam_float32(table, scalars, 1)
    for _ in range(REPEATS):
        adam_reference(*expected, None, c)
    for mine, theirs in zip((p, g, m, v), expected, strict=True):
        np.testing.assert_array_equal(mine[PAGE - few : PAGE], theirs)
        np.testing.assert_array_equal(mine[-few:], theirs)


def test_the_norm_of_more_than_two_to_the_31_elements(endless: list[np.ndarray]) -> None:
    """The tree of the chunks of the repeated memory."""
    g = endless[0]
    g[:PAGE] = np.random.default_rng(2).standard_normal(PAGE)
    chunks = [squares_reference(g[k : k + CHUNK]) for k in range(0, PAGE, CHUNK)]
    assert sum_of_squares([g]) == [tree_sum(chunks * REPEATS)]


def test_more_than_two_to_the_31_elements_in_a_table() -> None:
    """The same megabytes in many rows: the last rows start beyond 2**31 elements."""
    n, rows = PAGE, REPEATS
    random = np.random.default_rng(1)
    p, g, m, v = (np.zeros(n, np.float32) for _ in range(4))
    last = [random.standard_normal(1000).astype(np.float32) for _ in range(3)]
    last.append(last[2] ** 2)
    expected = [array.copy() for array in last]
    hp = {"alpha": 0.01, "beta1": 0.8, "beta2": 0.9, "eps": 1e-6, "eta": 0.9}
    hp |= {"weight_decay_rate": 0.01, "amsgrad": False, "adabound": False}
    c = step_coefficients(hp, 3)
    table = np.zeros(rows + 1, TENSOR)
    table["step"] = True
    for key, array, end in zip("pgmv", (p, g, m, v), last, strict=True):
        table[key] = array.ctypes.data
        table[key][-1] = end.ctypes.data
    table["n"] = n
    table["n"][-1] = 1000
    table["start"] = np.arange(rows + 1) * n
    assert table["start"][-1] > 2**31
    # several threads share out the range; the rows that share memory all hold zeros
    engine._kernels.adam_float32(table, np.array([c[: len(ADAM.scalars)]], np.float32), 3)
    adam_reference(*expected, None, c)
    for mine, theirs in zip(last, expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert not p.any()
