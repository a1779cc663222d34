"""float16 and bfloat16 parameters: steps in float32, float32 state, beside float64 formulas."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import fastadam
from fastadam.serializers import DictionarySerializer, NpzDeserializer

HALF = ("float16", "bfloat16")
HYPER = {"alpha": 0.03, "beta1": 0.8, "beta2": 0.95, "eps": 1e-4, "eta": 0.7}
BOUNDS = {"final_lr": 0.02, "gamma": 0.05}
KINDS = {
    "Adam": {**HYPER, "weight_decay_rate": 0.02},
    "AdamW": {**HYPER, "weight_decay_rate": 0.01},
    "AMSGrad": HYPER,
    "AdaBound": {**HYPER, **BOUNDS},
    "AMSBound": {**HYPER, **BOUNDS},
}


def dtype_of(name: str) -> np.dtype:
    """The dtype of a name, or a skip where bfloat16 is not to be had."""
    if name == "bfloat16":
        reason = "needs ml_dtypes, which has bfloat16"
        return np.dtype(pytest.importorskip("ml_dtypes", reason=reason).bfloat16)
    return np.dtype(name)


def last_digit(x: np.ndarray, name: str) -> np.ndarray:
    """The distance between neighbours of a half type, at numbers in float64."""
    digits, lowest = (10, -14) if name == "float16" else (7, -126)
    return 2.0 ** (np.maximum(np.floor(np.log2(np.abs(x))), lowest) - digits)


class Formula:
    """The documented step of one variant, in float64."""

    def __init__(self, kind: str, shape: tuple[int, ...]) -> None:
        self.hyper = {"weight_decay_rate": 0.0, **KINDS[kind]}
        self.amsgrad, self.adabound = kind.startswith("AMS"), kind.endswith("Bound")
        self.m, self.v, self.vhat = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        self.t = 0

    def step(self, p: np.ndarray, g: np.ndarray) -> np.ndarray:
        """Return the parameter after a step."""
        hp, self.t = self.hyper, self.t + 1
        self.m += (1 - hp["beta1"]) * (g - self.m)
        self.v += (1 - hp["beta2"]) * (g * g - self.v)
        self.vhat = np.maximum(self.vhat, self.v) if self.amsgrad else self.v
        alpha_t = hp["alpha"] * math.sqrt(1 - hp["beta2"] ** self.t) / (1 - hp["beta1"] ** self.t)
        step = alpha_t / (np.sqrt(self.vhat) + hp["eps"])
        if self.adabound:
            lower = hp["final_lr"] * (1 - 1 / (hp["gamma"] * self.t + 1))
            upper = hp["final_lr"] * (1 + 1 / (hp["gamma"] * self.t))
            step = np.clip(step, lower, upper)
        return (1 - hp["eta"] * hp["weight_decay_rate"]) * p - hp["eta"] * step * self.m


def nothing(rule: Any, param: Any) -> None:
    """A hook that makes a rule update by itself, outside of the batch."""


@pytest.mark.parametrize("by_itself", [False, True])
@pytest.mark.parametrize("given", ["half", "float32", "float64"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", HALF)
def test_beside_the_formula_in_float64(dtype: str, kind: str, given: str, by_itself: bool) -> None:
    """Every step rounds the parameter once; the moments are never rounded to the half type."""
    random = np.random.default_rng(3)
    shape = (7, 31)
    p = random.normal(size=shape).astype(dtype_of(dtype))
    opt = getattr(fastadam, kind)(**KINDS[kind]).setup({"w": p})
    rule = opt.parameters["w"].update_rule
    if by_itself:
        rule.add_hook(nothing)
    formula = Formula(kind, shape)
    for i in range(30):
        size = 10.0 ** random.uniform(-6, 2, shape) if given != "half" else 1.0
        g = (random.normal(size=shape) * size).astype(p.dtype if given == "half" else given)
        exact = formula.step(p.astype(np.float64), g.astype(np.float64))
        opt.apply_gradients({"w": g})
        error = np.abs(p.astype(np.float64) - exact)
        assert np.all(error <= 0.501 * last_digit(exact, dtype) + 1e-6), i
        np.testing.assert_allclose(rule.state["m"], formula.m, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(rule.state["v"], formula.v, rtol=1e-5)
        if formula.amsgrad:
            np.testing.assert_allclose(rule.state["vhat"], formula.vhat, rtol=1e-5)
    assert {value.dtype for value in rule.state.values()} == {np.dtype(np.float32)}
    assert ("vhat" in rule.state) == formula.amsgrad
    assert p.dtype == dtype_of(dtype)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", HALF)
def test_batch_and_rule_give_the_same_bits(dtype: str, kind: str) -> None:
    random = np.random.default_rng(4)
    start = random.normal(size=(5, 9)).astype(dtype_of(dtype))
    runs = []
    for by_itself in (False, True):
        params = {name: start.copy() for name in ("a", "b")} | {"c": start[1:3, ::2].copy()}
        opt = getattr(fastadam, kind)(**KINDS[kind]).setup(params)
        for param in opt.parameters.values() if by_itself else ():
            param.update_rule.add_hook(nothing)
        steps = np.random.default_rng(6)
        for _ in range(10):
            given = {name: steps.normal(size=p.shape) for name, p in params.items()}
            opt.apply_gradients(given)
        rules = [param.update_rule for param in opt.parameters.values()]
        states = [value.tobytes() for rule in rules for value in rule.state.values()]
        runs.append(([p.tobytes() for p in params.values()], states))
    assert runs[0] == runs[1]


@pytest.mark.parametrize("dtype", HALF)
def test_a_small_gradient_makes_a_step_of_alpha(dtype: str) -> None:
    """In float16, v = 1e-9 is 0, and Chainer's first step goes from 1 to -2.16, not to 0.999."""
    w = np.ones(3, dtype_of(dtype))
    opt = fastadam.Adam().setup({"w": w})
    opt.apply_gradients({"w": np.full(3, 1e-3, w.dtype)})
    assert w.tolist() == np.full(3, 0.999).astype(w.dtype).tolist()
    v = opt.parameters["w"].update_rule.state["v"]
    assert v.tolist() == pytest.approx([1e-9] * 3, rel=1e-2)


