"""Arrays for tests of kernels: the same values on a CPU and on a GPU, and all bits compared."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["SPECIAL", "assert_same_bits", "dtype_of", "on_gpu", "special_values", "values"]

# What arithmetic treats in a way of its own.
SPECIAL = (
    *(0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-40, 1.1754944e-38, -1.1754942e-38),
    *(1e-310, -5e-324, 1e308, 2.3e-308),
    *(3.4028235e38, -3.4028235e38, 65504.0, 65520.0, 65536.0, 6e-8, 5.9604645e-08, 6.1e-5, 1.0),
)


def dtype_of(name: str) -> np.dtype[Any]:
    """Return NumPy's dtype of what the CUDA source calls float, double, float16 or bfloat16."""
    if name == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype({"float": "float32", "double": "float64"}.get(name, name))


def values(types: tuple[str, str, str], n: int, seed: int = 0) -> list[np.ndarray]:
    """Return p, g, m, v, vhat of types that compute, store parameters and store gradients."""
    computing, p_type, g_type = map(dtype_of, types)
    p, g, m, v, vhat = np.random.default_rng(seed).normal(size=(5, n))
    return [
        p.astype(p_type),
        g.astype(g_type),
        m.astype(computing),
        (v * v).astype(computing),
        (vhat * vhat).astype(computing),
    ]


def special_values(types: tuple[str, str, str], n: int) -> list[np.ndarray]:
    """Return arrays in which special values meet each other and ordinary ones."""
    arrays = values(types, n, 1)
    random = np.random.default_rng(2)
    with np.errstate(all="ignore"):
        for array in arrays:
            places = random.random(n) < 0.4
            some = random.choice(SPECIAL, n)
            array[places] = some[places].astype(array.dtype)
    # second moments are not negative
    arrays[3], arrays[4] = np.abs(arrays[3]), np.abs(arrays[4])
    return arrays


def on_gpu(cupy: Any, array: np.ndarray, offset: int = 0) -> Any:
    """Copy an array to a GPU, some elements after an aligned address."""
    there = cupy.empty(array.size + offset, array.dtype)[offset:]
    there.set(array)
    return there


def assert_same_bits(there: Any, here: np.ndarray, what: object = "") -> None:
    """Compare all bits; a NaN is a NaN."""
    ours = there.get() if hasattr(there, "get") else there
    assert ours.dtype == here.dtype
    assert ours.shape == here.shape
    nan = np.isnan(here)
    assert np.array_equal(np.isnan(ours), nan), what
    unsigned = f"u{here.itemsize}"
    one, other = ours[~nan].view(unsigned), here[~nan].view(unsigned)
    wrong = np.flatnonzero(one != other)
    assert not wrong.size, f"{what}: {ours[~nan][wrong[:3]]} for {here[~nan][wrong[:3]]}"
