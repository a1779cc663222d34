"""The gate of numbers and names: what none is, is refused at the first door that it comes to."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import fastadam
from fastadam import (
    AdaBound,
    Adam,
    AdamRule,
    AdamW,
    AMSBound,
    AMSGrad,
    Hyperparameter,
    HyperparameterProxy,
    UpdateRule,
    adam_step,
)
from fastadam.algorithms.adam import ADAM
from fastadam.algorithms.number import number

KINDS = (Adam, AdamW, AMSGrad, AdaBound, AMSBound)
NUMBERS = [h.name for h in ADAM.hypers if not h.modes and h.name not in ADAM.flags]
FLAGS = list(ADAM.flags)
MODES = [h.name for h in ADAM.hypers if h.modes]

# out of range, by hyperparameter
BAD_NUMBERS: dict[str, list[Any]] = {
    **{name: [math.nan, math.inf, -math.inf, np.float32("nan"), 10**400] for name in NUMBERS},
    **{name: [math.nan, np.array(np.inf)] for name in FLAGS},
    **{name: ["torch", "", None, 1, "Hat"] for name in MODES},
}
for _name in ("beta1", "beta2"):
    BAD_NUMBERS[_name] += [-0.5, 1.5, np.float32(-1e-30), Decimal("1.0000001"), Fraction(-1, 7)]
BAD_NUMBERS["beta1"] += [1, 1.0, True, Decimal("0.99999999999999999999"), np.float16(1)]
for _name in ("eps", "weight_decay_rate", "final_lr", "gamma"):
    BAD_NUMBERS[_name] += [-1e-300, -1, np.array(-0.5), Decimal(-1)]
BAD_NUMBERS["weight_decay_rate"] += [1.5, 2, np.float32(1.0001), Fraction(8, 7)]


class Digits(str):
    """Text that can be made a number of."""

    def __float__(self) -> float:
        return 0.5


NO_NUMBERS: list[Any] = [
    None,
    "0.5",
    Digits("0.5"),
    b"0.5",
    bytearray(b"1"),
    memoryview(b"1"),
    np.str_("0.5"),
    np.array("0.5"),
    np.ma.masked,
    np.ma.array(0.5, mask=True),
    0.5j,
    np.complex64(0.5),
    np.array(0.5 + 0j),
    [0.5],
    (0.5,),
    {},
    {0.5},
    np.array([0.5, 0.5]),
    np.array([None, 1]),
    np.timedelta64(1, "s"),
    np.datetime64("2020"),
    np.zeros((), [("a", "f8")])[()],
    Decimal("sNaN"),
    object(),
    float,
]

GOOD: dict[str, list[Any]] = {
    "alpha": [0, -0.5, 1e-300, True, Fraction(1, 2), Decimal("0.5"), np.float16(0.5), 7],
    "beta1": [0, 0.0, math.nextafter(1, 0), np.float32(0.5), np.array(0.5), Fraction(1, 3), False],
    "beta2": [0, 1, 1.0, math.nextafter(1, 0), np.array(0.5)],
    "eps": [0, 0.0, 1e-30, 1, np.float64(2), -0.0],
    "eta": [0, -1, 1e10, np.int8(3)],
    "weight_decay_rate": [0, 0.5, 1, np.float32(1), Fraction(1, 7), -0.0],
    "final_lr": [0, 1e10, Decimal(3)],
    "gamma": [0, 1e10, 1, np.array(0.25, "f4")],
    "amsgrad": [True, False, 0, 1, np.True_, 2],
    "adabound": [True, False, 0, 1, np.False_],
    "eps_mode": ["hat", "paper"],
    "decay_mode": ["eta", "alpha"],
}


def doors(name: str) -> dict[str, Callable[[Any], Any]]:
    """Every way to set a hyperparameter before an update."""

    def of_one(value: Any) -> None:
        opt = Adam().setup({"w": np.ones(2), "x": np.ones(2)})
        opt.set_hyperparam("w", **{name: value})

    def of_a_rule(value: Any) -> None:
        opt = Adam().setup(np.ones(2))
        setattr(opt.parameters["param"].update_rule.hyperparam, name, value)

    found: dict[str, Callable[[Any], Any]] = {
        "Adam(": lambda value: Adam(**{name: value}),
        "Adam.": lambda value: setattr(Adam(), name, value),
        "Adam.hyperparam": lambda value: setattr(Adam().hyperparam, name, value),
        "AMSBound.hyperparam": lambda value: setattr(AMSBound(), name, value),
        "set_hyperparam(": of_one,
        "AdamRule.hyperparam": of_a_rule,
        "AdamRule.": lambda value: setattr(AdamRule().hyperparam, name, value),
        "Adam": lambda value: Adam()._check_hyperparam(name, value),
    }
    # None is the parent's there
    found["AdamRule("] = lambda value: AdamRule(**{name: 0j if value is None else value})
    return found


def refusal(put: Callable[[Any], Any], value: Any) -> Exception | None:
    """What comes of a value; None if it is taken."""
    try:
        put(value)
    except Exception as error:
        return error
    return None


def step(**arguments: Any) -> None:
    """One call of adam_step on arrays of which nothing may change."""
    arrays = [np.ones(2), np.ones(2), np.full(2, 0.5), np.full(2, 0.25)]
    before = [array.copy() for array in arrays]
    try:
        adam_step(*arrays, **{"t": 1, "adabound": True, **arguments})
    except (TypeError, ValueError):
        for array, old in zip(arrays, before, strict=True):
            np.testing.assert_array_equal(array, old)
        raise


def at_an_update(name: str, value: Any, repeated: bool, own: bool, adabound: bool = True) -> None:
    """Put a value behind the gates, where the update finds it, and nothing may change."""
    p = np.ones(2)
    opt = Adam(adabound=adabound).setup(p)
    rule = opt.parameters["param"].update_rule
    if repeated:
        opt.apply_gradients(np.ones(2))
        opt.apply_gradients(np.ones(2))
    before = (p.copy(), opt.t, rule.t, copy.deepcopy(rule.state))
    if own:
        # a bag of the user's own has no gate
        rule.hyperparam = Hyperparameter(opt.hyperparam)
        setattr(rule.hyperparam, name, value)
    else:
        vars(opt.hyperparam)[name] = value
    try:
        opt.apply_gradients(np.ones(2))
    except (TypeError, ValueError):
        np.testing.assert_equal((p, opt.t, rule.t, rule.state), before)
        raise


@pytest.mark.parametrize("name", [*NUMBERS, *FLAGS, *MODES])
def test_what_is_out_of_range_is_refused_at_every_door(name: str) -> None:
    for door, put in doors(name).items():
        for bad in BAD_NUMBERS[name]:
            error = refusal(put, bad)
            assert type(error) is ValueError, (door, bad, error)
            assert f"{name} must be" in str(error), (door, bad)
            assert str(error).startswith(door), (door, str(error))
    for bad in BAD_NUMBERS[name]:
        for repeated, own in ((False, False), (True, False), (True, True)):
            with pytest.raises(ValueError, match=f"update of parameter 'param': {name} must be"):
                at_an_update(name, bad, repeated, own)
        if name not in FLAGS:
            with pytest.raises(ValueError, match=f"adam_step: {name} must be"):
                step(**{name: bad})


@pytest.mark.parametrize("name", [*NUMBERS, *FLAGS])
def test_what_is_no_number_is_refused_at_every_door(name: str) -> None:
    wanted = f"{name} must be {'True or False' if name in FLAGS else 'a number'}, not "
    for bad in NO_NUMBERS:
        for door, put in doors(name).items():
            error = refusal(put, bad)
            assert type(error) is TypeError, (door, bad, error)
            assert f"{wanted}{type(bad).__name__}" in str(error) or (
                bad is None and f"{wanted}complex" in str(error)
            ), (door, bad, str(error))
            assert str(error).startswith(door), (door, str(error))
        with pytest.raises(TypeError, match=f"'param': {wanted}"):
            # a value that is equal to the one before is no change: 1 s to True
            at_an_update(name, bad, name not in FLAGS, False)
        if name != "amsgrad":
            with pytest.raises(TypeError, match=f"adam_step: {wanted}"):
                step(**{name: bad})


@pytest.mark.parametrize("name", [*NUMBERS, *FLAGS, *MODES])
def test_what_may_be_is_taken_and_acts_as_its_float(name: str) -> None:
    others = {"alpha": 0.25, "adabound": True, "decay_mode": "eta", "weight_decay_rate": 1e-12}
    for good in GOOD[name]:
        for put in doors(name).values():
            put(good)
        plain = good if isinstance(good, str) else float(good)
        plain = bool(good) if name in FLAGS else plain
        found = []
        for value in (good, plain):
            w = np.array([1.0, -2.0], "f4")
            opt = Adam(**{**others, name: value}).setup(w)
            assert getattr(opt, name) == value
            for g in ([1.0, 0.5], [-2.0, 0.125], [1e-3, 3.0]):
                opt.apply_gradients(np.array(g, "f4"))
            found.append(w.tobytes())
        assert found[0] == found[1], good


@pytest.mark.parametrize("name", ["final_lr", "gamma"])
def test_what_only_bounds_use_is_looked_at_without_them(name: str) -> None:
    for bad in BAD_NUMBERS[name]:
        with pytest.raises(ValueError, match=f"adam_step: {name} must be"):
            step(adabound=False, **{name: bad})
        for repeated, own in ((False, False), (True, False), (True, True)):
            with pytest.raises(ValueError, match=f"update of parameter 'param': {name} must be"):
                at_an_update(name, bad, repeated, own, adabound=False)
    with pytest.raises(TypeError, match=f"adam_step: {name} must be a number"):
        step(adabound=False, **{name: "0.5"})


def test_a_refused_value_leaves_the_old_one() -> None:
    opt = Adam(alpha=0.25).setup({"w": np.ones(2), "x": np.ones(2)})
    rules = [opt.parameters[path].update_rule for path in "wx"]
    with pytest.raises(ValueError, match="beta1"):
        opt.set_hyperparam("*", alpha=0.5, beta1=1.5)
    with pytest.raises(ValueError, match="alpha"):
        opt.alpha = math.nan
    with pytest.raises(ValueError, match="alpha"):
        rules[0].hyperparam.alpha = math.inf
    assert [vars(rule.hyperparam) for rule in rules] == [{}, {}]
    assert opt.hyperparam.get_dict() == Adam(alpha=0.25).hyperparam.get_dict()


def test_the_parameters_belong_to_setup() -> None:
    for kind in KINDS:
        with pytest.raises(TypeError, match=r"setup\(params\)"):
            kind({"w": np.ones(2)})


# -- two hyperparameters together ----------------------------------------------------------------


def test_weight_decay_of_more_than_all() -> None:
    """By eta, more than 1 is refused; by alpha it is what PyTorch's is."""
    for kind in (Adam, AdamW):
        with pytest.raises(ValueError, match=r"weight_decay_rate.*at most 1.*decay_mode='alpha'"):
            kind(weight_decay_rate=2)
        assert kind(weight_decay_rate=2, decay_mode="alpha").weight_decay_rate == 2
        opt = kind()
        with pytest.raises(ValueError, match="weight_decay_rate"):
            opt.weight_decay_rate = 2
        opt.decay_mode = "alpha"
        opt.weight_decay_rate = 2
        # the other one is changed afterwards: the update sees it
        p = np.ones(2)
        opt.setup(p)
        opt.apply_gradients(np.ones(2))
        before = p.copy()
        opt.decay_mode = "eta"
        with pytest.raises(ValueError, match=r"parameter 'param'.*weight_decay_rate"):
            opt.apply_gradients(np.ones(2))
        np.testing.assert_array_equal(p, before)
        assert opt.t == 1
    for arguments in ({"weight_decay_rate": 2}, {"weight_decay_rate": 0.75, "eta": 2.0}):
        with pytest.raises(ValueError, match=r"adam_step.*weight_decay_rate"):
            step(**arguments)
    step(weight_decay_rate=2, decay_mode="alpha")
    with pytest.raises(ValueError, match="weight_decay_rate"):
        AdamRule(weight_decay_rate=2)
    AdamRule(weight_decay_rate=2, decay_mode="alpha")


