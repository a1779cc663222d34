"""How two arrays differ, against plain Python numbers."""

from __future__ import annotations

import math
import struct
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from fastadam.kernels import bits as module
from fastadam.kernels.bits import array_difference, same_bits

FLOATS = ["f2", "f4", "f8"]


def one(x: Any, y: Any, dtype: Any) -> Any:
    """The difference of two arrays of one element."""
    return array_difference(np.array([x], dtype), np.array([y], dtype))


def ordered(value: float, code: str) -> int:
    """The number of a float among all of its dtype, by way of its bytes."""
    bits = int.from_bytes(struct.pack(f">{code}", value), "big")
    half = 1 << (8 * struct.calcsize(code) - 1)
    return half - bits if bits >= half else bits


@pytest.mark.parametrize("dtype", FLOATS)
def test_equal_arrays_have_no_difference(dtype: str) -> None:
    x = np.array([0.0, -0.0, 1.5, np.inf, -np.inf, np.nan], dtype)
    assert array_difference(x, x.copy()) is None
    assert same_bits(x, x.copy())


@pytest.mark.parametrize("dtype", [*FLOATS, "c8", "c16", "g"])
def test_nan_equals_nan_of_any_sign_and_payload(dtype: str) -> None:
    quiet = np.array([np.nan, 1], dtype)
    other = -quiet
    other[1] = 1
    assert same_bits(quiet, other)


def test_nan_of_another_payload() -> None:
    x = np.array([0x7FC00000, 0x7FC00001], "u4").view("f4")
    assert same_bits(x[:1], x[1:])


@pytest.mark.parametrize("dtype", [*FLOATS, "g", "c16"])
def test_zeros_of_different_sign_differ_by_no_ulp(dtype: str) -> None:
    assert not same_bits(np.array([0.0], dtype), np.array([-0.0], dtype))
    found = one(0.0, -0.0, dtype)
    assert (found.count, found.relative, found.absolute) == (1, 0.0, 0.0)
    assert found.ulps == (None if dtype == "g" else 0)


@pytest.mark.parametrize("code", ["e", "f", "d"])
@given(data=st.data())
def test_ulps_are_counted_over_the_bits(code: str, data: st.DataObject) -> None:
    width = 8 * struct.calcsize(code)
    values = st.floats(width=width, allow_nan=False)
    x, y = data.draw(values), data.draw(values)
    found = one(x, y, code)
    if found is None:
        assert struct.pack(code, x) == struct.pack(code, y)
    else:
        assert found.ulps == abs(ordered(x, code) - ordered(y, code))
        assert (found.a, found.b, found.first, found.count) == (x, y, (0,), 1)


@pytest.mark.parametrize("dtype", FLOATS)
def test_neighbours_and_the_widest_distance(dtype: str) -> None:
    big = np.finfo(dtype).max
    tiny = np.nextafter(np.array(0, dtype), np.array(1, dtype))
    assert one(tiny, -tiny, dtype).ulps == 2
    assert one(big, np.inf, dtype).ulps == 1
    infinity = int(np.array(np.inf, dtype).view(f"i{np.dtype(dtype).itemsize}"))
    assert one(np.inf, -np.inf, dtype).ulps == 2 * infinity


@pytest.mark.parametrize("dtype", FLOATS)
def test_nan_and_a_number_are_infinitely_apart(dtype: str) -> None:
    for pair in ((np.nan, 1.0), (0.0, np.nan), (np.nan, np.inf)):
        found = one(*pair, dtype)
        assert (found.ulps, found.relative, found.absolute) == (math.inf,) * 3


def test_largest_distances_are_of_different_elements() -> None:
    a = np.array([1.0, 1000.0, 1e-3, 5.0])
    b = np.array([1.0, 1000.5, 2e-3, 5.0])
    found = array_difference(a, b)
    assert found is not None
    assert (found.count, found.first, found.a, found.b) == (2, (1,), 1000.0, 1000.5)
    assert (found.relative, found.absolute) == (0.5, 0.5)
    assert found.ulps == ordered(2e-3, "d") - ordered(1e-3, "d")


def test_a_difference_that_overflows_has_a_relative_one() -> None:
    found = one(1.5e308, -1.5e308, "f8")
    assert (found.relative, found.absolute) == (2.0, math.inf)
    found = one(6e4, -6e4, "f2")
    assert (found.relative, found.absolute) == (2.0, 2 * float(np.float16(6e4)))


def test_a_difference_of_one_ulp_is_not_rounded_away() -> None:
    found = one(1.0, np.nextafter(1.0, 0), "f8")
    assert found.relative == found.absolute == 2.0**-53


