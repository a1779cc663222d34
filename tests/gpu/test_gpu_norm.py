"""Sums of squares on a GPU, in the defined order, and what is made of them there."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from cases import SPECIAL, assert_same_bits, dtype_of, on_gpu
from cuda_on_cpu.memory import state

from fastadam.kernels.gpu.sums import GpuSums, lars_rates
from fastadam.kernels.reference import squares_reference, tree_sum
from fastadam.kernels.sums import global_norm, gpu_sums, sum_of_squares, unscale

SIZES = (0, 1, 2, 255, 256, 257, 1000, 4095, 4096, 4097, 8192, 12_289, 40_001)


@pytest.fixture(params=["float32", "float64", "float16", "bfloat16"])
def dtype(request: pytest.FixtureRequest) -> Any:
    if request.param == "bfloat16":
        pytest.importorskip("ml_dtypes")
    return dtype_of(request.param)


@pytest.fixture(params=["forward", "reverse", "shuffled"])
def order(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the threads of the stand-in in an order."""
    monkeypatch.setattr(state, "order", request.param)


def some_array(n: int, dtype: Any, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    x = random.standard_normal(n) * 10.0 ** random.uniform(-3, 2, n)
    return x.astype(dtype)


@pytest.mark.usefixtures("order")
def test_sums_have_the_bits_of_the_definition(cupy: Any, dtype: Any) -> None:
    here = [some_array(n, dtype, n) for n in SIZES]
    there = [on_gpu(cupy, array, i % 3) for i, array in enumerate(here)]
    expected = [squares_reference(array) for array in here]
    assert list(sum_of_squares(here)) == expected
    assert list(sum_of_squares(there)) == expected
    assert global_norm(there) == global_norm(here)
    # a second time, with tables that have been kept, and in another order
    assert list(sum_of_squares(there[::-1])) == expected[::-1]


@pytest.mark.parametrize("scale", [64.0, 3.0])
def test_true_gradients(cupy: Any, dtype: Any, scale: float) -> None:
    here = [some_array(n, dtype, n) for n in SIZES]
    for array in here:
        # which stay what they are, and subnormal numbers, which become zeros of their sign
        array[-4:] = np.array([-0.0, 0.0, -1e-40, 1e-40])[-len(array[-4:]) or 4 :]
    # some are never aligned beside their quotients
    there = [on_gpu(cupy, array, i % 3) for i, array in enumerate(here)]
    scales = [scale * (1 + i % 2) for i in range(len(here))]
    in_place = [i % 3 == 0 for i in range(len(here))]
    true, squares = unscale([array.copy() for array in here], scales, in_place)
    ours, sums = unscale(there, scales, in_place)
    for one, other in zip(ours, true, strict=True):
        assert_same_bits(one, other)
    assert list(sums) == list(squares)
    # only where it may, a quotient takes the place of its gradient
    own = dtype in (np.float32, np.float64)
    for given, quotient, array, may in zip(there, ours, here, in_place, strict=True):
        assert (quotient is given) == (own and may)
        if not (own and may):
            assert_same_bits(given, array)


def test_arrays_everywhere_at_once(cupy: Any) -> None:
    here = [some_array(n, t, n) for n in (5, 5000) for t in ("float32", "float64", "float16")]
    mixed: list[Any] = []
    devices = min(2, cupy.cuda.runtime.getDeviceCount())
    for i, array in enumerate(here):
        with cupy.cuda.Device(i % devices):
            mixed.append(array if i % 3 == 1 else on_gpu(cupy, array))
    assert list(sum_of_squares(mixed)) == list(sum_of_squares(here))


@pytest.mark.parametrize("special", [*SPECIAL, 1e-310, 1e200])
def test_special_values(cupy: Any, dtype: Any, special: float) -> None:
    here = some_array(5000, dtype)
    with np.errstate(over="ignore", under="ignore"):
        here[4321] = special
    ours = sum_of_squares([on_gpu(cupy, here)])[0]
    expected = squares_reference(here)
    assert ours == expected or (math.isnan(ours) and math.isnan(expected))


def test_layouts(cupy: Any) -> None:
    here = some_array(600, np.float32).reshape(20, 30)
    there = on_gpu(cupy, here.ravel()).reshape(20, 30)
    views = [lambda a: a.T, lambda a: a[:, ::2], lambda a: a[::-1], lambda a: a[3:7, 1:5]]
    for view in views:
        assert sum_of_squares([view(there)])[0] == sum_of_squares([view(here)])[0]


def test_a_norm_whose_square_overflows(cupy: Any) -> None:
    here = [np.array([3e200, 4e200]), np.ones(3, np.float32)]
    there = [on_gpu(cupy, array) for array in here]
    assert global_norm(there) == global_norm(here) == pytest.approx(5e200)


@pytest.mark.parametrize("threshold", [0.0, 1.0, 50.0, 1e9])
@pytest.mark.parametrize("n", [1, 255, 256, 257, 1000])
@pytest.mark.usefixtures("order")
def test_clip_rate(cupy: Any, n: int, threshold: float) -> None:
    here = [some_array(3, np.float32, i) for i in range(n)]
    sums = gpu_sums([on_gpu(cupy, array) for array in here])
    assert sums is not None
    norm = global_norm(here)
    expected = threshold / norm if threshold < norm else 1.0
    assert sums.clip_rate(threshold).get().tolist() == [expected]


@pytest.mark.parametrize("n", [3, 4, 17, 4096, 4097, 12_300])
@pytest.mark.usefixtures("order")
def test_clip_rate_of_a_tree_of_sums(cupy: Any, n: int) -> None:
    """As the host adds them, for as many as make several trees of a block."""
    for seed in range(5):
        squares = np.random.default_rng(seed).uniform(0, 9, n)
        sums = GpuSums(n, 0)
        sums.totals.set(squares)
        norm = math.sqrt(tree_sum(squares.tolist()))
        assert global_norm((), squares.tolist()) == norm
        assert sums.clip_rate(0.1).get().tolist() == [0.1 / norm]


@pytest.mark.parametrize("norm", [0.0, 0.3, 0.99, 1.0, 1e9])
@pytest.mark.usefixtures("order")
def test_bound_rate_is_that_of_pytorch(cupy: Any, norm: float) -> None:
    sums = GpuSums(3, 0)
    sums.totals.set(np.array([norm * norm, 0, 0]))
    expected = min(1.0, 1.0 / (math.sqrt(norm * norm) + 1e-6))
    assert sums.bound_rate(1.0).get().tolist() == [expected]


def test_bound_rate_of_what_is_not_finite(cupy: Any) -> None:
    sums = GpuSums(2, 0)
    sums.totals.set(np.array([np.inf, 1.0]))
    assert sums.bound_rate(1.0).get().tolist() == [0.0]
    sums.totals.set(np.array([1.0, np.nan]))
    assert math.isnan(sums.bound_rate(1.0).get()[0])


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_not_clipped(cupy: Any, value: float) -> None:
    sums = gpu_sums([on_gpu(cupy, np.array([1.0, value], np.float32))])
    assert sums is not None
    assert sums.clip_rate(0.1).get().tolist() == [1.0]


def test_sums_stay_apart_for_several_devices(cupy: Any) -> None:
    on_cpu = np.ones(3, np.float32)
    assert gpu_sums([]) is None
    assert gpu_sums([on_cpu]) is None
    assert gpu_sums([on_cpu, on_gpu(cupy, on_cpu)]) is None
    if cupy.cuda.runtime.getDeviceCount() > 1:
        with cupy.cuda.Device(1):
            other = on_gpu(cupy, on_cpu)
        assert gpu_sums([on_gpu(cupy, on_cpu), other]) is None


@pytest.mark.parametrize("n", [1, 255, 256, 257, 600])
def test_lars_rates(cupy: Any, n: int) -> None:
    random = np.random.default_rng(n)
    p, g = random.uniform(0, 9, (2, n))
    p[::5] = 0
    g[::7] = 0
    sums = [GpuSums(n, 0), GpuSums(n, 0)]
    for one, values in zip(sums, (p, g), strict=True):
        one.totals.set(values)
    threshold, decay, eps = 0.5, 0.02, 1e-9
    ours = lars_rates(*sums, threshold, decay, eps).get()
    p_norm, g_norm = np.sqrt(p), np.sqrt(g)
    # rate = |p| / (eps + |g| + weight_decay * |p|) above the threshold
    rates = np.where(p_norm > threshold, p_norm / (eps + g_norm + decay * p_norm), 1.0)
    assert ours.tobytes() == rates.tobytes()
