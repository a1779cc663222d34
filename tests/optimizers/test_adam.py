"""Adam and its variants: arguments, aliases, numbers in float64, names typed in vain."""

from __future__ import annotations

import inspect
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastadam
from fastadam import AdaBound, Adam, AdamRule, AdamW, AMSBound, AMSGrad, Parameter, optimizers

NAMES = [
    "alpha",
    "beta1",
    "beta2",
    "eps",
    "eta",
    "weight_decay_rate",
    "amsgrad",
    "adabound",
    "final_lr",
    "gamma",
]
DEFAULTS: dict[str, Any] = dict(
    zip(NAMES, [0.001, 0.9, 0.999, 1e-8, 1.0, 0, False, False, 0.1, 0.001], strict=True)
)
MODES = {"eps_mode": "hat", "decay_mode": "eta"}
BOUND_ORDER = ["alpha", "beta1", "beta2", "final_lr", "gamma", "eps", "eta"]
ORDERS: dict[type[Adam], list[str]] = {
    Adam: NAMES,
    AdamW: NAMES[:6],
    AMSGrad: NAMES[:5],
    AdaBound: BOUND_ORDER,
    AMSBound: BOUND_ORDER,
}
KEYWORDS: dict[type[Adam], list[str]] = {
    Adam: ["eps_mode", "decay_mode", "missing_gradients"],
    AdamW: ["eps_mode", "decay_mode", "missing_gradients"],
    AMSGrad: ["eps_mode", "missing_gradients"],
    AdaBound: ["eps_mode", "missing_gradients"],
    AMSBound: ["eps_mode", "missing_gradients"],
}
FLAGS: dict[type[Adam], tuple[bool, bool]] = {
    Adam: (False, False),
    AdamW: (False, False),
    AMSGrad: (True, False),
    AdaBound: (False, True),
    AMSBound: (True, True),
}
every_kind = pytest.mark.parametrize("kind", ORDERS, ids=lambda kind: kind.__name__)

# away from every default
ODD: dict[str, Any] = {
    "alpha": 0.03,
    "beta1": 0.8,
    "beta2": 0.95,
    "eps": 1e-6,
    "eta": 0.7,
    "weight_decay_rate": 0.02,
    "final_lr": 0.3,
    "gamma": 0.05,
}


