"""The update rule of one parameter: order, counts, state, hooks, batches."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastadam
from fastadam import AdamRule, Hyperparameter, Parameter, UpdateRule

ARGUMENTS: dict[str, Any] = {
    "alpha": 0.03,
    "beta1": 0.8,
    "beta2": 0.95,
    "eps": 1e-6,
    "eta": 0.7,
    "weight_decay_rate": 0.02,
    "amsgrad": True,
    "adabound": True,
    "final_lr": 0.3,
    "gamma": 0.05,
}


class SGDRule(UpdateRule):
    """What a user would write."""

    def update_core(self, param: Any) -> None:
        param.array -= self.hyperparam.lr * param.grad


class MomentumRule(UpdateRule):
    """A user's rule with state, an array and a number."""

    def init_state(self, param: Any) -> None:
        self.state["u"] = np.zeros_like(param.array)
        self.state["sum"] = 0.0

    def update_core_cpu(self, param: Any) -> None:
        self.state["u"] *= 0.5
        self.state["u"] += param.grad
        self.state["sum"] += float(param.grad.sum())
        param.array -= 0.25 * self.state["u"]


def parameter(n: int = 5, seed: int = 0, dtype: str = "float64") -> Parameter:
    """A parameter with a gradient."""
    random = np.random.default_rng(seed)
    param = Parameter(random.standard_normal(n).astype(dtype), name="w")
    param.grad = random.standard_normal(n).astype(dtype)
    return param


def everything(rule: Any, param: Parameter) -> tuple[Any, ...]:
    """All that a step may change, as bytes."""
    state = rule.state and {
        k: v.tobytes() if isinstance(v, np.ndarray) else v for k, v in rule.state.items()
    }
    return param.array.tobytes(), rule.t, state


def test_fresh_rule() -> None:
    parent = Hyperparameter()
    rule = UpdateRule(parent)
    assert (rule.enabled, rule.t, rule.state, rule.is_elementwise) == (True, 0, None, False)
    assert rule.hyperparam.parent is parent
    assert UpdateRule().hyperparam.parent is None
    with pytest.raises(AttributeError):
        rule.state = {}  # type: ignore[misc]


def test_a_rule_shows_its_hyperparameters_and_whose_it_is() -> None:
    rule = SGDRule()
    assert repr(rule) == "<SGDRule() t=0>"
    rule.hyperparam.lr = np.float32(0.5)
    rule.t, rule.path, rule.enabled = 3, "l1/W", False
    assert repr(rule) == "<SGDRule(lr=0.5) of 'l1/W' t=3, disabled>"
    usual = dict(AdamRule().hyperparam.get_dict())
    shown = ", ".join(f"{name}={value!r}" for name, value in {**usual, "alpha": 0.5}.items())
    opt = fastadam.Adam(alpha=0.5).setup({"w": np.ones(2)})
    opt.apply_gradients({"w": np.ones(2)})
    found = opt.parameters["w"].update_rule
    assert repr(found) == f"<AdamRule({shown}) of 'w' t=1>"
    # what is set for this parameter alone is what it is updated with
    opt.set_hyperparam("w", alpha=0.25, eps_mode="paper")
    assert "AdamRule(alpha=0.25, " in repr(found)
    assert "eps_mode='paper'" in repr(found)


def test_base_rule_says_what_to_override() -> None:
    rule, param = UpdateRule(), parameter()
    before = everything(rule, param)
    with pytest.raises(NotImplementedError, match=r"UpdateRule.*update_core"):
        rule.update(param)
    assert everything(rule, param)[:2] == before[:2]


def test_own_rule() -> None:
    rule, param = SGDRule(), parameter()
    rule.hyperparam.lr = 0.125
    array, before, grad = param.array, param.array.copy(), param.grad.copy()
    rule.update(param)
    rule.update(param)
    np.testing.assert_array_equal(param.array, before - 0.125 * grad - 0.125 * grad)
    assert param.array is array
    assert (rule.t, rule.state) == (2, {})


