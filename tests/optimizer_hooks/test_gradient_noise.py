"""GradientNoise: what is drawn, for which count, and how it is added."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastadam
from fastadam.optimizer_hooks import GradientNoise, exponential_decay_noise


def rule_at(t: int) -> fastadam.AdamRule:
    """A rule that has made t updates."""
    rule = fastadam.AdamRule()
    rule.t = t
    return rule


@pytest.mark.parametrize(("eta", "t"), [(0.1, 0), (0.3, 9), (1.0, 100)])
def test_size_and_shape_of_the_noise(eta: float, t: int) -> None:
    """Mean and deviation within five standard errors, and as many tails as a normal has."""
    n = 200_000
    std = math.sqrt(eta / (1 + t) ** 0.55)
    np.random.seed(t)
    noise = exponential_decay_noise(np, (n,), np.float64, GradientNoise(eta), rule_at(t))
    assert abs(np.mean(noise)) < 5 * std / math.sqrt(n)
    assert abs(np.std(noise) - std) < 5 * std / math.sqrt(2 * n)
    beyond = np.mean(np.abs(noise) > 2 * std)
    assert abs(beyond - 0.0455) < 5 * math.sqrt(0.0455 / n)


def test_the_deviation_that_was_measured() -> None:
    np.random.seed(7)
    noise = exponential_decay_noise(np, (200_000,), np.float32, GradientNoise(0.3), rule_at(9))
    assert math.sqrt(0.3 / 10**0.55) == pytest.approx(0.2908, abs=5e-5)
    assert np.std(noise) == pytest.approx(0.2908, abs=2.5e-3)


def test_noise_is_added_to_the_gradient(
    param: fastadam.Parameter, assert_close: Callable[..., None]
) -> None:
    """The draws are NumPy's global generator's, rounded to the gradient's dtype."""
    g = param.grad.astype(np.float64)
    dtype = param.grad.dtype
    np.random.seed(11)
    GradientNoise(0.3)(rule_at(4), param)
    np.random.seed(11)
    draws = np.random.normal(0, np.sqrt(0.3 / 5**0.55), g.shape)
    noise = np.asarray(draws).astype(dtype).astype(np.float64)
    assert_close(param.grad, g + noise, np.abs(g) + np.abs(noise))


def test_one_seed_one_result() -> None:
    results = []
    for seed in (1, 1, 2):
        w = np.ones(5, np.float32)
        opt = fastadam.Adam(alpha=0.1).setup({"w": w, "b": np.ones(2)})
        opt.add_hook(GradientNoise(0.3))
        np.random.seed(seed)
        for _ in range(3):
            opt.apply_gradients({"w": np.ones(5), "b": np.ones(2)})
        results.append(w)
    np.testing.assert_array_equal(results[0], results[1])
    assert not np.array_equal(results[0], results[2])


@pytest.mark.parametrize(("on_rule", "counts"), [(False, [0, 1, 2]), (True, [1, 2, 3])])
def test_what_a_noise_function_is_given(on_rule: bool, counts: list[int]) -> None:
    """On an optimizer the rule has not counted the update yet, on a rule it has."""
    calls = []

    def noise_func(xp: Any, shape: Any, dtype: Any, hook: Any, rule: Any) -> Any:
        calls.append((xp, shape, dtype, hook, rule, rule.t))
        return xp.zeros(shape, dtype)

    opt = fastadam.Adam().setup({"w": np.ones((2, 3), np.float16)})
    hook = GradientNoise(0.3, noise_func=noise_func)
    rule = opt.parameters["w"].update_rule
    (rule if on_rule else opt).add_hook(hook)
    for _ in counts:
        opt.apply_gradients({"w": np.ones((2, 3), np.float16)})
    assert [call[-1] for call in calls] == counts
    for call in calls:
        assert call[:3] == (np, (2, 3), np.float16)
        assert (call[3], call[4]) == (hook, rule)


@pytest.mark.parametrize(
    "noise", [0.5, 2, np.float32(0.5), np.full((2, 3), 0.5), np.array(0.5), [[0.5] * 3] * 2]
)
def test_what_a_noise_function_may_return(noise: Any, dtype: np.dtype) -> None:
    param = fastadam.Parameter(np.ones((2, 3), dtype))
    param.grad = np.ones((2, 3), dtype)
    GradientNoise(0, lambda *args: noise)(None, param)
    assert np.all(param.grad.astype(float) == 1 + np.asarray(noise))


def test_noise_in_half_precision(dtype: np.dtype) -> None:
    param = fastadam.Parameter(np.ones(3, np.float32))
    param.grad = np.ones(3, np.float32)
    GradientNoise(0, lambda *args: np.full(3, 0.5, dtype))(None, param)
    assert param.grad.tolist() == [1.5] * 3


@pytest.mark.parametrize("shape", [(3,), (1, 3), (2, 1), (6,), (1,), (2, 3, 1)])
def test_noise_of_another_shape(shape: tuple[int, ...]) -> None:
    param = fastadam.Parameter(np.ones((2, 3)), name="W")
    param.grad = np.ones((2, 3))
    with pytest.raises(ValueError, match=r"returned an array of shape .*'W'.*\(2, 3\)"):
        GradientNoise(0, lambda *args: np.ones(shape))(None, param)
    assert np.all(param.grad == 1)


@pytest.mark.parametrize("noise", [None, "x", 1j, np.ones(2, bool), [None, None]])
def test_noise_that_is_no_number(noise: Any) -> None:
    param = fastadam.Parameter(np.ones(2), name="W")
    param.grad = np.ones(2)
    with pytest.raises(TypeError, match=r"noise_func returned .*'W'"):
        GradientNoise(0, lambda *args: noise)(None, param)
    assert np.all(param.grad == 1)


def test_attributes_may_change() -> None:
    param = fastadam.Parameter(np.ones(2))
    hook = GradientNoise(0.3)
    assert (hook.eta, hook.noise_func) == (0.3, exponential_decay_noise)
    hook.eta = 0
    param.grad = np.ones(2)
    hook(rule_at(0), param)
    assert param.grad.tolist() == [1, 1]
    hook.noise_func = lambda xp, shape, dtype, hook, rule: xp.full(shape, 0.25, dtype)
    hook(rule_at(0), param)
    assert param.grad.tolist() == [1.25, 1.25]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((-0.1,), ValueError, r"GradientNoise\(eta=-0.1\).*below 0"),
        ((math.nan,), ValueError, r"GradientNoise\(eta=nan\).*NaN"),
        (("1",), TypeError, r"GradientNoise\(eta='1'\).*number"),
        ((None,), TypeError, r"GradientNoise\(eta=None\).*number"),
        ((0.1, None), TypeError, "noise_func must be callable, and None is not"),
        ((0.1, 3), TypeError, "noise_func must be callable, and 3 is not"),
        ((), TypeError, "eta"),
    ],
)
def test_arguments(arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        GradientNoise(*arguments)