def test_weight_decay_and_mode_of_one_parameter() -> None:
    opt = Adam().setup({"w": np.ones(2), "x": np.ones(2)})
    with pytest.raises(ValueError, match="weight_decay_rate"):
        opt.set_hyperparam("w", weight_decay_rate=3)
    opt.set_hyperparam("w", weight_decay_rate=3, decay_mode="alpha")
    rule = opt.parameters["w"].update_rule
    assert (rule.hyperparam.weight_decay_rate, rule.hyperparam.decay_mode) == (3, "alpha")
    rule.hyperparam.weight_decay_rate = 4
    del rule.hyperparam.decay_mode
    with pytest.raises(ValueError, match=r"parameter 'w'.*weight_decay_rate"):
        opt.apply_gradients({"w": np.ones(2), "x": np.ones(2)})
    np.testing.assert_array_equal(opt.target["x"], np.ones(2))


def test_eta_times_weight_decay_of_more_than_all() -> None:
    for repeated in (False, True):
        p = np.ones(2)
        opt = Adam(weight_decay_rate=0.75).setup(p)
        if repeated:
            opt.apply_gradients(np.ones(2))
            opt.apply_gradients(np.ones(2))
        before, t = p.copy(), opt.t
        opt.eta = 1.5
        with pytest.raises(ValueError, match=r"weight_decay_rate.*eta = 1.5"):
            opt.apply_gradients(np.ones(2))
        np.testing.assert_array_equal(p, before)
        assert opt.t == t