def test_own_rule_with_state() -> None:
    rule, param = MomentumRule(), parameter()
    before, grad = param.array.copy(), param.grad.copy()
    rule.update(param)
    assert rule.state.keys() == {"u", "sum"}
    u = rule.state["u"]
    rule.update(param)
    assert rule.state["u"] is u
    np.testing.assert_array_equal(u, 1.5 * grad)
    np.testing.assert_array_equal(param.array, before - 0.25 * grad - 0.25 * (1.5 * grad))
    assert rule.state["sum"] == float(grad.sum()) + float(grad.sum())


@pytest.mark.parametrize("kind", [SGDRule, AdamRule])
def test_disabled_rule_does_nothing(kind: Callable[[], Any]) -> None:
    rule, param = kind(), parameter()
    rule.add_hook(lambda rule, param: pytest.fail("called"), name="hook")
    rule.enabled = False
    before = everything(rule, param)
    rule.update(param)
    assert everything(rule, param) == before == (param.array.tobytes(), 0, None)


def test_order_of_one_update_and_the_count_that_hooks_see() -> None:
    events: list[Any] = []

    class Recorder(UpdateRule):
        def init_state(self, param: Any) -> None:
            events.append(("init", self.t))
            self.state["x"] = 1

        def update_core(self, param: Any) -> None:
            events.append(("core", self.t))

    rule, param = Recorder(), parameter()
    rule.add_hook(
        lambda r, p: events.append(("post1", r.t, r is rule, p is param)), "post1", "post"
    )
    for name in ("pre1", "pre2"):
        rule.add_hook(
            lambda r, p, name=name: events.append((name, r.t, r is rule, p is param)), name, "pre"
        )
    rule.add_hook(
        lambda r, p: events.append(("post2", r.t, r is rule, p is param)), "post2", "post"
    )
    rule.update(param)
    rule.remove_hook("pre1")
    rule.update(param)
    assert events == [
        ("init", 1),
        ("pre1", 1, True, True),
        ("pre2", 1, True, True),
        ("core", 1),
        ("post1", 1, True, True),
        ("post2", 1, True, True),
        ("pre2", 2, True, True),
        ("core", 2),
        ("post1", 2, True, True),
        ("post2", 2, True, True),
    ]


def test_hook_that_scales_the_gradient_in_place() -> None:
    rules, params = [SGDRule(), SGDRule()], [parameter(), parameter()]
    for rule in rules:
        rule.hyperparam.lr = 0.25

    def halve(rule: Any, param: Any) -> None:
        param.grad *= 0.5

    rules[0].add_hook(halve)
    params[1].grad = params[1].grad * 0.5
    for rule, param in zip(rules, params, strict=True):
        rule.update(param)
    np.testing.assert_array_equal(params[0].array, params[1].array)
    assert not np.array_equal(params[0].array, parameter().array)


@pytest.mark.parametrize("kind", [AdamRule, MomentumRule])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("steps", [0, 3])
def test_pre_hook_that_raises_leaves_the_step_undone(
    kind: Callable[[], Any], error: type[BaseException], steps: int
) -> None:
    rule, param = kind(), parameter()
    for _ in range(steps):
        rule.update(param)
    before = everything(rule, param)

    def fail(rule: Any, param: Any) -> None:
        raise error("stop")

    rule.add_hook(fail)
    with pytest.raises(error, match="stop"):
        rule.update(param)
    after = everything(rule, param)
    assert after[:2] == before[:2]
    assert rule.t == steps
    if steps:
        assert after == before
    # and it goes on as if nothing had happened
    rule.remove_hook("fail")
    rule.update(param)
    other, twin = kind(), parameter()
    for _ in range(steps + 1):
        other.update(twin)
    assert everything(rule, param) == everything(other, twin)


@pytest.mark.parametrize("kind", [AdamRule, MomentumRule])
def test_post_hook_that_raises_leaves_the_step_done(kind: Callable[[], Any]) -> None:
    rule, param, other, twin = kind(), parameter(), kind(), parameter()

    def fail(rule: Any, param: Any) -> None:
        raise RuntimeError("stop")

    rule.add_hook(fail, timing="post")
    with pytest.raises(RuntimeError, match="stop"):
        rule.update(param)
    other.update(twin)
    assert everything(rule, param) == everything(other, twin)
    assert rule.t == 1


