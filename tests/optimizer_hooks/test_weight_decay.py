"""WeightDecay: g + rate * p."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastadam
from fastadam.optimizer_hooks import WeightDecay


@pytest.mark.parametrize("rate", [0.3, 1e-4, -0.7, 0])
def test_formula(rate: float, param: fastadam.Parameter, assert_close: Callable[..., None]) -> None:
    p, g = param.array.astype(np.float64), param.grad.astype(np.float64)
    WeightDecay(rate)(None, param)
    assert_close(param.grad, g + rate * p, np.abs(g) + 2 * np.abs(rate * p))


def test_half_types_round_once() -> None:
    """The rate rounded to float16 would make the sum a tie, which goes to 1."""
    param = fastadam.Parameter(np.full(1, 1.0, np.float16))
    param.grad = np.full(1, 1.0, np.float16)
    WeightDecay(2.0**-11 + 2.0**-23)(None, param)
    assert param.grad.tolist() == [1 + 2.0**-10]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bits(dtype: str) -> None:
    """The rate is rounded once to the computing type; product and sum are, too."""
    rng = np.random.default_rng(5)
    param = fastadam.Parameter(rng.standard_normal(1000).astype(dtype))
    param.grad = g = rng.standard_normal(1000).astype(dtype)
    expected = g + np.dtype(dtype).type(0.003) * param.array
    WeightDecay(0.003)(None, param)
    np.testing.assert_array_equal(param.grad, expected)


def test_the_rate_may_change() -> None:
    param = fastadam.Parameter(np.ones(2))
    opt = fastadam.Adam(alpha=0.0).setup({"w": param.array})
    hook = WeightDecay(0.5)
    opt.add_hook(hook)
    seen = []
    opt.add_hook(lambda opt: seen.append(opt.parameters["w"].grad.tolist()), "look")
    for hook.rate in (0.5, 0, np.float32(0.25), np.array(2)):
        opt.apply_gradients({"w": np.ones(2)})
    assert seen == [[1.5, 1.5], [1, 1], [1.25, 1.25], [3, 3]]


def test_adam_divides_the_decay_by_its_size() -> None:
    """What the docstring says: it is not the decay of AdamW."""
    ends = []
    for scale in (1.0, 1000.0):
        w = np.array([0.5])
        opt = fastadam.Adam(alpha=0.01, eps=0).setup({"w": w})
        opt.add_hook(WeightDecay(scale))
        for _ in range(5):
            opt.apply_gradients({"w": np.zeros(1)})
        ends.append(w[0])
    assert ends[0] == pytest.approx(ends[1], rel=1e-12)
    assert ends[0] == pytest.approx(0.45, rel=0.01)


@pytest.mark.parametrize("rate", ["0.1", None, [0.1], np.ones(2), {}, 1j])
def test_no_number(rate: Any) -> None:
    with pytest.raises(TypeError, match=r"WeightDecay\(rate=.*must be a number"):
        WeightDecay(rate)


def test_not_a_number() -> None:
    with pytest.raises(ValueError, match=r"WeightDecay\(rate=nan.*NaN"):
        WeightDecay(float("nan"))


def test_what_no_float_is_near_to() -> None:
    with pytest.raises(ValueError, match=r"WeightDecay\(rate=1000.*rate is too large"):
        WeightDecay(10**400)


def test_the_rate_is_needed() -> None:
    with pytest.raises(TypeError, match="rate"):
        WeightDecay()  # type: ignore[call-arg]
    assert WeightDecay(rate=2).rate == 2
