"""PyTorch's AdamW, Adam and AMSGrad as oracles, where the formulas agree.

With eps_mode='paper' and decay_mode='alpha' the formulas are the same but for the order of
operations: float64 runs agree to rounding.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastadam

torch = pytest.importorskip("torch", reason="needs PyTorch; tox -e peers installs it")

SHAPES = ((13, 7), (7,), (1,))
STEPS = 200


def gradients(seed: int) -> list[list[np.ndarray]]:
    """Gradients for every step and parameter."""
    random = np.random.default_rng(seed)
    return [[random.standard_normal(shape) for shape in SHAPES] for _ in range(STEPS)]


def start() -> list[np.ndarray]:
    """The parameters at the start."""
    random = np.random.default_rng(99)
    return [random.standard_normal(shape) for shape in SHAPES]


CASES: dict[str, tuple[Any, dict[str, Any], Any, dict[str, Any]]] = {
    "adam": (
        fastadam.Adam,
        {"alpha": 0.02, "beta1": 0.8, "beta2": 0.95, "eps": 1e-3},
        "Adam",
        {"lr": 0.02, "betas": (0.8, 0.95), "eps": 1e-3},
    ),
    "adamw": (
        fastadam.AdamW,
        {"alpha": 0.02, "beta1": 0.8, "beta2": 0.95, "eps": 1e-3, "weight_decay_rate": 0.3}
        | {"decay_mode": "alpha"},
        "AdamW",
        {"lr": 0.02, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.3},
    ),
    "amsgrad": (
        fastadam.AMSGrad,
        {"alpha": 0.02, "beta1": 0.8, "beta2": 0.95, "eps": 1e-3},
        "Adam",
        {"lr": 0.02, "betas": (0.8, 0.95), "eps": 1e-3, "amsgrad": True},
    ),
    "adamw, converted by hand": (
        fastadam.AdamW,
        {"alpha": 0.02, "beta1": 0.8, "beta2": 0.95, "eps": 1e-3, "weight_decay_rate": 0.006},
        "AdamW",
        {"lr": 0.02, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.3},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_same_training_as_torch(case: str) -> None:
    ours_class, our_arguments, their_name, their_arguments = CASES[case]
    ours = start()
    our_optimizer = ours_class(**our_arguments, eps_mode="paper").setup(ours)
    theirs = [torch.tensor(array, requires_grad=True) for array in start()]
    their_optimizer = getattr(torch.optim, their_name)(theirs, **their_arguments)
    for grads in gradients(4):
        our_optimizer.apply_gradients(grads)
        for tensor, grad in zip(theirs, grads, strict=True):
            tensor.grad = torch.tensor(grad)
        their_optimizer.step()
    for mine, tensor in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, tensor.detach().numpy(), rtol=1e-11, atol=1e-12)


def test_one_model_steps_torchs_memory() -> None:
    """A tensor's memory as a NumPy array: fastadam updates the PyTorch parameter itself."""
    model = torch.nn.Linear(3, 2)
    arrays = {name: param.detach().numpy() for name, param in model.named_parameters()}
    before = {name: array.copy() for name, array in arrays.items()}
    opt = fastadam.Adam(alpha=0.1).setup({k.replace("/", "."): a for k, a in arrays.items()})
    loss = model(torch.ones(4, 3)).square().sum()
    loss.backward()
    opt.apply_gradients({name: p.grad.numpy() for name, p in model.named_parameters()})
    for name, param in model.named_parameters():
        assert np.all(param.detach().numpy() != before[name])