def test_init_state_that_raises_is_tried_again() -> None:
    class Shy(MomentumRule):
        tries = 0

        def init_state(self, param: Any) -> None:
            super().init_state(param)
            self.tries += 1
            if self.tries == 1:
                raise RuntimeError("not yet")

    rule, param = Shy(), parameter()
    with pytest.raises(RuntimeError, match="not yet"):
        rule.update(param)
    assert (rule.state, rule.t) == (None, 0)
    rule.update(param)
    assert (rule.t, rule.tries) == (1, 2)


def test_uninitialised_parameter_is_passed_over() -> None:
    rule, param = AdamRule(**ARGUMENTS), Parameter(0.5)
    rule.add_hook(lambda rule, param: pytest.fail("called"), name="hook")
    rule.update(param)
    assert (rule.t, rule.state) == (0, None)
    rule.remove_hook("hook")
    param.initialize(3)
    param.grad = np.ones(3, np.float32)
    rule.update(param)
    assert rule.t == 1


def test_array_that_is_not_on_the_cpu_says_what_to_override() -> None:
    class Elsewhere:
        array = object()
        grad = None

    with pytest.raises(NotImplementedError, match=r"SomeRule.*object.*update_core"):
        type("SomeRule", (UpdateRule,), {})().update(Elsewhere())


def test_chainerx_is_refused_in_words() -> None:
    with pytest.raises(NotImplementedError, match=r"AdamRule.*ChainerX"):
        AdamRule().update_core_chainerx(Parameter(np.ones(1)))


def test_update_batch_of_a_users_rule_is_its_update_for_each() -> None:
    class Batched(MomentumRule):
        def batch_key(self) -> str:
            return "together"

    params = {f"p{i}": np.arange(i + 1, dtype="f8") for i in range(4)}
    twins = {key: array.copy() for key, array in params.items()}

    class Method(fastadam.GradientMethod):
        rule: type[UpdateRule] = Batched

        def create_update_rule(self) -> UpdateRule:
            return self.rule()

    class Plain(Method):
        rule = MomentumRule

    batched, plain = Method().setup(params), Plain().setup(twins)
    for step in range(1, 4):
        for opt, tree in ((batched, params), (plain, twins)):
            opt.apply_gradients({key: np.full_like(array, step) for key, array in tree.items()})
    for key, array in params.items():
        np.testing.assert_array_equal(array, twins[key])
        assert not np.array_equal(array, np.arange(array.size))
    assert [p.update_rule.t for p in batched.parameters.values()] == [3] * 4


def test_update_batch_gets_all_rules_of_a_key_once() -> None:
    calls: list[Any] = []

    class Keyed(SGDRule):
        key: Any = "a"

        def batch_key(self) -> Any:
            return self.key

        @classmethod
        def update_batch(cls, rules: Any, params: Any) -> None:
            calls.append([rule.path for rule in rules])
            assert [p.update_rule for p in params] == list(rules)

    class Method(fastadam.GradientMethod):
        def create_update_rule(self) -> UpdateRule:
            return Keyed()

    opt = Method().setup({"a": np.ones(1), "b": np.ones(1), "c": np.ones(1), "d": np.ones(1)})
    opt.parameters["b"].update_rule.key = "b"
    opt.parameters["d"].update_rule.enabled = False
    opt.apply_gradients(dict.fromkeys("abcd"))
    assert calls == [["a", "c"], ["b"]]