def test_numbers_that_make_an_infinite_step() -> None:
    """Each is finite, but not what is made of them in the type of the step."""
    for arguments, dtype in (
        ({"alpha": 1e308, "beta1": 0.9, "beta2": 0.0}, "f8"),
        ({"alpha": 1e41}, "f4"),
        ({"alpha": 1e40, "beta2": 0.5}, "f2"),
        ({"eta": 1e39}, "f4"),
        ({"eps": 1e39}, "f4"),
        ({"adabound": True, "final_lr": 1e300, "gamma": 1.0}, "f4"),
    ):
        for repeated in (False, True):
            p = np.ones(2, dtype)
            opt = Adam(**({} if repeated else arguments)).setup(p)
            if repeated:
                opt.apply_gradients(np.ones(2, dtype))
                opt.apply_gradients(np.ones(2, dtype))
                for name, value in arguments.items():
                    setattr(opt, name, value)
            before, t = p.copy(), opt.t
            with pytest.raises(
                ValueError, match=list(arguments)[-2 if "gamma" in arguments else 0]
            ):
                opt.apply_gradients(np.ones(2, dtype))
            np.testing.assert_array_equal(p, before)
            assert opt.t == t
    with pytest.raises(ValueError, match="alpha"):
        adam_step(*np.ones((4, 2), "f4"), t=1, alpha=1e41)


