"""What the tests of all hooks share: dtypes, parameters with gradients, an oracle's tolerance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastadam

# The distance of 1 from the next number.
EPS = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2.0**-23, "float64": 2.0**-52}


@pytest.fixture(params=EPS)
def dtype(request: pytest.FixtureRequest) -> np.dtype:
    """Each dtype that is stepped."""
    if request.param == "bfloat16":
        reason = "needs ml_dtypes, which has bfloat16"
        return np.dtype(pytest.importorskip("ml_dtypes", reason=reason).bfloat16)
    return np.dtype(request.param)


def _c(rng: Any, dtype: np.dtype) -> np.ndarray:
    return rng.standard_normal((5, 7)).astype(dtype)


LAYOUTS: dict[str, Callable[[Any, np.dtype], np.ndarray]] = {
    "C": _c,
    "Fortran": lambda rng, dtype: np.asfortranarray(_c(rng, dtype)),
    "strided": lambda rng, dtype: rng.standard_normal((10, 21)).astype(dtype)[::2, ::3],
    "backwards": lambda rng, dtype: _c(rng, dtype)[::-1, ::-1],
    "0-dim": lambda rng, dtype: np.array(rng.standard_normal(), dtype),
    "empty": lambda rng, dtype: np.zeros((3, 0), dtype),
    "one": lambda rng, dtype: rng.standard_normal(1).astype(dtype),
}


@pytest.fixture(params=LAYOUTS)
def param(request: pytest.FixtureRequest, dtype: np.dtype) -> fastadam.Parameter:
    """A parameter with a gradient, of each dtype and layout."""
    rng = np.random.default_rng(3)
    make = LAYOUTS[request.param]
    param = fastadam.Parameter(make(rng, dtype), name="W")
    param.grad = make(rng, dtype)
    return param


@pytest.fixture
def assert_close() -> Callable[..., None]:
    """Compare all elements with an oracle in float64."""

    def check(actual: np.ndarray, oracle: Any, terms: Any, roundings: float = 3) -> None:
        """Allow half types one rounding of the result, and the computing type a few.

        `terms` is the size of what the computation adds up, in which its roundings count.
        """
        oracle = np.asarray(oracle, np.float64)
        half = actual.dtype.name in ("float16", "bfloat16")
        computing = EPS["float32"] if half else EPS[actual.dtype.name]
        bound = roundings * computing / 2 * np.asarray(terms, np.float64)
        if half:
            # what lies between two numbers is at most half their distance from the nearer one
            tiny = 2.0**-25 if actual.dtype.name == "float16" else 0.0
            bound = bound + np.maximum(np.abs(oracle) * EPS[actual.dtype.name] / 2, tiny) * 1.001
        error = np.abs(actual.astype(np.float64) - oracle)
        assert actual.shape == oracle.shape
        assert np.all(error <= bound), float(np.max(error - bound))

    return check


@pytest.fixture
def link_of() -> Callable[..., fastadam.Link]:
    """Make a link of parameters."""

    def make(**params: fastadam.Parameter) -> fastadam.Link:
        link = fastadam.Link()
        with link.init_scope():
            for name, param in params.items():
                setattr(link, name, param)
        return link

    return make