class TestBatchKey:
    """Who is stepped in one call of the kernels and who by itself."""

    def test_plain_rules_share_a_key(self) -> None:
        assert AdamRule().batch_key() == AdamRule(**ARGUMENTS).batch_key() is not None

    def test_subclass_that_changes_nothing_of_the_update(self) -> None:
        class Mine(AdamRule):
            note = "x"

        assert Mine().batch_key() == AdamRule().batch_key()

    @pytest.mark.parametrize(
        "name", ["update", "update_core", "update_core_cpu", "alpha_t", "bounds", "init_state"]
    )
    def test_overriding_any_part_takes_the_single_path(self, name: str) -> None:
        mine = type("Mine", (AdamRule,), {name: getattr(AdamRule, name)})
        assert mine().batch_key() is not None  # the same function: nothing is overridden
        other = property(lambda self: 1) if name in ("alpha_t", "bounds") else lambda self, p: None
        assert type("Mine", (AdamRule,), {name: other})().batch_key() is None

    def test_hooks_take_the_single_path_while_they_are_there(self) -> None:
        for timing in ("pre", "post"):
            rule = AdamRule()
            rule.add_hook(lambda rule, param: None, "hook", timing)
            assert rule.batch_key() is None
            rule.remove_hook("hook")
            assert rule.batch_key() is not None

    def test_method_replaced_on_the_rule_itself(self) -> None:
        rule, param = AdamRule(), parameter()
        called = []
        rule.update_core = called.append  # type: ignore[method-assign]
        assert rule.batch_key() is None
        param.update_rule = rule
        link = fastadam.Link()
        with link.init_scope():
            link.w = param
        opt = fastadam.Adam().setup(link)
        param.update_rule = rule
        param.grad = np.ones(5)
        opt.update()
        assert called == [param]

    def test_base_rule_is_never_in_a_batch(self) -> None:
        assert SGDRule().batch_key() is None


def test_overridden_alpha_t_and_bounds_are_used() -> None:
    class Fixed(AdamRule):
        alpha_t = property(lambda self: 0.5)  # type: ignore[assignment]
        bounds = property(lambda self: (0.125, 0.25))  # type: ignore[assignment]

    plain, bounded = parameter(), parameter()
    before, g = plain.array.copy(), plain.grad.copy()
    rule = Fixed(beta1=0.75, beta2=0.5, eps=0.125)
    rule.update(plain)
    m, v = 0.25 * g, 0.5 * (g * g)
    np.testing.assert_array_equal(plain.array, before - 1.0 * (0.5 / (np.sqrt(v) + 0.125) * m))
    Fixed(beta1=0.75, beta2=0.5, eps=0.125, adabound=True).update(bounded)
    step = np.clip(0.5 / (np.sqrt(v) + 0.125), 0.125, 0.25)
    np.testing.assert_array_equal(bounded.array, before - step * m)


def test_gradient_none_at_a_rule_of_its_own_leaves_the_parameter() -> None:
    rule, param = AdamRule(**ARGUMENTS), parameter()
    param.cleargrad()
    before = param.array.copy()
    rule.update(param)
    np.testing.assert_array_equal(param.array, before)


def test_switching_classes_between_single_and_batch_path_keeps_the_bits() -> None:
    arrays = [{k: np.linspace(-1, 1, n) for k, n in (("a", 7), ("b", 16))} for _ in range(3)]
    batch, single, mixed = (fastadam.Adam(**ARGUMENTS).setup(tree) for tree in arrays)
    for param in single.parameters.values():
        param.update_rule.add_hook(lambda rule, param: None, "hook")
    random = np.random.default_rng(1)
    for step in range(20):
        grads = {"a": random.standard_normal(7), "b": random.standard_normal(16)}
        rule = mixed.parameters["a"].update_rule
        if step % 3 == 0:
            rule.add_hook(lambda rule, param: None, "hook")
        for opt in (batch, single, mixed):
            opt.apply_gradients(grads)
        if step % 3 == 0:
            rule.remove_hook("hook")
    for opt in (single, mixed):
        for path, param in opt.parameters.items():
            expected = batch.parameters[path]
            assert everything(param.update_rule, param) == everything(
                expected.update_rule, expected
            )
    assert not np.array_equal(arrays[0]["a"], np.linspace(-1, 1, 7))


@pytest.mark.parametrize("way", ["deepcopy", "pickle"])
def test_rules_copy(way: str) -> None:
    rule, param = AdamRule(**ARGUMENTS), parameter()
    for _ in range(3):
        rule.update(param)
    pair = rule, param
    other, twin = copy.deepcopy(pair) if way == "deepcopy" else pickle.loads(pickle.dumps(pair))
    assert everything(other, twin) == everything(rule, param)
    for one, p in ((rule, param), (other, twin)):
        one.hyperparam.alpha = 0.01
        one.update(p)
    assert everything(other, twin) == everything(rule, param)
    other.update(twin)
    assert rule.t == 4
    assert not np.array_equal(rule.state["m"], other.state["m"])
