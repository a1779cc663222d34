"""The same bits as Chainer 7.8.1 on the CPU: parameters and states, every variant, both types."""

from __future__ import annotations

import numpy as np
import pytest

import fastadam

chainer = pytest.importorskip("chainer", reason="needs Chainer 7.8.1 on NumPy 1.26")

CHECKED_STEPS = (1, 2, 10, 1000)

SHAPES = {"W": (23, 17), "b": (23,), "scale": (1,), "empty": (0, 3)}

# name, arguments; eta, betas, eps and the others away from their defaults
VARIANTS = {
    "adam": ("Adam", {"alpha": 0.003, "beta1": 0.87, "beta2": 0.98, "eps": 1e-6, "eta": 0.7}),
    "adam-decay": (
        "Adam",
        {"alpha": 0.01, "beta1": 0.85, "beta2": 0.995, "eta": 0.9, "weight_decay_rate": 0.003},
    ),
    "adamw": ("AdamW", {"alpha": 0.002, "beta1": 0.93, "eta": 1.3, "weight_decay_rate": 0.01}),
    "amsgrad": ("AMSGrad", {"alpha": 0.004, "beta1": 0.8, "beta2": 0.9, "eta": 0.6}),
    "adabound": (
        "AdaBound",
        {"alpha": 0.005, "beta2": 0.97, "final_lr": 0.03, "gamma": 0.02, "eta": 0.8},
    ),
    "amsbound": (
        "AMSBound",
        {"alpha": 0.02, "beta1": 0.7, "final_lr": 0.05, "gamma": 0.004, "eps": 1e-7, "eta": 1.1},
    ),
    "all": (
        "Adam",
        {
            "alpha": 0.006,
            "beta1": 0.91,
            "beta2": 0.96,
            "eta": 0.75,
            "weight_decay_rate": 0.002,
            "amsgrad": True,
            "adabound": True,
            "final_lr": 0.2,
            "gamma": 0.01,
        },
    ),
    "defaults": ("Adam", {}),
}

# one parameter with its own numbers
OVERRIDE = {"alpha": 0.0005, "beta1": 0.6, "weight_decay_rate": 0.02, "eps": 1e-5}


