"""Equality and order of optimizers."""

from __future__ import annotations

import copy
import io
import operator
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastadam
from fastadam import (
    Adam,
    AdamW,
    AMSBound,
    GradientMethod,
    Hyperparameter,
    Link,
    Optimizer,
    Parameter,
    UpdateRule,
)
from fastadam.comparison.compare import compare
from fastadam.update import order as module

Change = Callable[[Any], object]


class CountingRule(UpdateRule):
    """A rule whose state holds more than arrays."""

    def init_state(self, param: Any) -> None:
        self.state.update(momentum=np.zeros_like(param.array), count=0, scale=0.0, tag=["a"])

    def update_core(self, param: Any) -> None:
        self.state["momentum"] *= 0.5
        self.state["momentum"] += param.grad
        self.state["count"] += 1
        param.array -= self.hyperparam.lr * self.state["momentum"]


class SGD(GradientMethod):
    def __init__(self, lr: float = 0.1) -> None:
        super().__init__()
        self.hyperparam.lr = lr

    def create_update_rule(self) -> UpdateRule:
        return CountingRule(self.hyperparam)


class OtherRule(CountingRule):
    """The same by another name."""


def noop(*args: Any) -> None:
    """A hook."""


def make(kind: type = AMSBound, steps: int = 3, seed: int = 0, **arguments: Any) -> Any:
    """An optimizer of two parameters after some steps, always the same."""
    rng = np.random.default_rng(seed)
    params = {"l1": {"W": rng.normal(size=(2, 3)), "b": rng.normal(size=3).astype("f4")}}
    opt = kind(**arguments).setup(params)
    opt.new_epoch()
    for _ in range(steps):
        opt.apply_gradients({"l1": {k: rng.normal(size=p.shape) for k, p in params["l1"].items()}})
    return opt


def rule(opt: Any, path: str = "l1/W") -> Any:
    return opt.parameters[path].update_rule


def set_state(key: str, value: float) -> Change:
    def change(opt: Any) -> None:
        rule(opt).state[key][1, 2] = value

    return change


def set_rule(name: str, value: Any) -> Change:
    return lambda opt: setattr(rule(opt), name, value)


def set_own(name: str, value: Any) -> Change:
    return lambda opt: setattr(opt, name, value)


def master(value: float) -> Change:
    def change(opt: Any) -> None:
        rule(opt)._fp32_param = Parameter(np.full((2, 3), value, "f4"))

    return change


# Each changes one thing that counts.
CHANGES: dict[str, Change] = {
    "t": set_own("t", 9),
    "epoch": set_own("epoch", 9),
    "alpha": set_own("alpha", 0.5),
    "eps_mode": set_own("eps_mode", "paper"),
    "new hyperparameter": lambda opt: vars(opt.hyperparam).update(mine=1),
    "override": lambda opt: opt.set_hyperparam("l1/b", eta=0.5),
    "override with the common value": lambda opt: opt.set_hyperparam("l1/b", eta=opt.eta),
    "rule that follows nobody": lambda opt: setattr(
        rule(opt), "hyperparam", copy.deepcopy(rule(opt).hyperparam)
    ),
    "enabled": set_rule("enabled", False),
    "rule.t": set_rule("t", 77),
    "initial_alpha": set_rule("initial_alpha", 0.125),
    "rule's fp32": set_rule("_use_fp32_update", True),
    "master": master(1.0),
    "no rule": lambda opt: setattr(opt.parameters["l1/W"], "update_rule", None),
    "hook": lambda opt: opt.add_hook(noop),
    "rule's hook": lambda opt: rule(opt).add_hook(noop),
    "loss scale": set_own("_loss_scale", 128.0),
    "dynamic": set_own("_loss_scaling_is_dynamic", True),
    "fp32": set_own("_use_fp32_update", True),
    "on_nonfinite": set_own("on_nonfinite", "skip"),
    "m": set_state("m", 1e-30),
    "v": set_state("v", np.nan),
    "vhat": set_state("vhat", 3.0),
    "less state": lambda opt: rule(opt).state.pop("vhat"),
    "more state": lambda opt: rule(opt).state.update(extra=np.zeros(1)),
    "no state": set_rule("_state", None),
    "dtype of state": lambda opt: rule(opt).state.update(m=rule(opt).state["m"].astype("f4")),
    "shape of state": lambda opt: rule(opt).state.update(m=rule(opt).state["m"].reshape(3, 2)),
    "more parameters": lambda opt: opt.target["l1"].update(c=np.zeros(2)),
    "dtype": lambda opt: opt.target["l1"].update(W=opt.target["l1"]["W"].astype("f4")),
    "shape": lambda opt: opt.target["l1"].update(W=np.zeros((3, 2))),
    "sharing": lambda opt: opt.target.update(again=opt.target["l1"]["W"]),
}