@pytest.mark.parametrize("dtype", HALF)
def test_a_large_gradient_makes_a_step_of_alpha(dtype: str) -> None:
    """In float16, v = 4e8 is infinite, and Chainer's parameter never moves again."""
    w = np.ones(3, dtype_of(dtype))
    opt = fastadam.Adam(alpha=0.125, beta2=0.5).setup({"w": w})
    opt.apply_gradients({"w": np.full(3, 2e4, w.dtype)})
    assert w.tolist() == pytest.approx([0.875] * 3)
    opt.apply_gradients({"w": np.full(3, -2e4, w.dtype)})
    assert np.all(w > 0.875)


@pytest.mark.parametrize("dtype", HALF)
def test_gradients_that_the_half_type_cannot_hold(dtype: str) -> None:
    """A float32 gradient is used as it is: 1e-12 and 1e6 are 0 and infinite in float16."""
    w = np.ones(2, dtype_of(dtype))
    opt = fastadam.Adam(alpha=0.125, eps=0.0).setup({"w": w})
    seen = []
    opt.add_hook(lambda opt: seen.append(opt.parameters["w"].grad.copy()), "look")
    opt.apply_gradients({"w": np.array([1e-12, 1e6])})
    np.testing.assert_array_equal(seen[0], np.array([1e-12, 1e6], np.float32), strict=True)
    assert w.astype(float).tolist() == [0.875, 0.875]


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("how", ["in place", "assigned", "halves"])
def test_a_users_hook_may_change_and_set_gradients(dtype: str, how: str) -> None:
    """The true gradient is float32, and assigning that to a half-precision parameter is right."""

    def double(opt: Any) -> None:
        for param in opt.parameters.values():
            if how == "in place":
                param.grad *= 2
            elif how == "assigned":
                param.grad = param.grad + param.grad
            else:
                param.grad = (2 * param.grad).astype(param.dtype)

    arrays = [np.ones(3, dtype_of(dtype)) for _ in range(2)]
    scaled, plain = (fastadam.Adam(**HYPER).setup({"w": array}) for array in arrays)
    scaled.add_hook(double, "double")
    scaled.apply_gradients({"w": np.full(3, 8, arrays[0].dtype)}, loss_scale=32)
    plain.apply_gradients({"w": np.full(3, 0.5)})
    assert arrays[0].tolist() == arrays[1].tolist()


@pytest.mark.parametrize("dtype", HALF)
def test_what_may_be_assigned_as_gradient(dtype: str) -> None:
    half = dtype_of(dtype)
    param = fastadam.Parameter(np.ones(2, half))
    for kind in (half, np.dtype(np.float32)):
        gradient = np.ones(2, kind)
        param.grad = gradient
        assert param.grad is gradient
    other = np.float16 if dtype == "bfloat16" else ">f2"
    for kind in (np.float64, ">f4", np.int32, other):
        with pytest.raises(TypeError, match="dtype"):
            param.grad = np.ones(2, kind)
        assert param.grad is gradient
    with pytest.raises(ValueError, match="shape"):
        param.grad = np.ones(3, np.float32)
    for full in (np.float32, np.float64, ">f4", np.int64):
        param = fastadam.Parameter(np.ones(2, full))
        for kind in {"float16", "float32", "float64", ">f4"} - {np.dtype(full).name, full}:
            if np.dtype(kind) != np.dtype(full):
                with pytest.raises(TypeError, match="dtype"):
                    param.grad = np.ones(2, kind)


