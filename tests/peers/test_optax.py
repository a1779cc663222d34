"""optax's adamw as an oracle, and JAX gradients as input."""

from __future__ import annotations

import numpy as np
import pytest

import fastadam

optax = pytest.importorskip("optax", reason="needs optax; tox -e peers installs it")
jax = pytest.importorskip("jax", reason="needs JAX; tox -e peers installs it")


@pytest.fixture(autouse=True)
def _float64() -> None:
    jax.config.update("jax_enable_x64", True)


def test_same_training_as_optax_adamw_on_jax_gradients() -> None:
    random = np.random.default_rng(2)
    inputs, outputs = random.standard_normal((20, 5)), random.standard_normal(20)

    def loss(params: dict[str, object]) -> object:
        return ((inputs @ params["w"] + params["b"] - outputs) ** 2).mean()

    ours = {"w": np.ones(5), "b": np.array(0.5)}
    theirs = {key: jax.numpy.array(array) for key, array in ours.items()}
    their_method = optax.adamw(0.02, b1=0.8, b2=0.95, eps=1e-3, weight_decay=0.3)
    state = their_method.init(theirs)
    modes = {"eps_mode": "paper", "decay_mode": "alpha"}
    opt = fastadam.AdamW(0.02, 0.8, 0.95, 1e-3, weight_decay_rate=0.3, **modes).setup(ours)
    value_and_grad = jax.value_and_grad(loss)
    for _ in range(200):
        value = opt.update(value_and_grad, ours)
        their_value, grads = value_and_grad(theirs)
        assert float(value) == pytest.approx(float(their_value), rel=1e-10)
        updates, state = their_method.update(grads, state, theirs)
        theirs = optax.apply_updates(theirs, updates)
    for key, array in ours.items():
        np.testing.assert_allclose(array, np.asarray(theirs[key]), rtol=1e-8)


def test_a_jax_array_as_a_parameter_says_what_to_do() -> None:
    with pytest.raises(TypeError, match=r"JAX array.*numpy.array"):
        fastadam.Adam().setup({"w": jax.numpy.ones(3)})