# Each leaves an optimizer that is as good.
NEUTRAL: dict[str, Change] = {
    "nothing": lambda opt: None,
    "values of parameters": lambda opt: opt.target["l1"]["W"].fill(7),
    "numeric type": lambda opt: [setattr(opt, k, np.array(getattr(opt, k))) for k in ("eta",)],
    "flag as a number": set_own("amsgrad", 1),
    "leftovers of dynamic scaling": set_own("_loss_scaling_multiplier", 1.5),
    "layout of state": lambda opt: rule(opt).state.update(
        m=np.asfortranarray(rule(opt).state["m"])
    ),
    "order of the dict": lambda opt: opt.target["l1"].update(W=opt.target["l1"].pop("W")),
    "order of state": lambda opt: rule(opt).state.update(m=rule(opt).state.pop("m")),
    "gradient": lambda opt: setattr(opt.parameters["l1/W"], "grad", np.ones((2, 3))),
    "hook come and gone": lambda opt: (opt.add_hook(noop), opt.remove_hook("noop")),
}


@pytest.mark.parametrize("name", CHANGES)
def test_every_part_counts(name: str) -> None:
    a, b = make(), make()
    assert a == b
    CHANGES[name](b)
    assert a != b
    assert b != a
    assert not a == b  # noqa: SIM201
    CHANGES[name](a)
    if name != "rule that follows nobody":
        assert a == b


@pytest.mark.parametrize("name", NEUTRAL)
def test_the_rest_does_not_count(name: str) -> None:
    a, b = make(), make()
    NEUTRAL[name](b)
    assert a == b
    assert b == a
    assert not a != b  # noqa: SIM202


@pytest.mark.parametrize("name", [*CHANGES, *NEUTRAL])
def test_compare_agrees_with_equality(name: str) -> None:
    a, b = make(), make()
    {**CHANGES, **NEUTRAL}[name](b)
    found = [difference for difference in compare(a, b) if difference.what != "param"]
    assert bool(found) == (a != b)


def test_state_is_compared_bit_for_bit() -> None:
    a, b = make(), make()
    rule(a).state["m"][0, 0], rule(b).state["m"][0, 0] = 0.0, -0.0
    assert a != b
    rule(a).state["m"][0, 0], rule(b).state["m"][0, 0] = np.nan, -np.nan
    assert a == b
    rule(b).state["m"][0, 0] = 1.0
    assert a != b
    rule(a).state["m"][0, 0] = np.nextafter(1.0, 2)
    assert a != b


def test_masters_are_compared() -> None:
    a, b = make(), make()
    master(1.0)(a)
    master(1.0)(b)
    assert a == b
    rule(b)._fp32_param.array[0, 0] = np.nextafter(np.float32(1), np.float32(2))
    assert a != b


@pytest.mark.parametrize("name", ["multiplier", "isnan_ever"])
def test_dynamic_scaling_has_more_to_compare(name: str) -> None:
    a, b = make(), make()
    for opt in (a, b):
        opt._loss_scaling_is_dynamic = True
        opt._loss_scaling_multiplier, opt._loss_scaling_isnan_ever = 1.5, False
    assert a == b
    setattr(b, f"_loss_scaling_{name}", 1.25)
    assert a != b


def test_the_largest_scale_counts_under_dynamic_scaling() -> None:
    a, b = make(), make()
    for opt in (a, b):
        opt._loss_scaling_is_dynamic = True
    b._loss_scale_max = 3.0
    assert a != b


