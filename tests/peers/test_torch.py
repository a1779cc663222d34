"""PyTorch's AdamW, Adam and AMSGrad as oracles, where the formulas agree.

With eps_mode='paper' and decay_mode='alpha' the formulas are the same but for the order of
operations: float64 runs agree to rounding.
"""

from __future__ import annotations

import textwrap
from pathlib import Path
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


# The loop of the page for people who train PyTorch's models.
PAGE = Path(__file__).parents[2] / "docs" / "quickstart.rst"


def recipe() -> str:
    """Return the last block of code of the page, which is that loop."""
    block = PAGE.read_text(encoding="utf-8").rpartition(".. code-block:: python\n")[2]
    lines = block.lstrip("\n").split("\n")
    return textwrap.dedent("\n".join(line for line in lines if not line or line[0] == " "))


class Model(torch.nn.Module):  # type: ignore[misc, name-defined]
    """A frozen layer, one that the loss uses, and one that it does not."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.frozen = torch.nn.Linear(4, 8)
        self.used = torch.nn.Linear(8, 1)
        self.unused = torch.nn.Linear(3, 2)
        for param in self.frozen.parameters():
            param.requires_grad_(False)

    def forward(self, x: Any) -> Any:
        return self.used(torch.tanh(self.frozen(x)))


def batches(n: int) -> list[tuple[Any, Any]]:
    """Return inputs and what is wanted for them."""
    torch.manual_seed(1)
    inputs = [torch.randn(16, 4) for _ in range(n)]
    return [(x, x.sum(1, keepdim=True)) for x in inputs]


def test_the_loop_of_the_page_is_torchs_adamw() -> None:
    ours, theirs = Model(), Model()
    start = {name: p.detach().clone() for name, p in ours.named_parameters()}

    def replaced(model: Any, data: list[Any]) -> Any:
        """Give the model other memory on the way."""
        for i, batch in enumerate(data):
            if i == 100:
                state = {name: value.clone() for name, value in model.state_dict().items()}
                model.load_state_dict(state, assign=True)
            yield batch

    names = {"fastadam": fastadam, "model": ours, "loss_function": torch.nn.functional.mse_loss}
    exec(recipe(), {**names, "batches": replaced(ours, batches(200))})
    opt = torch.optim.AdamW(theirs.parameters(), lr=1e-3, weight_decay=0.01)
    for x, y in batches(200):
        opt.zero_grad()
        torch.nn.functional.mse_loss(theirs(x), y).backward()
        opt.step()
    for (name, mine), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        np.testing.assert_allclose(mine.detach(), other.detach(), atol=1e-6, err_msg=name)
        assert torch.equal(mine.detach(), start[name]) == (not name.startswith("used")), name


def test_a_model_that_changes_its_dtype_is_not_trained_beside_its_memory() -> None:
    model = Model()

    def doubled() -> Any:
        yield from batches(3)
        model.double()
        yield from ((x.double(), y.double()) for x, y in batches(1))

    names = {"fastadam": fastadam, "model": model, "loss_function": torch.nn.functional.mse_loss}
    with pytest.raises(TypeError, match=r"'used.weight' has dtype float64.*set the optimizer up"):
        exec(recipe(), {**names, "batches": doubled()})
