"""The specification itself, against the papers' algorithms in float64."""

from __future__ import annotations

import numpy as np
import pytest

from fastadam.algorithms.coefficients import step_coefficients
from fastadam.kernels.reference import adam_reference

HYPERPARAM = {
    "alpha": 0.02,
    "beta1": 0.83,
    "beta2": 0.971,
    "eps": 3e-4,
    "eta": 0.77,
    "weight_decay_rate": 0.013,
    "amsgrad": False,
    "adabound": False,
    "final_lr": 0.04,
    "gamma": 0.03,
}


def papers_algorithm(
    p: np.ndarray, gradients: list[np.ndarray], eps_mode: str, amsgrad: bool, adabound: bool
) -> np.ndarray:
    """Adam as printed: bias-corrected moments, decoupled decay; AMSGrad and AdaBound on top."""
    hp = HYPERPARAM
    m = v = vmax = np.zeros_like(p)
    for t, g in enumerate(gradients, 1):
        m = hp["beta1"] * m + (1 - hp["beta1"]) * g
        v = hp["beta2"] * v + (1 - hp["beta2"]) * g**2
        vmax = np.maximum(vmax, v)
        m_hat = m / (1 - hp["beta1"] ** t)
        v_hat = (vmax if amsgrad else v) / (1 - hp["beta2"] ** t)
        eps = hp["eps"]
        if eps_mode == "hat":
            eps /= np.sqrt(1 - hp["beta2"] ** t)
        size = hp["alpha"] / (np.sqrt(v_hat) + eps)
        if adabound:
            # the bounds are on the factor of m itself, as in the authors' code
            size /= 1 - hp["beta1"] ** t
            lower = hp["final_lr"] * (1 - 1 / (hp["gamma"] * t + 1))
            upper = hp["final_lr"] * (1 + 1 / (hp["gamma"] * t))
            step = np.clip(size, lower, upper) * m
        else:
            step = size * m_hat
        p = p - hp["eta"] * (step + hp["weight_decay_rate"] * p)
    return p


@pytest.mark.parametrize("eps_mode", ["hat", "paper"])
@pytest.mark.parametrize("adabound", [False, True])
@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize(("dtype", "rtol"), [("float64", 1e-12), ("float32", 2e-5)])
def test_papers_algorithm(
    dtype: str, rtol: float, amsgrad: bool, adabound: bool, eps_mode: str
) -> None:
    random = np.random.default_rng(3)
    start = random.uniform(0.5, 2, 200) * random.choice([-1, 1], 200)
    gradients = list(random.standard_normal((25, 200)) * np.linspace(2, 0.1, 25)[:, None])
    p = start.astype(dtype)
    m, v, vhat = (np.zeros_like(p) for _ in range(3))
    hp = {**HYPERPARAM, "amsgrad": amsgrad, "adabound": adabound, "eps_mode": eps_mode}
    for t, g in enumerate(gradients, 1):
        c = step_coefficients(hp, t)
        adam_reference(p, g.astype(dtype), m, v, vhat if amsgrad else None, c)
    expected = papers_algorithm(start, gradients, eps_mode, amsgrad, adabound)
    np.testing.assert_allclose(p, expected, rtol=rtol, atol=rtol)
    assert np.any(vhat > 0) == amsgrad


def test_amsgrad_needs_vhat() -> None:
    p, g, m, v = np.ones((4, 3))
    c = step_coefficients({**HYPERPARAM, "amsgrad": True}, 1)
    with pytest.raises(ValueError, match="vhat"):
        adam_reference(p, g, m, v, None, c)


def test_first_step_by_hand() -> None:
    """With m = v = 0 the first step is alpha * sign(g), whatever the gradient's size."""
    p = np.zeros(3)
    hp = {**HYPERPARAM, "eps": 0.0, "eta": 1.0, "weight_decay_rate": 0.0}
    adam_reference(
        p, np.array([1e-3, -5.0, 7e4]), np.zeros(3), np.zeros(3), None, step_coefficients(hp, 1)
    )
    np.testing.assert_allclose(p, [-0.02, 0.02, -0.02], rtol=1e-14)
