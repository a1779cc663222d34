"""The memory floor passes over every array, once, and writes what it says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastadam
from fastadam.bench import arrays
from fastadam.bench.cases import Case, Tensor, mixed
from fastadam.bench.floor import Floor, bytes_moved
from fastadam.bench.peers import Roster
from fastadam.bench.ratios import compare
from fastadam.bench.settings import VARIANTS
from fastadam.bench.timing import Plan
from fastadam.cli.arguments import restored_threads
from fastadam.kernels.cpu import _floor
from fastadam.kernels.table import TENSOR

SIZES = (1, 2, 3, 4, 7, 15, 16, 17, 31, 33, 1000, 40_001)


def case_of(dtype: str) -> Case:
    """Tensors of odd sizes, enough of them for threads."""
    return Case("sizes", tuple(Tensor(f"p{n}", (n,), dtype) for n in SIZES))


def bits(array: Any) -> Any:
    """The elements as unsigned integers of the same width."""
    return array.view(f"uint{8 * array.itemsize}")


@pytest.mark.parametrize("n_threads", [1, 2, 5])
@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "bfloat16"])
def test_every_stream_is_written_once(dtype: str, amsgrad: bool, n_threads: int) -> None:
    if dtype == "bfloat16":
        pytest.importorskip("ml_dtypes", reason="needs ml_dtypes")
    case = case_of(dtype)
    grads = arrays.gradients(case, None)
    floor = Floor(case, None, VARIANTS["amsgrad" if amsgrad else "adam"], grads)
    before = [[array.copy() for array in tensor] for tensor in floor.arrays]
    assert all(len(tensor) == (5 if amsgrad else 4) for tensor in floor.arrays)
    fastadam.set_num_threads(n_threads)
    try:
        floor.step()
    finally:
        fastadam.set_num_threads(None)
    for old, new in zip(before, floor.arrays, strict=True):
        g = bits(old[1])
        np.testing.assert_array_equal(bits(new[1]), g)
        for i in (0, *range(2, len(old))):
            np.testing.assert_array_equal(bits(new[i]), bits(old[i]) ^ g)
    floor.step()  # the same bits twice: everything is as it was
    for old, new in zip(before, floor.arrays, strict=True):
        for one, other in zip(old, new, strict=True):
            np.testing.assert_array_equal(bits(one), bits(other))


@pytest.mark.parametrize(("p_type", "g_type"), [(0, 1), (1, 0)])
def test_gradients_of_another_width(p_type: int, g_type: int) -> None:
    kinds = (np.uint32, np.uint16)
    p, g = np.arange(5, dtype=kinds[p_type]), np.arange(1, 6, dtype=kinds[g_type])
    m, v = np.full(5, 7, np.uint32), np.full(5, 1 << 20, np.uint32)
    table = np.zeros(1, TENSOR)
    for key, array in zip("pgmv", (p, g, m, v), strict=True):
        table[key] = array.ctypes.data
    table["n"], table["p_type"], table["g_type"] = 5, p_type, g_type
    _floor.floor_float32(table, 1)
    assert p.tolist() == [i ^ (i + 1) for i in range(5)]
    assert m.tolist() == [7 ^ (i + 1) for i in range(5)]
    assert v.tolist() == [(1 << 20) ^ (i + 1) for i in range(5)]


def test_several_dtypes_in_one_case() -> None:
    case = Case("both", (Tensor("a", (5,), "float64"), Tensor("b", (4,), "float32")))
    floor = Floor(case, None, VARIANTS["adam"], arrays.gradients(case, None))
    before = [tensor[2].copy() for tensor in floor.arrays]
    floor.step()
    for old, tensor in zip(before, floor.arrays, strict=True):
        np.testing.assert_array_equal(bits(tensor[2]), bits(old) ^ bits(tensor[1]))


def test_an_empty_table_is_nothing() -> None:
    _floor.floor_float32(np.empty(0, TENSOR), 2)
    _floor.floor_float64(np.empty(0, TENSOR), 2)


def test_bytes_of_a_step() -> None:
    case = Case("one", (Tensor("a", (1,)),))
    expected = {("float32", False): 28, ("float32", True): 36, ("float64", False): 56}
    expected |= {("float64", True): 72, ("float16", False): 22, ("float16", True): 30}
    for (dtype, amsgrad), n in expected.items():
        assert bytes_moved(case, dtype, VARIANTS["amsgrad" if amsgrad else "adam"]) == n


def test_gradients_of_another_dtype_are_read_as_they_are() -> None:
    pytest.importorskip("ml_dtypes", reason="needs ml_dtypes")
    case = mixed(Case("small", (Tensor("a", (40, 5)),)), "bfloat16")
    roster = Roster(["fastadam", "fastadam-link", "numpy"])
    plan = Plan(rounds=1, block_s=0.0, settle_s=0.0)
    with restored_threads():
        row = compare(roster, case, "adamw", None, 1, plan)
    assert row is not None
    assert row["bytes_moved"] == 200 * 26
    assert list(row["times_us"]) == ["floor", "fastadam"]
    assert [one.what for one in roster.left_out] == ["fastadam-link", "numpy"]