def same_bits(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Compare every bit; signs and zeros included."""
    assert ours.dtype == theirs.dtype
    np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(np.signbit(ours), np.signbit(theirs))


def initial(dtype: str) -> dict[str, np.ndarray]:
    """The arrays at the start."""
    random = np.random.RandomState(7)
    return {name: np.asarray(random.standard_normal(s), dtype) for name, s in SHAPES.items()}


def gradient(random: np.random.RandomState, name: str, t: int, dtype: str) -> np.ndarray:
    """Gradients of many magnitudes, with zeros among them."""
    g = random.standard_normal(SHAPES[name]) * 10.0 ** random.uniform(-4, 1, SHAPES[name])
    g = np.where(random.uniform(size=SHAPES[name]) < 0.05, 0.0, g)
    return np.asarray(g * (1 + 3 * (t % 7 == 0)), dtype)


def chainer_link(dtype: str) -> object:
    """A real Chainer link with these parameters."""
    link = chainer.Link()
    with link.init_scope():
        for name, array in initial(dtype).items():
            setattr(link, name, chainer.Parameter(array))
    return link


def set_up(module: object, variant: str, target: object) -> object:
    """Make the optimizer of either library, with one parameter's numbers overridden."""
    name, arguments = VARIANTS[variant]
    # Chainer's, which has no other
    mode = {"decay_mode": "eta"} if module is fastadam and name == "AdamW" else {}
    return getattr(module, name)(**arguments, **mode).setup(target)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("target", ["dict", "link", "chainer link", "one by one"])
def test_same_bits(variant: str, dtype: str, target: str) -> None:
    theirs = chainer_link(dtype)
    their_optimizer = set_up(chainer.optimizers, variant, theirs)
    arrays = initial(dtype)
    if target == "dict":
        ours: object = arrays
    elif target == "chainer link":
        ours = chainer_link(dtype)
    else:
        ours = fastadam.Link()
        with ours.init_scope():
            for name, array in arrays.items():
                setattr(ours, name, fastadam.Parameter(array))
    our_optimizer = set_up(fastadam, variant, ours)
    our_optimizer.set_hyperparam("b", **OVERRIDE)
    for name, value in OVERRIDE.items():
        setattr(theirs.b.update_rule.hyperparam, name, value)
    parameters = our_optimizer.parameters
    if target == "one by one":
        for param in parameters.values():
            param.update_rule.add_hook(lambda rule, param: None, name="by itself")

    random = np.random.RandomState(11)
    for t in range(1, max(CHECKED_STEPS) + 1):
        grads = {name: gradient(random, name, t, dtype) for name in SHAPES}
        for name, param in theirs.namedparams():
            param.grad = grads[name.strip("/")].copy()
        if t == 500:
            # a schedule, as trainers make them
            their_optimizer.alpha = our_optimizer.alpha = 0.3 * our_optimizer.alpha
        their_optimizer.update()
        our_optimizer.apply_gradients(grads)
        if t in CHECKED_STEPS:
            for name, param in theirs.namedparams():
                mine = parameters[name.strip("/")]
                same_bits(mine.array, param.array)
                state, expected = mine.update_rule.state, param.update_rule.state
                assert state.keys() == expected.keys()
                for key in expected:
                    same_bits(state[key], expected[key])
                assert mine.update_rule.t == param.update_rule.t == t
                assert mine.update_rule.alpha_t == param.update_rule.alpha_t
                if our_optimizer.adabound:
                    assert mine.update_rule.bounds == param.update_rule.bounds
    assert our_optimizer.t == their_optimizer.t
    assert our_optimizer.alpha_t == their_optimizer.alpha_t


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_same_non_finite_results(variant: str, dtype: str, bad: float) -> None:
    theirs, ours = chainer_link(dtype), initial(dtype)
    their_optimizer = set_up(chainer.optimizers, variant, theirs)
    our_optimizer = set_up(fastadam, variant, ours)
    random = np.random.RandomState(3)
    with np.errstate(all="ignore"):
        for t in range(1, 6):
            grads = {name: gradient(random, name, t, dtype) for name in SHAPES}
            if t == 3:
                grads["W"][2, 3:9] = bad
                grads["scale"][:] = bad
            for name, param in theirs.namedparams():
                param.grad = grads[name.strip("/")].copy()
            their_optimizer.update()
            our_optimizer.apply_gradients(grads)
    for name, param in theirs.namedparams():
        mine = our_optimizer.parameters[name.strip("/")]
        np.testing.assert_array_equal(mine.array, param.array)
        for key, expected in param.update_rule.state.items():
            np.testing.assert_array_equal(mine.update_rule.state[key], expected)


@pytest.mark.parametrize("variant", VARIANTS)
def test_zero_dim_float32_follows_arrays_of_one_element(variant: str) -> None:
    """A departure: on NumPy 1.26, Chainer steps 0-dim float32 parameters partly in float64."""
    random = np.random.RandomState(5)
    ours = {"zero": np.array(0.7, np.float32), "one": np.array([0.7], np.float32)}
    link = chainer.Link()
    with link.init_scope():
        link.zero = chainer.Parameter(np.array(0.7, np.float32))
    our_optimizer = set_up(fastadam, variant, ours)
    their_optimizer = set_up(chainer.optimizers, variant, link)
    for _ in range(100):
        g = random.standard_normal()
        link.zero.grad = np.array(g, np.float32)
        their_optimizer.update()
        our_optimizer.apply_gradients({"zero": np.float32(g), "one": np.array([g], np.float32)})
    assert ours["zero"].shape == ()
    same_bits(ours["zero"].reshape(1), ours["one"])
    np.testing.assert_allclose(ours["zero"], link.zero.array, rtol=1e-4)