def test_hooks_count_by_name_timing_and_order() -> None:
    def with_hooks(*hooks: tuple[str, str], owner: Callable[[Any], Any]) -> Any:
        opt = make()
        for name, timing in hooks:
            owner(opt).add_hook(lambda *_: None, name, timing)
        return opt

    for owner in (lambda opt: opt, rule):
        first = with_hooks(("x", "pre"), ("y", "pre"), owner=owner)
        assert first == with_hooks(("x", "pre"), ("y", "pre"), owner=owner)
        assert first != with_hooks(("y", "pre"), ("x", "pre"), owner=owner)
        assert first != with_hooks(("x", "pre"), ("y", "post"), owner=owner)
        assert first != with_hooks(("x", "pre"), ("z", "pre"), owner=owner)


def test_classes_count() -> None:
    assert Adam() != AdamW()
    assert AdamW() != Adam()
    assert make(Adam) != make(AdamW)
    ours = make(SGD)
    other = make(SGD)
    rule(other).__class__ = OtherRule
    assert ours != other


def test_not_set_up() -> None:
    assert Adam() == Adam()
    assert Adam(alpha=0.5) != Adam()
    assert Adam() != Adam().setup({"w": np.ones(1)})
    assert Adam() != Adam().setup(Link())
    assert Adam().setup(Link()) == Adam().setup(Link())
    assert Optimizer() == Optimizer()


def test_paths_count() -> None:
    assert Adam().setup({"w": np.ones(1)}) != Adam().setup({"u": np.ones(1)})
    assert Adam().setup({"w": np.ones(1)}) == Adam().setup({"w": np.zeros(1)})
    link = Link()
    with link.init_scope():
        link.w = Parameter(np.ones(1))
    assert Adam().setup(link) == Adam().setup({"w": np.ones(1)})


def test_uninitialised_parameters() -> None:
    def lazy() -> Any:
        link = Link()
        with link.init_scope():
            link.w = Parameter(0)
        return Adam().setup(link)

    a, b = lazy(), lazy()
    assert a == b
    assert not a < b
    b.t = 1
    assert a < b
    b.t = 0
    b.target.w.initialize(3)
    assert a != b


def test_user_rules_and_their_state() -> None:
    a, b = make(SGD), make(SGD)
    assert a == b
    rule(b).state["count"] += 1
    assert a != b
    rule(b).state["count"] -= 1
    rule(b).state["scale"] = -0.0
    assert a != b
    rule(b).state["scale"] = 0.0
    rule(b).state["tag"] = ["b"]
    assert a != b


def test_a_rule_beside_the_library() -> None:
    """A rule needs no more than `update`."""

    class Bare:
        def __init__(self) -> None:
            self.calls = 0

        def update(self, param: Any) -> None:
            self.calls += 1

    class Other(Bare):
        pass

    opts = [Adam().setup({"w": np.ones(1)}) for _ in range(3)]
    for opt, kind in zip(opts, (Bare, Bare, Other), strict=True):
        opt.parameters["w"].update_rule = kind()
    assert opts[0] == opts[1] != opts[2]


ELEMENTS = ("m", "v", "vhat")