def values(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(n)


class Formula:
    """The formulas of the documents, in float64 array operations, one step at a time."""

    def __init__(self, p: np.ndarray, **arguments: Any) -> None:
        self.__dict__.update({**DEFAULTS, **MODES, **arguments})
        self.p = p.copy()
        self.m, self.v, self.vhat = np.zeros_like(p), np.zeros_like(p), np.zeros_like(p)
        self.t = 0
        self.initial_alpha = self.alpha

    alpha: float
    beta1: float
    beta2: float
    eps: float
    eta: float
    weight_decay_rate: float
    amsgrad: bool
    adabound: bool
    final_lr: float
    gamma: float
    eps_mode: str
    decay_mode: str

    @property
    def alpha_t(self) -> float:
        return self.alpha * math.sqrt(1 - self.beta2**self.t) / (1 - self.beta1**self.t)

    @property
    def bounds(self) -> tuple[float, float]:
        final = self.final_lr * self.alpha / self.initial_alpha
        return (
            final * (1 - 1 / (self.gamma * self.t + 1)),
            final * (1 + 1 / (self.gamma * self.t)),
        )

    def step(self, g: np.ndarray) -> None:
        self.t += 1
        self.m = self.m + (1 - self.beta1) * (g - self.m)
        self.v = self.v + (1 - self.beta2) * (g * g - self.v)
        self.vhat = np.maximum(self.vhat, self.v) if self.amsgrad else self.v
        eps, decay = self.eps, self.eta * self.weight_decay_rate
        if self.eps_mode == "paper":
            eps = self.eps * math.sqrt(1 - self.beta2**self.t)
        if self.decay_mode == "alpha":
            decay = decay * self.alpha
        step = self.alpha_t / (np.sqrt(self.vhat) + eps)
        if self.adabound:
            step = np.clip(step, *self.bounds)
        self.p = (1 - decay) * self.p - self.eta * (step * self.m)

    def check(self, rule: AdamRule, p: np.ndarray) -> None:
        np.testing.assert_array_equal(p, self.p)
        assert rule.state is not None
        np.testing.assert_array_equal(rule.state["m"], self.m)
        np.testing.assert_array_equal(rule.state["v"], self.v)
        assert rule.t == self.t
        assert rule.alpha_t == self.alpha_t
        if self.amsgrad:
            np.testing.assert_array_equal(rule.state["vhat"], self.vhat)
        if self.adabound:
            assert rule.bounds == self.bounds


class TestArguments:
    @every_kind
    def test_signature(self, kind: type[Adam]) -> None:
        parameters = list(inspect.signature(kind).parameters.values())
        positional = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
        assert positional == ORDERS[kind]
        assert [p.name for p in parameters if p.kind is p.KEYWORD_ONLY] == KEYWORDS[kind]
        assert len(parameters) == len(ORDERS[kind]) + len(KEYWORDS[kind])
        for p in parameters:
            assert p.default == {**DEFAULTS, **MODES, "missing_gradients": "zeros"}[p.name]

    @every_kind
    def test_defaults(self, kind: type[Adam]) -> None:
        opt = kind()
        amsgrad, adabound = FLAGS[kind]
        expected = {**DEFAULTS, "amsgrad": amsgrad, "adabound": adabound}
        # the modes are there when somebody sets them: by default the bag is Chainer's
        assert opt.hyperparam.get_dict() == expected
        assert {name: getattr(opt, name) for name in expected} == expected
        assert {name: getattr(opt, name) for name in MODES} == MODES

    @every_kind
    def test_positional_order(self, kind: type[Adam]) -> None:
        given = [0.5 - i / 64 for i in range(len(ORDERS[kind]))]
        opt = kind(*given)
        for name, value in zip(ORDERS[kind], given, strict=True):
            assert getattr(opt, name) == value
        for name in set(NAMES) - set(ORDERS[kind]) - {"amsgrad", "adabound"}:
            assert getattr(opt, name) == DEFAULTS[name]
        if kind is not Adam:
            assert (opt.amsgrad, opt.adabound) == FLAGS[kind]
        with pytest.raises(TypeError):
            kind(*given, "hat")

    @every_kind
    def test_keywords(self, kind: type[Adam]) -> None:
        given = {name: ODD.get(name, True) for name in ORDERS[kind]}
        for name in KEYWORDS[kind]:
            others = {"eps_mode": "paper", "decay_mode": "alpha", "missing_gradients": "skip"}
            given[name] = others[name]
        opt = kind(**given)
        assert {name: getattr(opt, name) for name in given} == given

    @pytest.mark.parametrize(
        ("kind", "name"),
        [
            (AMSGrad, "weight_decay_rate"),
            (AMSGrad, "amsgrad"),
            (AMSGrad, "decay_mode"),
            (AdamW, "amsgrad"),
            (AdamW, "final_lr"),
            (AdaBound, "weight_decay_rate"),
            (AMSBound, "adabound"),
            (AMSBound, "decay_mode"),
            (Adam, "momentum"),
        ],
    )
    def test_what_a_variant_has_not(self, kind: type[Adam], name: str) -> None:
        with pytest.raises(TypeError, match=name):
            kind(**{name: 0.5})

    @pytest.mark.parametrize("name", ["eps_mode", "decay_mode"])
    def test_unknown_mode(self, name: str) -> None:
        with pytest.raises(ValueError, match=f"{name}.*'torch'"):
            Adam(**{name: "torch"})

    @pytest.mark.parametrize("name", NAMES)
    @pytest.mark.parametrize("bad", ["0.x", "0.1", b"1", None, [1.0], object(), np.zeros(3), {}])
    def test_hyperparameter_that_is_no_number(self, name: str, bad: Any) -> None:
        with pytest.raises(TypeError, match=name):
            Adam(**{name: bad})

    @pytest.mark.parametrize("bad", ["0.x", "0.1", b"1", None])
    def test_an_attribute_that_is_no_number(self, bad: Any) -> None:
        opt = Adam().setup(np.ones(2))
        opt.apply_gradients(np.ones(2))
        before = opt.target.copy()
        with pytest.raises(TypeError, match="alpha must be a number"):
            opt.alpha = bad
        vars(opt.hyperparam)["alpha"] = bad
        with pytest.raises(TypeError, match="alpha must be a number"):
            opt.apply_gradients(np.ones(2))
        assert opt.t == 1
        assert np.array_equal(opt.target, before)

    def test_parameters_in_place_of_alpha(self) -> None:
        with pytest.raises(TypeError, match=r"setup\(params\)"):
            Adam([np.zeros(3)])

    @pytest.mark.parametrize("make", [np.float32, np.float64, np.array, np.float16, int])
    def test_numbers_of_any_type_act_as_their_float(self, make: Any) -> None:
        given = {"alpha": 0.5, "beta1": 0.25, "eta": 2.0, "weight_decay_rate": 0.125}
        if make is int:
            given = {"alpha": 2, "beta1": 0, "eta": 1, "weight_decay_rate": 0}
        for dtype in ("f4", "f8"):
            one, two = values(5, 1).astype(dtype), values(5, 1).astype(dtype)
            opts = [
                Adam(**given).setup(one),
                Adam(**{name: make(value) for name, value in given.items()}).setup(two),
            ]
            for opt in opts:
                opt.apply_gradients(values(5, 2))
                opt.apply_gradients(values(5, 3))
            np.testing.assert_array_equal(one, two)
            assert two.dtype == dtype


class TestAliases:
    @pytest.mark.parametrize("name", [*NAMES, *MODES])
    def test_get_and_set(self, name: str) -> None:
        opt = Adam()
        marker, other = {
            "eps_mode": ("paper", "hat"),
            "decay_mode": ("alpha", "eta"),
        }.get(name, (np.float64(0.25), np.float64(0.5)))
        setattr(opt, name, marker)
        assert getattr(opt.hyperparam, name) is marker
        setattr(opt.hyperparam, name, other)
        assert getattr(opt, name) is other
        assert name not in opt.__dict__
        assert getattr(Adam, name).__doc__ == f"Alias to ``self.hyperparam.{name}``"

    def test_setting_has_effect_on_the_next_step(self) -> None:
        p = values(7, 1)
        formula = Formula(p, **ODD)
        opt = Adam(**ODD).setup(p)
        changes: list[dict[str, Any]] = [
            {},
            {"alpha": 0.5, "eta": 0.25},
            {"beta1": 0.5, "beta2": 0.75},
            {"eps": 0.125},
            {"weight_decay_rate": 0.25},
            {"eps_mode": "paper"},
            {"decay_mode": "alpha"},
        ]
        for seed, change in enumerate(changes):
            for name, value in change.items():
                setattr(opt, name, value)
                setattr(formula, name, value)
            g = values(7, 10 + seed)
            opt.apply_gradients(g)
            formula.step(g)
            formula.check(opt.parameters["param"].update_rule, p)
            assert opt.alpha_t == formula.alpha_t


class TestAlphaT:
    def test_before_the_first_step(self) -> None:
        opt = Adam().setup(np.zeros(1))
        for owner in (opt, AdamRule(), Adam()):
            with pytest.raises(RuntimeError, match="update"):
                owner.alpha_t  # noqa: B018

    def test_cannot_be_set(self) -> None:
        for owner in (Adam(), AdamRule()):
            with pytest.raises(AttributeError):
                owner.alpha_t = 1.0

    def test_optimizer_uses_its_t_and_the_rule_its_own(self) -> None:
        opt = Adam(**ODD).setup({"a": np.zeros(1), "b": np.zeros(1)})
        rule = opt.parameters["b"].update_rule
        rule.enabled = False
        for _ in range(3):
            opt.apply_gradients({"a": np.ones(1), "b": np.ones(1)})
        rule.enabled = True
        opt.apply_gradients({"a": np.ones(1), "b": np.ones(1)})
        assert opt.alpha_t == 0.03 * math.sqrt(1 - 0.95**4) / (1 - 0.8**4)
        assert opt.parameters["a"].update_rule.alpha_t == opt.alpha_t
        assert rule.alpha_t == 0.03 * math.sqrt(1 - 0.95**1) / (1 - 0.8**1)

    def test_follows_the_current_numbers(self) -> None:
        opt = Adam().setup(np.zeros(1))
        opt.apply_gradients(np.ones(1))
        opt.alpha, opt.beta1, opt.beta2 = 0.5, 0.75, 0.25
        assert opt.alpha_t == 0.5 * math.sqrt(0.75) / 0.25

    def test_lr_is_deprecated(self) -> None:
        opt = Adam(alpha=0.25).setup(np.zeros(1))
        opt.apply_gradients(np.ones(1))
        for owner in (opt, opt.parameters["param"].update_rule):
            with pytest.warns(DeprecationWarning, match="alpha_t") as caught:
                lr = owner.lr
            assert len(caught) == 1
            assert caught[0].filename == __file__
            assert lr == opt.alpha_t == 0.25 * math.sqrt(1 - 0.999) / (1 - 0.9)

    @pytest.mark.parametrize("owner", [Adam(), AMSBound(), AdamRule()])
    def test_lr_cannot_be_set(self, owner: Any) -> None:
        with pytest.raises(AttributeError, match="alpha" if isinstance(owner, Adam) else "lr"):
            owner.lr = 0.1


class TestBounds:
    def test_before_the_first_step(self) -> None:
        with pytest.raises(RuntimeError, match="update"):
            AdamRule(adabound=True).bounds  # noqa: B018

    def test_follow_a_schedule_of_alpha(self) -> None:
        opt = AMSBound(alpha=0.5, final_lr=0.25, gamma=0.125).setup(np.zeros(2))
        rule = opt.parameters["param"].update_rule
        assert rule.initial_alpha == 0.5
        opt.apply_gradients(np.ones(2))
        assert rule.bounds == (0.25 * (1 - 1 / 1.125), 0.25 * (1 + 1 / 0.125))
        opt.alpha = 0.125
        opt.apply_gradients(np.ones(2))
        assert rule.bounds == (0.0625 * (1 - 1 / 1.25), 0.0625 * (1 + 1 / 0.25))

    def test_close_in_on_final_lr(self) -> None:
        """At the end the step is that of gradient descent with momentum at final_lr."""
        w = np.array([0.5, -3.0])
        opt = AdaBound(alpha=0.01, final_lr=0.25, gamma=1e6, beta1=0).setup(w)
        for _ in range(1000):
            before = w.copy()
            opt.apply_gradients(np.array([1.0, -1e-3]))
        np.testing.assert_allclose(w, before - 0.25 * np.array([1.0, -1e-3]), rtol=1e-8)

    def test_rules_that_began_at_different_alphas(self) -> None:
        """They are at the same step with the same numbers, but not with the same bounds."""
        tree = {"old": values(5, 1)}
        opt = Adam(**ODD, adabound=True).setup(tree)
        opt.parameters["old"].update_rule.enabled = False
        opt.apply_gradients({"old": None})
        opt.alpha = 0.5
        tree["new"] = values(5, 1)
        formulas = {key: Formula(array, **ODD, adabound=True) for key, array in tree.items()}
        opt.parameters["old"].update_rule.enabled = True
        for key, formula in formulas.items():
            formula.alpha = 0.5
            formula.initial_alpha = {"old": 0.03, "new": 0.5}[key]
        for seed in range(4):
            g = values(5, 40 + seed) / 100
            opt.apply_gradients({"old": g, "new": g})
            for key, formula in formulas.items():
                formula.step(g)
                formula.check(opt.parameters[key].update_rule, tree[key])
        assert not np.array_equal(tree["old"], tree["new"])

    def test_only_rules_made_with_adabound_have_an_initial_alpha(self) -> None:
        assert not hasattr(AdamRule(alpha=0.5), "initial_alpha")
        assert AdamRule(alpha=0.5, adabound=True).initial_alpha == 0.5


VARIANTS: dict[str, dict[str, Any]] = {
    "adam": {},
    "amsgrad": {"amsgrad": True},
    "adabound": {"adabound": True},
    "amsbound": {"amsgrad": True, "adabound": True},
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("eps_mode", ["hat", "paper"])
@pytest.mark.parametrize("decay_mode", ["eta", "alpha"])
@pytest.mark.parametrize("single", [False, True])
def test_formulas(variant: str, eps_mode: str, decay_mode: str, single: bool) -> None:
    arguments = {**ODD, **VARIANTS[variant], "eps": 1e-2, "eps_mode": eps_mode}
    arguments["decay_mode"] = decay_mode
    p = values(37, 1)
    formula = Formula(p, **arguments)
    opt = Adam(**arguments).setup(p)
    rule = opt.parameters["param"].update_rule
    if single:
        rule.add_hook(lambda rule, param: None, "hook")
    for step in range(30):
        g = values(37, 50 + step) * 10.0 ** (step % 5 - 2)
        if step == 15:
            opt.alpha = formula.alpha = 0.01
        opt.apply_gradients(g)
        formula.step(g)
        formula.check(rule, p)


@pytest.mark.parametrize("name", ["eps_mode", "decay_mode"])
def test_the_modes_make_a_difference(name: str) -> None:
    results = []
    for mode in {"eps_mode": ("hat", "paper"), "decay_mode": ("eta", "alpha")}[name]:
        p = np.ones(3)
        Adam(**{**ODD, name: mode}).setup(p).apply_gradients(np.full(3, 1e-3))
        results.append(p)
    assert not np.array_equal(*results)


def test_variants_are_adam_with_flags() -> None:
    common = {"alpha": 0.02, "beta1": 0.7, "beta2": 0.9, "eps": 1e-5, "eta": 0.8}
    bound = {"final_lr": 0.05, "gamma": 0.1}
    pairs: list[tuple[Adam, Adam]] = [
        (AdamW(**common, weight_decay_rate=0.01), Adam(**common, weight_decay_rate=0.01)),
        (AMSGrad(**common), Adam(**common, amsgrad=True)),
        (AdaBound(**common, **bound), Adam(**common, **bound, adabound=True)),
        (AMSBound(**common, **bound), Adam(**common, **bound, adabound=True, amsgrad=True)),
    ]
    results = []
    for pair in pairs:
        arrays = [values(9, 1), values(9, 1)]
        for opt, array in zip(pair, arrays, strict=True):
            opt.setup(array)
            for seed in range(5):
                opt.apply_gradients(values(9, 5 + seed) / (1 + seed))
        np.testing.assert_array_equal(*arrays)
        results.append(arrays[0].tobytes())
    assert len(set(results)) == 4


class TestSwitches:
    @pytest.mark.parametrize("single", [False, True])
    def test_amsgrad_switched_on_late(self, single: bool) -> None:
        p = values(9, 1)
        formula, opt = Formula(p, **ODD), Adam(**ODD).setup(p)
        rule = opt.parameters["param"].update_rule
        if single:
            rule.add_hook(lambda rule, param: None, "hook")
        for step in range(12):
            if step == 4:
                opt.amsgrad = formula.amsgrad = True
                formula.vhat = np.zeros(9)  # the maximum begins with the next v
            g = values(9, 20 + step) / (1 + step) ** 2
            opt.apply_gradients(g)
            formula.step(g)
            formula.check(rule, p)
            assert ("vhat" in rule.state) == (step >= 4)
        assert np.any(formula.vhat > formula.v)

    def test_amsgrad_switched_off_again(self) -> None:
        p = values(9, 1)
        formula, opt = Formula(p, **ODD, amsgrad=True), Adam(**ODD, amsgrad=True).setup(p)
        rule = opt.parameters["param"].update_rule
        for step in range(6):
            kept = rule.state and rule.state["vhat"].copy()
            if step == 3:
                opt.amsgrad = formula.amsgrad = False
            g = values(9, 20 + step) / (1 + step) ** 2
            opt.apply_gradients(g)
            formula.step(g)
            np.testing.assert_array_equal(p, formula.p)
            if step >= 3:
                np.testing.assert_array_equal(rule.state["vhat"], kept)

    @pytest.mark.parametrize("single", [False, True])
    def test_adabound_switched_on_late(self, single: bool) -> None:
        p = values(9, 1)
        formula, opt = Formula(p, **ODD), Adam(**ODD).setup(p)
        rule = opt.parameters["param"].update_rule
        if single:
            rule.add_hook(lambda rule, param: None, "hook")
        for step in range(12):
            if step == 4:
                opt.alpha = formula.alpha = 0.02
                opt.adabound = formula.adabound = True
                formula.initial_alpha = 0.02  # the alpha of that moment
            if step == 8:
                opt.alpha = formula.alpha = 0.01
            g = values(9, 20 + step) / (1 + step) ** 2
            opt.apply_gradients(g)
            formula.step(g)
            formula.check(rule, p)
        assert rule.initial_alpha == 0.02

    def test_both_for_one_parameter(self) -> None:
        tree = {"a": values(5, 1), "b": values(5, 1)}
        formulas = {key: Formula(array, **ODD) for key, array in tree.items()}
        opt = Adam(**ODD).setup(tree)
        for step in range(6):
            if step == 3:
                opt.set_hyperparam("b", amsgrad=True, adabound=True)
                formulas["b"].amsgrad = formulas["b"].adabound = True
                formulas["b"].vhat = np.zeros(5)
            g = values(5, 20 + step) / (1 + step)
            opt.apply_gradients({"a": g, "b": g})
            for key, formula in formulas.items():
                formula.step(g)
                formula.check(opt.parameters[key].update_rule, tree[key])

    @pytest.mark.parametrize("single", [False, True])
    def test_warm_up_from_alpha_zero(self, single: bool) -> None:
        """The bounds are measured against the first alpha that is not 0."""
        arguments = {**ODD, "alpha": 0, "adabound": True, "weight_decay_rate": 0.0}
        p = values(9, 1)
        start = p.copy()
        opt = Adam(**arguments).setup(p)
        rule = opt.parameters["param"].update_rule
        if single:
            rule.add_hook(lambda rule, param: None, "hook")
        gs = [values(9, 20 + step) for step in range(5)]
        for g in gs[:2]:
            opt.apply_gradients(g)
            assert rule.bounds == (0.0, 0.0)
        np.testing.assert_array_equal(p, start)
        formula = Formula(start, **{**arguments, "alpha": 0.02, "eta": 0.0})
        for g in gs[:2]:
            formula.step(g)  # with eta = 0: moments only
        formula.eta, opt.alpha = 0.7, 0.02
        for step, g in enumerate(gs[2:]):
            if step == 2:
                opt.alpha = formula.alpha = 0.04
            opt.apply_gradients(g)
            formula.step(g)
            formula.check(rule, p)
        assert rule.initial_alpha == 0.02
        assert not np.array_equal(p, start)

    @pytest.mark.parametrize("single", [False, True])
    def test_gamma_zero_is_no_bounds(self, single: bool) -> None:
        one, two = values(9, 1), values(9, 1)
        bounded = AdaBound(0.02, gamma=0, beta1=0.8).setup(one)
        plain = Adam(0.02, beta1=0.8).setup(two)
        if single:
            bounded.parameters["param"].update_rule.add_hook(lambda rule, param: None, "hook")
        for seed in range(5):
            for opt in (bounded, plain):
                opt.apply_gradients(values(9, seed) * 10.0 ** (-3 * seed))
        np.testing.assert_array_equal(one, two)
        assert bounded.parameters["param"].update_rule.bounds == (0.0, math.inf)

    @pytest.mark.parametrize("single", [False, True])
    @pytest.mark.parametrize("steps", [0, 2])
    def test_beta1_of_one_is_refused_and_changes_nothing(self, single: bool, steps: int) -> None:
        p = values(9, 1)
        formula, opt = Formula(p, **ODD), Adam(**ODD).setup(p)
        rule = opt.parameters["param"].update_rule
        if single:
            rule.add_hook(lambda rule, param: None, "hook")
        for seed in range(steps):
            opt.apply_gradients(values(9, seed))
            formula.step(values(9, seed))
        with pytest.raises(ValueError, match="beta1 must be at least 0 and below 1, not 1"):
            opt.beta1 = 1.0
        assert opt.beta1 == 0.8
        vars(opt.hyperparam)["beta1"] = 1.0
        with pytest.raises(ValueError, match=r"parameter 'param': beta1 must be .* below 1"):
            opt.apply_gradients(values(9, 5))
        assert (opt.t, rule.t) == (steps, steps)
        opt.beta1 = 0.8
        opt.apply_gradients(values(9, 6))
        formula.step(values(9, 6))
        formula.check(rule, p)

    @pytest.mark.parametrize("name", ["eps_mode", "decay_mode"])
    def test_unknown_mode_set_later_is_refused(self, name: str) -> None:
        p = np.ones(3)
        opt = Adam().setup(p)
        with pytest.raises(ValueError, match=name):
            setattr(opt, name, "torch")
        vars(opt.hyperparam)[name] = "torch"
        with pytest.raises(ValueError, match=name):
            opt.apply_gradients(np.ones(3))
        np.testing.assert_array_equal(p, np.ones(3))
        assert opt.t == 0

    @pytest.mark.parametrize(("dtype", "eps"), [("f4", 1e-50), ("f4", 1e-40)])
    def test_eps_that_would_be_zero_names_the_parameter(self, dtype: str, eps: float) -> None:
        tree = {"fine": np.ones(3), "w": np.ones(3, dtype)}
        opt = Adam(eps=eps).setup(tree)
        with pytest.raises(ValueError, match=r"'w'.*eps.*float32"):
            opt.apply_gradients({"fine": np.ones(3), "w": np.ones(3)})
        np.testing.assert_array_equal(tree["fine"], np.ones(3))
        assert opt.t == 0

    def test_eps_of_zero_is_allowed(self) -> None:
        p = np.ones(3, "f4")
        opt = Adam(alpha=0.25, eps=0).setup(p)
        opt.apply_gradients(np.array([1e-3, 1.0, 1e3]))
        np.testing.assert_allclose(p, 0.75, rtol=1e-6)


class TestOverrides:
    @pytest.mark.parametrize(
        "override",
        [
            {"alpha": 0.5},
            {"beta1": 0.25, "beta2": 0.5},
            {"eps": 0.125},
            {"eta": 2.0},
            {"weight_decay_rate": 0.25},
            {"eps_mode": "paper"},
            {"decay_mode": "alpha"},
            {"final_lr": 0.01, "gamma": 2.0},
            {"amsgrad": False},
            {"adabound": False},
        ],
    )
    def test_each_hyperparameter(self, override: dict[str, Any]) -> None:
        arguments = {**ODD, "amsgrad": True, "adabound": True}
        tree = {"a": values(8, 1), "b": values(8, 1), "c": values(8, 1)}
        formulas = {key: Formula(array, **arguments) for key, array in tree.items()}
        opt = Adam(**arguments).setup(tree)
        opt.set_hyperparam("b", **override)
        formulas["b"].__dict__.update(override)
        for step in range(5):
            g = values(8, 30 + step)
            opt.apply_gradients({"a": g, "b": g, "c": g})
            for key, formula in formulas.items():
                formula.step(g)
                formula.check(opt.parameters[key].update_rule, tree[key])
        np.testing.assert_array_equal(tree["a"], tree["c"])
        assert not np.array_equal(tree["a"], tree["b"])


class TestRule:
    def test_arguments_override_and_none_inherits(self) -> None:
        parent = Adam(**ODD).hyperparam
        rule = AdamRule(parent, None, 0.5, eta=0.25, decay_mode="alpha")
        assert rule.hyperparam.parent is parent
        assert rule.hyperparam.__dict__ == {"beta1": 0.5, "eta": 0.25, "decay_mode": "alpha"}
        assert rule.hyperparam.alpha == 0.03
        assert rule.is_elementwise is True

    def test_without_a_parent_it_has_the_defaults(self) -> None:
        assert AdamRule().hyperparam.get_dict() == DEFAULTS

    def test_positional_order(self) -> None:
        given = [0.5 - i / 64 for i in range(10)]
        rule = AdamRule(None, *given)
        assert [getattr(rule.hyperparam, name) for name in NAMES] == given
        with pytest.raises(TypeError):
            AdamRule(None, *given, "hat")

    def test_falsy_arguments_are_arguments(self) -> None:
        rule = AdamRule(Adam(**ODD, amsgrad=True).hyperparam, eps=0, amsgrad=False)
        assert (rule.hyperparam.eps, rule.hyperparam.amsgrad) == (0, False)

    def test_by_itself(self) -> None:
        param = Parameter(values(6, 1))
        formula = Formula(param.array, **ODD, amsgrad=True)
        rule = AdamRule(**ODD, amsgrad=True)
        for seed in range(3):
            param.grad = values(6, 5 + seed)
            rule.update(param)
            formula.step(values(6, 5 + seed))
            formula.check(rule, param.array)

    def test_state(self) -> None:
        for amsgrad, keys in ((False, {"m", "v"}), (True, {"m", "v", "vhat"})):
            param = Parameter(np.ones((2, 3), "f4"))
            param.grad = np.ones((2, 3), "f4")
            rule = AdamRule(amsgrad=amsgrad)
            rule.update(param)
            assert rule.state.keys() == keys
            assert {(a.shape, a.dtype) for a in rule.state.values()} == {((2, 3), np.dtype("f4"))}

    def test_created_by_the_optimizer(self) -> None:
        opt = Adam(**ODD)
        rule = opt.create_update_rule()
        assert type(rule) is AdamRule
        assert rule.hyperparam.parent is opt.hyperparam


class TestNamesTypedInVain:
    @pytest.mark.parametrize(
        ("name", "answer"),
        [
            ("lr", "alpha"),
            ("learning_rate", "alpha"),
            ("betas", "beta1 and beta2"),
            ("beta_1", "beta1"),
            ("b2", "beta2"),
            ("weight_decay", "weight_decay_rate.*1e-5.*decay_mode='alpha'"),
            ("epsilon", "eps.*eps_mode='paper'"),
            ("params", r"setup\(params\)"),
        ],
    )
    @every_kind
    def test_arguments(self, kind: type[Adam], name: str, answer: str) -> None:
        with pytest.raises(TypeError, match=f"{kind.__name__}.*{name!r}.*{answer}"):
            kind(**{name: 0.5})

    @pytest.mark.parametrize(
        ("name", "answer"),
        [
            ("step", "update.*apply_gradients"),
            ("zero_grad", "cleargrads"),
            ("minimize", "setup"),
            ("state_dict", "save_npz"),
            ("load_state_dict", "fastadam.load"),
            ("param_groups", "set_hyperparam"),
            ("betas", "beta1"),
            ("learning_rate", "alpha"),
            ("weight_decay", "weight_decay_rate"),
            ("epsilon", "eps"),
            ("anything", ""),
        ],
    )
    def test_attributes(self, name: str, answer: str) -> None:
        for opt in (Adam(), AdamW().setup(np.zeros(1))):
            with pytest.raises(AttributeError, match=f"{type(opt).__name__}.*{name!r}.*{answer}"):
                getattr(opt, name)
            assert not hasattr(opt, name)

    @pytest.mark.parametrize(
        ("name", "answer"),
        [
            ("aplha", "'alpha'"),
            ("on_nonfinit", "'on_nonfinite'"),
            ("on_non_finite", "'on_nonfinite'"),
            ("monitr", "'monitor'"),
            ("Alpha", "'alpha'"),
            ("beta_1", "beta1"),
            ("weight_decay_rat", "'weight_decay_rate'"),
            ("weight_decay", "weight_decay_rate"),
            ("learning_rate", "alpha"),
            ("epsilon", "eps"),
            ("ams_grad", "'amsgrad'"),
            ("alphas", "'alpha'"),
            ("alpha_", "'alpha'"),
            ("0alpha", "'alpha'"),
            ("eps_mod", "'eps_mode'"),
        ],
    )
    def test_setting(self, name: str, answer: str) -> None:
        opt = Adam()
        with pytest.raises(AttributeError, match=answer):
            setattr(opt, name, 0.5)
        assert name not in opt.__dict__
        assert opt.hyperparam.get_dict() == DEFAULTS

    def test_other_attributes_are_free(self) -> None:
        opt = Adam()
        opt.note = "mine"
        opt.use_auto_new_epoch = True
        opt.t, opt.epoch = 3, 4
        assert (opt.note, opt.t, opt.epoch) == ("mine", 3, 4)

    @pytest.mark.parametrize(
        "name", ["alpha0", "alpha_start", "alpha_0", "beta12", "beta1_end", "gamma2", "final_lr0"]
    )
    def test_names_made_of_a_hyperparameters_are_free(self, name: str) -> None:
        """Schedules keep the numbers they begin with under such names."""
        opt = Adam()
        setattr(opt, name, 0.5)
        assert getattr(opt, name) == 0.5
        assert opt.hyperparam.get_dict() == DEFAULTS

    @pytest.mark.parametrize("name", ["SGD", "MomentumSGD", "RMSprop", "AdaGrad", "AdaDelta"])
    def test_other_optimizers(self, name: str) -> None:
        with pytest.raises(AttributeError, match=f"Adam.*{name}.*GradientMethod"):
            getattr(optimizers, name)
        with pytest.raises(AttributeError, match=f"Adam.*{name}.*GradientMethod"):
            getattr(fastadam, name)
        with pytest.raises(AttributeError, match="'Frob'"):
            optimizers.Frob  # noqa: B018

    def test_all_names_of_the_module(self) -> None:
        assert set(optimizers.__all__) == {kind.__name__ for kind in ORDERS} | {"AdamRule"}
        for name in optimizers.__all__:
            assert getattr(optimizers, name) is getattr(fastadam, name)


class TestRepr:
    @every_kind
    def test_defaults_before_setup(self, kind: type[Adam]) -> None:
        assert repr(kind()) == f"<{kind.__name__}(), not set up>"

    def test_what_is_not_default(self) -> None:
        opt = Adam(0.25, eps=0, weight_decay_rate=0.5, amsgrad=True, eps_mode="paper")
        assert repr(opt) == (
            "<Adam(alpha=0.25, eps=0, weight_decay_rate=0.5, amsgrad=True, eps_mode='paper'), "
            "not set up>"
        )
        amsgrad = AMSGrad()
        amsgrad.amsgrad = False
        assert repr(amsgrad) == "<AMSGrad(amsgrad=False), not set up>"

    def test_set_up(self) -> None:
        opt = AMSBound(0.5).setup({"a": np.zeros((1000, 20), "f4"), "b": np.zeros(5)})
        opt.apply_gradients({"a": None, "b": None})
        opt.new_epoch()
        opt.new_epoch()
        assert repr(opt) == (
            "<AMSBound(alpha=0.5) t=1 epoch=2: 2 parameters, 20,005 elements, float32/float64, CPU>"
        )

    def test_one_parameter(self) -> None:
        assert repr(Adam().setup(np.zeros(3, "f4"))) == (
            "<Adam() t=0 epoch=0: 1 parameter, 3 elements, float32, CPU>"
        )

    def test_uninitialised(self) -> None:
        assert repr(Adam().setup(fastadam.Link(lazy=None))) == (
            "<Adam() t=0 epoch=0: 1 parameter, 0 elements, uninitialised, CPU>"
        )

    def test_subclass(self) -> None:
        class Mine(AdaBound):
            pass

        assert repr(Mine(final_lr=3)) == "<Mine(final_lr=3), not set up>"


class TestSubclassing:
    def test_optimizer_with_arguments_and_attributes_of_its_own(self) -> None:
        class Warm(Adam):
            def __init__(self, warmup: int, **kwds: Any) -> None:
                super().__init__(**kwds)
                self.warmup = warmup
                self.epsilon_greedy = 0.5
                self.betas = "mine"  # a name that Adam itself would refuse

            def update(self, lossfun: Any = None, *args: Any, **kwds: Any) -> Any:
                self.eta = min(1.0, (self.t + 1) / self.warmup)
                return super().update(lossfun, *args, **kwds)

        p = values(5, 1)
        formula = Formula(p, alpha=0.25)
        opt = Warm(4, alpha=0.25).setup(p)
        for step in range(6):
            g = values(5, 5 + step)
            formula.eta = min(1.0, (step + 1) / 4)
            assert opt.update(lambda loss=step, g=g: (loss, g)) == step
            formula.step(g)
        formula.check(opt.parameters["param"].update_rule, p)
        assert (opt.warmup, opt.betas) == (4, "mine")

    def test_own_rule_class(self) -> None:
        class Twice(AdamRule):
            def update_core(self, param: Any) -> None:
                param.grad = 2 * param.grad
                super().update_core(param)

        class Mine(Adam):
            def create_update_rule(self) -> AdamRule:
                return Twice(self.hyperparam)

        tree = {"a": values(5, 1), "b": values(3, 2)}
        formulas = {key: Formula(array, **ODD) for key, array in tree.items()}
        opt = Mine(**ODD).setup(tree)
        opt.parameters["b"].update_rule = AdamRule(opt.hyperparam)
        for seed in range(3):
            grads = {"a": values(5, 10 + seed), "b": values(3, 20 + seed)}
            opt.apply_gradients(grads)
            formulas["a"].step(2 * grads["a"])
            formulas["b"].step(grads["b"])
        for key, formula in formulas.items():
            formula.check(opt.parameters[key].update_rule, tree[key])

    def test_own_init_state(self) -> None:
        class Warm(AdamRule):
            def init_state(self, param: Any) -> None:
                super().init_state(param)
                self.state["v"][...] = 4.0

        class Mine(Adam):
            def create_update_rule(self) -> AdamRule:
                return Warm(self.hyperparam)

        p = values(5, 1)
        formula = Formula(p, **ODD)
        formula.v = np.full(5, 4.0)
        opt = Mine(**ODD).setup(p)
        opt.apply_gradients(values(5, 2))
        formula.step(values(5, 2))
        formula.check(opt.parameters["param"].update_rule, p)


numbers = st.floats(-1e3, 1e3, width=32)


@settings(max_examples=80, deadline=None)
@given(
    gs=st.lists(st.lists(numbers, min_size=4, max_size=4), min_size=1, max_size=6),
    power=st.integers(-6, 6),
    variant=st.sampled_from(["adam", "amsgrad"]),
    dtype=st.sampled_from(["f4", "f8"]),
)
def test_scaling_the_gradient_changes_nothing_without_eps(
    gs: list[list[float]], power: int, variant: str, dtype: str
) -> None:
    """For powers of two every rounding is the same, so the bits are."""
    arguments = {**ODD, **VARIANTS[variant], "eps": 0}
    # no zeros, nothing near the end of float32's range
    arrays = [np.where(np.abs(g) < 1e-3, 1.0, g).astype(dtype) for g in gs]
    one, two = (np.linspace(-1, 1, 4).astype(dtype) for _ in range(2))
    opt, scaled = Adam(**arguments).setup(one), Adam(**arguments).setup(two)
    for g in arrays:
        opt.apply_gradients(g)
        scaled.apply_gradients(g * 2.0**power)
    np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(
        scaled.parameters["param"].update_rule.state["m"],
        opt.parameters["param"].update_rule.state["m"] * 2.0**power,
    )


@settings(max_examples=80, deadline=None)
@given(
    gs=st.lists(st.lists(numbers, min_size=4, max_size=4), min_size=1, max_size=12),
    beta2=st.floats(0, 0.9990234375),
    dtype=st.sampled_from(["f4", "f8"]),
    kind=st.sampled_from([AMSGrad, AMSBound]),
)
def test_vhat_never_falls_and_is_the_greatest_v(
    gs: list[list[float]], beta2: float, dtype: str, kind: Any
) -> None:
    p = np.linspace(-1, 1, 4).astype(dtype)
    opt = kind(alpha=0.03, beta1=0.8, beta2=beta2, eps=1e-6, eta=0.7).setup(p)
    greatest = np.zeros(4, dtype)
    for g in gs:
        opt.apply_gradients(np.array(g, dtype))
        state = opt.parameters["param"].update_rule.state
        assert np.all(state["vhat"] >= greatest)
        greatest = np.maximum(greatest, state["v"])
        np.testing.assert_array_equal(state["vhat"], greatest)
        assert np.all(np.isfinite(p))


def test_a_rule_is_begun_anew_before_its_first_update() -> None:
    param = Parameter(np.ones(3))
    rule = AdamRule(alpha=0.5, amsgrad=True)
    rule.init_state(param)
    assert set(rule.state) == {"m", "v", "vhat"}
    assert not any(value.any() for value in rule.state.values())