@pytest.mark.parametrize("repeated", [False, True])
def test_first_alpha(repeated: bool) -> None:
    opt = AdaBound().setup(np.ones(2))
    rule = opt.parameters["param"].update_rule
    if repeated:
        opt.apply_gradients(np.ones(2))
        opt.apply_gradients(np.ones(2))
    t = opt.t
    for bad, error in ((math.nan, ValueError), (math.inf, ValueError), ("1", TypeError)):
        rule.initial_alpha = bad
        with pytest.raises(error, match="initial_alpha"):
            opt.apply_gradients(np.ones(2))
        assert opt.t == t
        with pytest.raises(error, match="initial_alpha"):
            step(initial_alpha=bad)
    with pytest.raises(ValueError, match="initial_alpha"):
        step(initial_alpha=5e-324)


def test_number_of_the_step() -> None:
    for bad, error in (
        (1.5, ValueError),
        (0, ValueError),
        (-1, ValueError),
        (math.nan, ValueError),
        (math.inf, ValueError),
        (0.5, ValueError),
        (np.float32(2.5), ValueError),
        (2**70, ValueError),
        (True, TypeError),
        (np.True_, TypeError),
        ("1", TypeError),
        (None, TypeError),
        ([1], TypeError),
        (1j, TypeError),
        (np.ma.masked, TypeError),
    ):
        with pytest.raises(error, match="number of this step"):
            step(t=bad)
    found = []
    for good in (3, np.int64(3), np.uint8(3), np.array(3), 3.0):
        arrays = [np.array([0.5, 2.0]) for _ in range(4)]
        adam_step(*arrays, t=good)
        found.append(b"".join(array.tobytes() for array in arrays))
    assert set(found) == {found[0]}


