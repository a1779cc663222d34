"""adam_step, the public function on plain arrays."""

from __future__ import annotations

import inspect
import re
from typing import Never

import numpy as np
import pytest

from fastadam import Adam, adam_step
from fastadam.algorithms.suggestions import HYPERPARAMETERS
from fastadam.optimizers.suggestions import ARGUMENTS

HYPERPARAM = {
    "alpha": 0.02,
    "beta1": 0.83,
    "beta2": 0.971,
    "eps": 3e-4,
    "eta": 0.77,
    "weight_decay_rate": 0.013,
    "final_lr": 0.04,
    "gamma": 0.03,
}


@pytest.mark.parametrize("modes", [{}, {"eps_mode": "paper", "decay_mode": "alpha"}])
@pytest.mark.parametrize("adabound", [False, True])
@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_same_bits_as_the_optimizer(
    dtype: str, amsgrad: bool, adabound: bool, modes: dict[str, str]
) -> None:
    random = np.random.default_rng(0)
    p = random.standard_normal((7, 9)).astype(dtype)
    m, v, vhat = (np.zeros_like(p) for _ in range(3))
    target = p.copy()
    opt = Adam(**HYPERPARAM, amsgrad=amsgrad, adabound=adabound, **modes).setup(target)
    for t in range(1, 12):
        g = random.standard_normal((7, 9)).astype(dtype)
        changes = {"initial_alpha": 0.02} if adabound else {}
        if t > 6:
            opt.alpha = changes["alpha"] = 0.005
        adam_step(
            p,
            g,
            m,
            v,
            vhat if amsgrad else None,
            t=t,
            adabound=adabound,
            **{**HYPERPARAM, **modes, **changes},
        )
        opt.apply_gradients(g)
    np.testing.assert_array_equal(p, target)
    state = opt.parameters["param"].update_rule.state
    np.testing.assert_array_equal(m, state["m"])
    np.testing.assert_array_equal(v, state["v"])
    if amsgrad:
        np.testing.assert_array_equal(vhat, state["vhat"])


def test_defaults_are_the_optimizers() -> None:
    p = np.array([1.0, -2.0])
    m, v = np.zeros(2), np.zeros(2)
    target = p.copy()
    opt = Adam().setup(target)
    for t in (1, 2, 3):
        adam_step(p, 2 * p, m, v, t=t)
        opt.apply_gradients(2 * target)
    np.testing.assert_array_equal(p, target)


def test_the_gradient_is_not_written() -> None:
    g = np.linspace(-1, 1, 5)
    before = g.copy()
    adam_step(np.ones(5), g, np.zeros(5), np.zeros(5), t=1)
    np.testing.assert_array_equal(g, before)


@pytest.mark.parametrize("t", [0, -1])
def test_t_begins_at_one(t: int) -> None:
    with pytest.raises(ValueError, match="begins at 1"):
        adam_step(np.ones(2), np.ones(2), np.zeros(2), np.zeros(2), t=t)


@pytest.mark.parametrize("shared", ["m", "v", "vhat"])
def test_state_that_shares_memory_is_refused(shared: str) -> None:
    p = np.ones(4)
    arrays = {"m": np.zeros(4), "v": np.zeros(4), "vhat": np.zeros(4), shared: p}
    with pytest.raises(ValueError, match=f"its array and its {shared} share memory"):
        adam_step(p, np.ones(4), **arrays, t=1)
    np.testing.assert_array_equal(p, np.ones(4))


@pytest.mark.parametrize(
    ("name", "bad", "error"),
    [
        ("param", np.ones(2, int), TypeError),
        ("grad", np.ones(3), ValueError),
        ("m", np.zeros(2, "f4"), TypeError),
        ("v", np.zeros((2, 1)), ValueError),
        ("vhat", [0.0, 0.0], TypeError),
    ],
)
def test_refusals_change_nothing(name: str, bad: object, error: type[Exception]) -> None:
    arrays = {key: np.full(2, 3.0) for key in ("param", "grad", "m", "v", "vhat")}
    arrays[name] = bad
    with pytest.raises(error, match="'param'"):
        adam_step(**arrays, t=1)
    for key, array in arrays.items():
        if key != name:
            np.testing.assert_array_equal(array, 3.0)


def test_unknown_mode() -> None:
    with pytest.raises(ValueError, match="eps_mode"):
        adam_step(np.ones(2), np.ones(2), np.zeros(2), np.zeros(2), t=1, eps_mode="torch")


def test_unknown_arguments_are_answered_as_by_constructors() -> None:
    arrays = np.ones((4, 3))
    before = arrays.copy()
    told = {}
    for name in (*ARGUMENTS, "weight_decay_rat", "alpa", "zzz"):
        if name in inspect.signature(adam_step).parameters:
            continue
        with pytest.raises(TypeError, match=f"^adam_step has no argument {name!r}") as caught:
            adam_step(*arrays, t=1, **{name: 0.1})
        told[name] = str(caught.value)
    np.testing.assert_array_equal(arrays, before)
    for name, text in told.items():
        if name in HYPERPARAMETERS:
            with pytest.raises(TypeError) as caught:
                Adam(**{name: 0.1})
            assert text == str(caught.value).replace("Adam has", "adam_step has")
    for name in ARGUMENTS.keys() & told.keys():
        # what opt and hooks can do, one step cannot
        assert "there are:" not in told[name]
        assert not re.search(r"\bopt\.|hook|setup", told[name]), told[name]
    assert "learning rate is called alpha" in told["lr"]
    assert "'weight_decay_rate' is meant?" in told["weight_decay_rat"]
    assert "'alpha' is meant?" in told["alpa"]
    assert told["zzz"].endswith("there are: " + ", ".join(TAKES))


def test_what_the_answers_of_adam_step_say_is_so() -> None:
    p, g, m, v, vhat, other = np.ones((6, 3))
    assert re.search(r"to give vhat", told_of("amsgrad"))
    v[:] = 0
    adam_step(p, g, m, v, vhat, t=1)
    np.testing.assert_array_equal(vhat, 1)
    adam_step(other, g, np.zeros(3), np.zeros(3), t=1, alpha=-0.001)
    assert "goes up" in told_of("maximize")
    assert np.all(other > 1)


def test_type_checkers_refuse_unknown_arguments() -> None:
    unknown = inspect.signature(adam_step, eval_str=True).parameters["unknown"]
    assert unknown.kind is inspect.Parameter.VAR_KEYWORD
    assert unknown.annotation is Never


def told_of(name: str) -> str:
    """The answer to an argument that there is not."""
    with pytest.raises(TypeError) as caught:
        adam_step(*np.ones((4, 3)), t=1, **{name: True})
    return str(caught.value)


TAKES = [name for name in inspect.signature(adam_step).parameters if name != "unknown"]