@pytest.mark.parametrize("dtype", HALF)
def test_half_state_from_a_file_becomes_float32(dtype: str) -> None:
    """Chainer's files have float16 state; into a fresh optimizer as into a used one."""
    w = np.full(3, 1.25, dtype_of(dtype))
    opt = fastadam.Adam(**HYPER).setup({"w": w})
    opt.apply_gradients({"w": np.array([0.5, 1, 2])})
    saved = DictionarySerializer()
    saved.save(opt)
    stored = {
        k: v.astype(w.dtype) if k[-2:] in ("/m", "/v") else v for k, v in saved.target.items()
    }
    for used in (False, True):
        other = fastadam.Adam(**HYPER).setup({"w": w.copy()})
        if used:
            other.apply_gradients({"w": np.ones(3)})
        NpzDeserializer(stored).load(other)
        state = other.parameters["w"].update_rule.state
        for key in "mv":
            np.testing.assert_array_equal(
                state[key], stored[f"w/{key}"].astype(np.float32), strict=True
            )
        other.apply_gradients({"w": np.ones(3)})
        assert other.parameters["w"].update_rule.t == 2


@pytest.mark.parametrize("dtype", HALF)
def test_saved_and_resumed_without_masters(dtype: str) -> None:
    w = np.linspace(-1, 1, 5).astype(dtype_of(dtype))
    opt = fastadam.AMSGrad(**HYPER).setup({"w": w})
    for i in range(5):
        opt.apply_gradients({"w": np.full(5, 0.25 + i)})
    saved = DictionarySerializer()
    saved.save(opt)
    assert "w/fp32_param" not in saved.target
    other = fastadam.AMSGrad(**HYPER).setup({"w": w.copy()})
    NpzDeserializer(saved.target).load(other)
    assert other == opt
    for one in (opt, other):
        one.apply_gradients({"w": np.full(5, -0.75)})
    assert other.target["w"].tobytes() == w.tobytes()
    assert other == opt


def test_several_dtypes_in_one_target() -> None:
    """Each as it would be alone."""
    names = [*HALF, "float32", "float64"]
    params = {name: np.linspace(-1, 1, 9).astype(dtype_of(name)) for name in names}
    together = fastadam.AMSBound(**KINDS["AMSBound"]).setup(params)
    alone = {}
    for name in names:
        alone[name] = params[name].copy()
        opt = fastadam.AMSBound(**KINDS["AMSBound"]).setup({name: alone[name]})
        for i in range(5):
            opt.apply_gradients({name: np.linspace(0.1, 1, 9) - 0.3 * i})
    for i in range(5):
        together.apply_gradients({name: np.linspace(0.1, 1, 9) - 0.3 * i for name in names})
    for name in names:
        assert params[name].tobytes() == alone[name].tobytes()
        state = together.parameters[name].update_rule.state
        wide = np.float64 if name == "float64" else np.float32
        assert {value.dtype for value in state.values()} == {np.dtype(wide)}


@pytest.mark.parametrize("dtype", HALF)
def test_numbers_that_are_not_finite_propagate(dtype: str) -> None:
    w = np.ones(4, dtype_of(dtype))
    opt = fastadam.Adam(**HYPER).setup({"w": w})
    opt.apply_gradients({"w": np.array([np.nan, np.inf, -np.inf, 1])})
    assert np.isnan(w.astype(float)).tolist() == [True, True, True, False]
    state = opt.parameters["w"].update_rule.state
    assert np.isnan(state["m"][0])
    assert state["m"].tolist()[1:3] == [np.inf, -np.inf]


def test_an_eps_that_float16_cannot_hold_is_none_of_its_business() -> None:
    """Steps are in float32, where 1e-8 is fine; what is too small for that is refused."""
    w = np.ones(2, np.float16)
    opt = fastadam.Adam(eps=1e-8).setup({"w": w})
    opt.apply_gradients({"w": np.zeros(2)})
    assert w.tolist() == [1, 1]
    opt.eps = 1e-50
    with pytest.raises(ValueError, match="eps"):
        opt.apply_gradients({"w": np.ones(2)})
    assert opt.t == 1