def test_tensors_of_other_libraries_are_numbers() -> None:
    """By what they say of themselves: a float, or an error for more than one element."""

    class Tensor:
        dtype = "some other library's"

        def __init__(self, *values: float) -> None:
            self.values = values

        def __float__(self) -> float:
            if len(self.values) != 1:
                raise RuntimeError("only one element tensors can be converted")
            return self.values[0]

    assert number(Tensor(0.5)) == 0.5
    assert Adam(alpha=Tensor(0.5)).setup(np.ones(1)).alpha.values == (0.5,)
    with pytest.raises(TypeError, match="alpha must be a number, not Tensor"):
        Adam(alpha=Tensor(0.5, 0.5))
    torch = pytest.importorskip("torch")
    assert number(torch.tensor(0.5)) == 0.5
    for bad in (torch.tensor([0.5, 0.5]), torch.tensor(0.5j)):
        with pytest.raises(TypeError, match="alpha must be a number"):
            Adam(alpha=bad)


# -- names ---------------------------------------------------------------------------------------


def test_names_that_no_rule_has_are_refused_on_the_bags() -> None:
    opt = Adam().setup(np.ones(2))
    rule = opt.parameters["param"].update_rule
    bags = [kind().hyperparam for kind in KINDS]
    bags += [opt.hyperparam, rule.hyperparam, AdamRule().hyperparam]
    with pytest.raises(AttributeError, match="alpha"):
        AdamRule().hyperparam.parent.lr = 0.5
    for twin in (copy.copy(opt), copy.deepcopy(opt), pickle.loads(pickle.dumps(opt))):
        bags.append(twin.hyperparam)
    for bag in bags:
        before = bag.get_dict()
        for name, meant in (
            ("lr", "alpha"),
            ("aplha", "'alpha'"),
            ("learning_rate", "alpha"),
            ("weight_decay", "weight_decay_rate"),
            ("beta3", "there are: alpha"),
            ("alpha0", "there are: alpha"),
            ("eps_", "'eps'"),
            ("momentum", "beta1"),
            ("nonsense", "there are: alpha"),
        ):
            with pytest.raises(AttributeError, match=meant):
                setattr(bag, name, 8e-5)
        assert bag.get_dict() == before
        bag.alpha = 0.25
        with pytest.raises(ValueError, match="alpha"):
            bag.alpha = math.nan


def test_users_own_names_are_free() -> None:
    bag = Hyperparameter()
    bag.lr, bag.alpha = 0.5, "anything"

    class OwnRule(UpdateRule):
        def update_core(self, param: Any) -> None:
            param.array -= self.hyperparam.lr * param.grad

    w = np.ones(2)
    opt = Adam().setup({"w": w})
    opt.parameters["w"].update_rule = OwnRule(opt.hyperparam)
    opt.parameters["w"].update_rule.hyperparam.lr = 0.5
    opt.apply_gradients({"w": np.ones(2)})
    np.testing.assert_array_equal(w, [0.5, 0.5])


class Scaled(Adam):
    """A subclass with one hyperparameter more, which its rule reads."""

    scale = HyperparameterProxy("scale")

    def __init__(self, alpha: float = 0.5, scale: float = 2.0) -> None:
        super().__init__(alpha=alpha)
        self.scale = scale
        self.hyperparam.offset = 0.0

    def create_update_rule(self) -> AdamRule:
        return ScaledRule(self.hyperparam)


class ScaledRule(AdamRule):
    def update_core(self, param: Any) -> None:
        param.grad = param.grad * self.hyperparam.scale + self.hyperparam.offset
        super().update_core(param)