@pytest.mark.parametrize(
    ("dtype", "x", "y", "distance"),
    [
        ("i8", -(2**63), 2**63 - 1, 2**64 - 1),
        ("u8", 0, 2**64 - 1, 2**64 - 1),
        ("i2", 3, -4, 7),
        ("?", True, False, 1),
    ],
)
def test_integers_by_their_difference(dtype: str, x: int, y: int, distance: int) -> None:
    found = one(x, y, dtype)
    assert found.ulps == distance
    assert found.absolute == float(distance)


def test_complex_numbers_by_their_parts() -> None:
    one_ulp = np.nextafter(2.0, 3)
    assert one(1 + 2j, complex(1, one_ulp), "c16").ulps == 1
    assert one(2 + 1j, complex(one_ulp, 1), "c16").ulps == 1


@pytest.mark.parametrize("dtype", ["U3", "O", "M8[s]", "g"])
def test_other_dtypes_are_counted(dtype: str) -> None:
    values = np.array([1, 2, 3], "i8").astype(dtype)
    other = values.copy()
    other[1] = values[2]
    found = array_difference(values, other)
    assert found is not None
    assert (found.count, found.first, found.ulps) == (1, (1,), None)
    assert (found.relative is None) == (dtype != "g")


def test_bfloat16() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    x = np.array([1.0, -2.0, np.nan], ml_dtypes.bfloat16)
    y = x.copy()
    assert same_bits(x, y)
    y.view("u2")[1] += 3  # one bit is 2**-6 at 2
    found = array_difference(x, y)
    assert found is not None
    assert (found.count, found.first, found.ulps) == (1, (1,), 3)
    assert found.absolute == 3 * 2.0**-6
    y[2] = 0
    assert array_difference(x, y).ulps == math.inf  # type: ignore[union-attr]


@pytest.mark.parametrize("dtype", [">f4", ">f8", ">i4", ">c8"])
def test_byte_swapped(dtype: str) -> None:
    a = np.array([1, 2, 3], dtype)
    b = a.copy()
    assert same_bits(a, b)
    b[2] = np.nextafter(np.float32(3), np.float32(4)) if dtype != ">f8" else np.nextafter(3.0, 4)
    if dtype == ">i4":
        b[2] = 4
    found = array_difference(a, b)
    assert found is not None
    assert (found.ulps, found.first) == (1, (2,))


@given(
    shape=npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5),
    data=st.data(),
)
def test_any_layout(shape: tuple[int, ...], data: st.DataObject) -> None:
    """The first difference is first in C order, whatever the strides."""
    size = math.prod(shape)
    places = data.draw(st.sets(st.integers(0, size - 1))) if size else set()
    base = np.arange(size, dtype="f8").reshape(shape)
    other = base.copy()
    other.reshape(-1)[sorted(places)] += 0.5
    layouts = {
        "C": np.ascontiguousarray,
        "F": np.asfortranarray,
        "strided": lambda x: np.repeat(x[..., None], 3, axis=-1)[..., 1],
        "reversed": lambda x: np.flip(np.ascontiguousarray(np.flip(x))),
    }
    a = layouts[data.draw(st.sampled_from(list(layouts)))](base)
    b = layouts[data.draw(st.sampled_from(list(layouts)))](other)
    found = array_difference(a.reshape(shape), b.reshape(shape))
    assert same_bits(a.reshape(shape), b.reshape(shape)) == (not places)
    if not places:
        assert found is None
    else:
        assert found is not None
        index = tuple(int(i) for i in np.unravel_index(min(places), shape))
        assert (found.count, found.first, found.a) == (len(places), index, base[index])


@pytest.mark.parametrize("layout", ["contiguous", "strided", "mixed"])
@pytest.mark.parametrize("first", [15, 16, 50])
def test_chunks_are_counted_together(
    monkeypatch: pytest.MonkeyPatch, layout: str, first: int
) -> None:
    monkeypatch.setattr(module, "_CHUNK", 16)
    a = np.arange(104.0) if layout == "contiguous" else np.arange(208.0)[::2]
    b = a.copy()
    for i, extra in ((15, 0.5), (16, 0.25), (50, 8.0), (100, 0.125)):
        b[i] += extra if i >= first else 0.0
    if layout == "mixed":
        a, b = a.reshape(8, 13), np.asfortranarray(b.reshape(8, 13))
    found = array_difference(a, b)
    assert found is not None
    index = divmod(first, 13) if layout == "mixed" else (first,)
    assert (found.first, found.absolute) == (index, 8.0)
    assert found.count == {15: 4, 16: 3, 50: 2}[first]


def test_nothing_of_the_arrays_size_is_made() -> None:
    a = np.ones((2000, 1000), "f4")
    b, c = -a, a.copy(order="F")
    tracemalloc.start()
    try:
        assert array_difference(a, b) is not None
        assert not same_bits(b, c)
        assert same_bits(a, c)
        assert tracemalloc.get_traced_memory()[1] < a.nbytes
    finally:
        tracemalloc.stop()