@pytest.mark.parametrize("name", [name for name in CHANGES if name not in ELEMENTS])
def test_arrays_are_looked_at_last(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = make(), make()
    CHANGES[name](b)

    def refuse(*args: Any) -> bool:
        raise AssertionError("an array was compared")

    monkeypatch.setattr(module, "same_bits", refuse)
    assert a != b


def test_parameters_values_are_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = make(steps=0), make(steps=0)
    monkeypatch.setattr(module, "same_bits", lambda *args: pytest.fail("an array was compared"))
    assert a == b


def test_an_optimizer_equals_itself_without_a_look(monkeypatch: pytest.MonkeyPatch) -> None:
    opt = make()
    monkeypatch.setattr(module, "describe", lambda *args: pytest.fail("it was looked at"))
    assert opt == opt
    assert not opt != opt  # noqa: SIM202


def test_optimizers_of_other_classes_differ_without_a_look(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = make(Adam), make(AdamW)
    monkeypatch.setattr(module, "describe", lambda *args: pytest.fail("it was looked at"))
    assert a != b


def test_a_rule_that_follows_nobody_differs_even_if_it_says_the_same() -> None:
    a, b = make(), make()
    for name, value in a.hyperparam.get_dict().items():
        setattr(rule(a).hyperparam, name, value)
    rule(b).hyperparam = Hyperparameter()
    for name, value in a.hyperparam.get_dict().items():
        setattr(rule(b).hyperparam, name, value)
    assert a != b
    assert [d.what for d in compare(a, b)] == ["rule.follows the optimizer"]


def test_the_nearest_override_counts() -> None:
    a, b = make(), make()
    for opt, (far, near) in ((a, (0.5, 0.25)), (b, (0.125, 0.25))):
        middle = Hyperparameter(opt.hyperparam)
        middle.eta = far
        rule(opt).hyperparam = Hyperparameter(middle)
        rule(opt).hyperparam.eta = near
    assert a == b
    rule(b).hyperparam.eta = 0.75
    assert a != b


@pytest.mark.parametrize("other", [None, 3, "adam", {}, object(), Adam().hyperparam])
def test_other_types(other: Any) -> None:
    opt = make()
    assert opt.__eq__(other) is NotImplemented
    assert opt != other
    assert not opt == other  # noqa: SIM201
    for compared in (operator.lt, operator.le, operator.gt, operator.ge):
        with pytest.raises(TypeError):
            compared(opt, other)
        with pytest.raises(TypeError):
            compared(other, opt)


def test_other_types_may_know_better() -> None:
    class Everything:
        def __eq__(self, other: object) -> bool:
            return True

        def __gt__(self, other: object) -> bool:
            return True

    assert make() == Everything()
    assert make() < Everything()


# Order


def at(epoch: int, t: int, kind: type = AMSBound, **arguments: Any) -> Any:
    opt = make(kind, steps=1, **arguments)
    opt.epoch, opt.t = epoch, t
    return opt


def relations(a: Any, b: Any) -> tuple[bool, bool, bool, bool]:
    return a < b, a <= b, a > b, a >= b


@pytest.mark.parametrize(
    ("earlier", "later"), [((0, 5), (0, 6)), ((1, 5), (2, 5)), ((1, 9), (2, 3))]
)
@pytest.mark.parametrize("kind", [AMSBound, SGD])
def test_order_is_by_epoch_then_t(earlier: Any, later: Any, kind: type) -> None:
    a, b = at(*earlier, kind), at(*later, kind)
    assert relations(a, b) == (True, True, False, False)
    assert relations(b, a) == (False, False, True, True)


def test_equal_optimizers_are_less_or_equal() -> None:
    assert relations(make(), make()) == (False, True, False, True)


def test_optimizers_at_one_point_that_differ_are_not_ordered() -> None:
    assert relations(make(), make(seed=1)) == (False,) * 4


@pytest.mark.parametrize("name", ["alpha", "override", "hook", "m", "enabled", "rule.t", "dtype"])
def test_what_does_not_count_for_order(name: str) -> None:
    a, b = at(0, 5), at(0, 6)
    CHANGES[name](a)
    assert relations(a, b) == (True, True, False, False)


@pytest.mark.parametrize(
    "change",
    [
        CHANGES["more parameters"],
        CHANGES["shape"],
        set_own("amsgrad", False),
        set_own("adabound", False),
    ],
)
def test_what_is_not_of_one_training_is_not_ordered(change: Change) -> None:
    a, b = at(0, 5), at(0, 6)
    change(a)
    assert relations(a, b) == relations(b, a) == (False,) * 4


def test_other_classes_are_not_ordered() -> None:
    assert relations(at(0, 5, Adam), at(0, 6, AdamW)) == (False,) * 4
    assert relations(at(0, 5, AdamW), at(0, 6, Adam)) == (False,) * 4


def test_other_paths_are_not_ordered() -> None:
    a, b = (Adam().setup({name: np.ones(1)}) for name in "uw")
    b.t = 5
    assert relations(a, b) == (False,) * 4


# Hash


def test_hash_is_the_class() -> None:
    opt = make()
    before = hash(opt)
    opt.alpha = 0.5
    opt.new_epoch()
    assert hash(opt) == before == hash(make(seed=3)) == hash(AMSBound())
    assert len({hash(AMSBound()), hash(Adam()), hash(SGD())}) == 3


def test_sets_and_dicts_stay_right_while_optimizers_change() -> None:
    a, b, c = make(), make(), make(seed=1)
    names = {a: "a", c: "c"}
    assert names[b] == "a"
    assert len({a, b, c}) == 2
    b.alpha = 0.5
    assert b not in names
    assert len({a, b, c}) == 3
    a.alpha = 0.5
    assert names[a] == names[b] == "a"
    c.alpha = 0.25
    assert names[c] == "c"
    assert [c, a].index(b) == 1


@pytest.mark.parametrize("kind", [Adam, AMSBound, SGD])
def test_copies_are_equal(kind: type) -> None:
    opt = make(kind)
    opt.add_hook(noop)
    opt.set_hyperparam("l1/W", **{next(iter(opt.hyperparam.get_dict())): 0.03125})
    for other in (copy.deepcopy(opt), pickle.loads(pickle.dumps(opt))):
        assert other is not opt
        assert other == opt
        other.apply_gradients({"l1": {"W": np.ones((2, 3)), "b": np.ones(3)}})
        assert other != opt
        assert opt < other


def half(steps: int, **scaling: Any) -> Any:
    """An optimizer of a float16 parameter with a float32 master."""
    opt = Adam(alpha=1e-4).setup({"w": np.ones(3, "f2")})
    opt.use_fp32_update()
    opt.loss_scaling(**scaling)
    for _ in range(steps):
        opt.apply_gradients({"w": np.full(3, 0.5, "f4")})
    return opt


def test_mixed_precision() -> None:
    assert half(2) == half(2)
    assert half(2) != half(2, interval=7)
    assert half(2) != half(2, scale=4.0)
    found = {d.what: (d.a, d.b) for d in compare(half(2), half(2, scale=4.0))}
    assert found["loss_scaling.dynamic"] == (True, False)
    assert half(2) < half(3)
    other = half(2)
    other.use_fp32_update(False)
    assert half(2) != other
    other = half(2)
    rule(other, "w")._fp32_param.array[1] = np.nextafter(np.float32(1), np.float32(0))
    assert half(2) != other
    for last in (copy.deepcopy(half(2)), pickle.loads(pickle.dumps(half(2)))):
        assert last == half(2)


def test_a_loaded_optimizer_equals_the_saved_one() -> None:
    opt = make()
    file = io.BytesIO()
    fastadam.serializers.save_npz(file, opt)
    file.seek(0)
    other = make(steps=0)
    fastadam.serializers.load_npz(file, other)
    assert other == opt


# Properties

PROGRAMS = st.lists(
    st.sampled_from(["step", "zero step", "epoch", "alpha", "override", "hook", "disable"]),
    max_size=4,
)


def run(program: list[str], kind: type) -> Any:
    """An optimizer that has lived through a program."""
    opt = make(kind, steps=0)
    for n, word in enumerate(program):
        if word.endswith("step"):
            size = 0.0 if word.startswith("zero") else 1.0
            opt.apply_gradients({"l1": {"W": np.full((2, 3), size), "b": np.full(3, size)}})
        elif word == "epoch":
            opt.new_epoch()
        elif word == "alpha":
            opt.hyperparam.alpha = 0.25
        elif word == "override":
            rule(opt).hyperparam.eta = 0.5
        elif word == "hook":
            opt.add_hook(noop, name=f"hook {n}")
        else:
            rule(opt).enabled = False
    return opt


@settings(max_examples=200, deadline=None)
@given(PROGRAMS, PROGRAMS, PROGRAMS, st.lists(st.sampled_from([Adam, SGD]), min_size=3, max_size=3))
def test_comparisons_are_consistent(
    first: list[str], second: list[str], third: list[str], kinds: list[type]
) -> None:
    a, b, c = (run(*made) for made in zip((first, second, third), kinds, strict=True))
    assert a == run(first, kinds[0])
    assert (a == b) == (b == a) == (not a != b)  # noqa: SIM202
    assert (a == b) == (not [d for d in compare(a, b) if d.what != "param"])
    if a == b:
        assert hash(a) == hash(b)
    assert not (a < b and b < a)
    assert not (a < b and a == b)
    assert (a <= b) == (a < b or a == b)
    assert (a > b, a >= b) == (b < a, b <= a)
    if a <= b and b <= a:
        assert a == b
    if a < b and b < c:
        assert a < c
    if a == b and b == c:
        assert a == c
    assert copy.deepcopy(a) == a