def test_a_subclass_with_a_hyperparameter_more() -> None:
    arrays = {"w": np.ones(2), "x": np.ones(2)}
    opt = Scaled().setup(arrays)
    assert opt.set_hyperparam("x", scale=0.0) == ["x"]
    opt.apply_gradients({"w": np.ones(2), "x": np.ones(2)})
    np.testing.assert_allclose(arrays["w"], 0.5, rtol=1e-6)
    np.testing.assert_array_equal(arrays["x"], 1.0)
    with pytest.raises(ValueError, match="alpha"):
        opt.alpha = math.nan
    with pytest.raises(ValueError, match="beta1"):
        opt.set_hyperparam("x", scale=1.0, beta1=2.0)

    class Plain(Adam):
        more = HyperparameterProxy("more")

    plain = Plain().setup(np.ones(1))
    plain.more = 1
    assert plain.set_hyperparam("*", more=3) == ["param"]
    assert plain.parameters["param"].update_rule.hyperparam.more == 3
    twin = copy.deepcopy(plain)
    twin.parameters["param"].update_rule.hyperparam.more = 4
    assert (twin.more, plain.more) == (1, 1)


def test_a_subclass_may_have_a_settable_lr() -> None:
    class Alias(Adam):
        lr = HyperparameterProxy("alpha")

    class Property(AMSGrad):
        @property
        def lr(self) -> float:
            return self.alpha * 2

        @lr.setter
        def lr(self, value: float) -> None:
            self.alpha = value / 2

    class Attribute(AdamW):
        lr: Any = None

    for kind, alpha in ((Alias, 0.5), (Property, 0.25), (Attribute, 0.001)):
        opt = kind().setup({"w": np.ones(1), "x": np.ones(1)})
        opt.lr = 0.5
        assert (opt.lr, opt.alpha) == (0.5, alpha)
    with pytest.raises(ValueError, match="alpha"):
        Alias().lr = math.inf
    opt = Alias().setup({"w": np.ones(1), "x": np.ones(1)})
    opt.set_hyperparam("x", lr=0.75)
    assert vars(opt.parameters["x"].update_rule.hyperparam) == {"alpha": 0.75}
    for plain in (Adam(), type("Mine", (Adam,), {})()):
        with pytest.raises(AttributeError, match="set alpha"):
            plain.lr = 0.5


def test_a_path_wins_over_a_glob() -> None:
    names = ["w[0]", "w0", "a*", "ab", "q?", "qq", "[!x]", "y"]
    tree = {name: np.ones(1) for name in names}
    opt = Adam().setup({**tree, "l": {"w[1]": np.ones(1), "w1": np.ones(1)}})
    for name in [*names, "l/w[1]"]:
        assert opt.set_hyperparam(name, alpha=0.5) == [name]
        rules = {path: vars(p.update_rule.hyperparam) for path, p in opt.parameters.items()}
        assert [path for path, own in rules.items() if own] == [name]
        del opt.parameters[name].update_rule.hyperparam.alpha
    assert opt.set_hyperparam("w*", alpha=0.5) == ["w[0]", "w0"]
    assert opt.set_hyperparam("l/w[1-3]", alpha=0.5) == ["l/w1"]
    assert opt.set_hyperparam("*[[]0]", alpha=0.5) == ["w[0]"]


def test_names_in_set_hyperparam() -> None:
    opt = Adam().setup(np.ones(1))
    for name, answer in (("lr", "alpha"), ("aplha", "'alpha' is meant"), ("frob", "there are")):
        with pytest.raises(TypeError, match=f"{name!r}.*{answer}"):
            opt.set_hyperparam("*", **{name: 0.5})


def test_misspelt_arguments() -> None:
    for kind in KINDS:
        with pytest.raises(TypeError, match="'aplha'; 'alpha' is meant"):
            kind(aplha=0.5)
        with pytest.raises(TypeError, match="'frob'; there are: alpha"):
            kind(frob=0.5)

    class Rule(AdamRule):
        """One of a user's own."""

    for rule in (AdamRule, Rule):
        with pytest.raises(TypeError, match=f"{rule.__name__} has no argument 'lr'.*called alpha"):
            rule(lr=0.5)
        with pytest.raises(TypeError, match="'aplha'; 'alpha' is meant"):
            rule(aplha=0.5)
        with pytest.raises(TypeError, match="'frob'; there are: parent_hyperparam, alpha"):
            rule(frob=0.5)
    with pytest.raises(AttributeError, match="'alpha' is meant"):
        Adam().aplha  # noqa: B018
    for name, meant in (("adam", "Adam"), ("Adamw", "AdamW"), ("amsgrad", "AMSGrad")):
        with pytest.raises(AttributeError, match=meant):
            getattr(fastadam, name)
