"""What an attack has found, beside PyTorch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch_pairs import named

import fastadam.torch


def stepped(opt: Any, *params: torch.Tensor) -> None:
    for p in params:
        p.grad = torch.ones_like(p)
    opt.step()


@pytest.mark.parametrize(
    ("one", "other"), [(slice(None), slice(None, None, 2)), (slice(0, None, 2), slice(0, None, 3))]
)
def test_parameters_that_share_memory_with_gaps(one: slice, other: slice) -> None:
    x = torch.arange(12.0)
    p, q = torch.nn.Parameter(x[one]), torch.nn.Parameter(x[other])
    opt = fastadam.torch.AdamW(named([("p", p), ("q", q)]), lr=0.1)
    with pytest.raises(ValueError, match=r"parameters '[pq]' and '[pq]' share memory"):
        stepped(opt, p, q)
    assert x.tolist() == list(range(12))
    assert not opt.state


def test_parameters_with_gaps_that_lie_in_one_another() -> None:
    x, y = torch.arange(12.0), torch.arange(12.0)
    pairs = []
    for cls, memory in ((fastadam.torch.AdamW, x), (torch.optim.AdamW, y)):
        p, q = torch.nn.Parameter(memory[::2]), torch.nn.Parameter(memory[1::2])
        opt = cls([p, q], lr=0.1)
        for _ in range(3):
            stepped(opt, p, q)
        pairs.append(memory)
    torch.testing.assert_close(*pairs)


def test_bounds_after_a_warm_up_from_0() -> None:
    p, q = (torch.nn.Parameter(torch.ones(3)) for _ in range(2))
    late = fastadam.torch.AdaBound([p], lr=0.0)
    stepped(late, p)
    assert p.tolist() == [1, 1, 1]
    late.param_groups[0]["lr"] = 0.1
    for _ in range(2):
        stepped(late, p)
    assert late.param_groups[0]["base_lr"] == 0.1
    plain = fastadam.torch.AdaBound([q], lr=0.1)
    plain.state[q] = {
        "step": torch.tensor(1.0),
        "exp_avg": torch.full((3,), 0.1),
        "exp_avg_sq": torch.full((3,), 0.001),
    }
    for _ in range(2):
        stepped(plain, q)
    torch.testing.assert_close(p, q)


def test_another_default_device() -> None:
    pairs = []
    for cls in (fastadam.torch.AdamW, torch.optim.AdamW):
        p = torch.nn.Parameter(torch.ones(3))
        opt = cls([p], lr=0.1)
        gradients = [torch.tensor([0.5, -1.0, 2.0]) for _ in range(3)]
        # PyTorch 2.4 itself cannot step there
        torch.set_default_device("meta" if cls is fastadam.torch.AdamW else "cpu")
        try:
            for gradient in gradients:
                p.grad = gradient
                opt.step()
            opt.load_state_dict(opt.state_dict())
        finally:
            torch.set_default_device("cpu")
        assert opt.state[p]["step"].device.type == "cpu"
        pairs.append(p)
    torch.testing.assert_close(*pairs)


def test_masters_that_are_switched_on_later() -> None:
    p = torch.nn.Parameter(torch.ones(3, dtype=torch.float16))
    opt = fastadam.torch.AdamW([p], lr=1e-4, weight_decay=0.0)
    for _ in range(3):
        stepped(opt, p)
    assert "master_param" not in opt.state[p]
    assert p.tolist() == [1, 1, 1]
    opt.master_weights = True
    for _ in range(3):
        stepped(opt, p)
    torch.testing.assert_close(opt.state[p]["master_param"], torch.full((3,), 0.9997))
    opt.master_weights = False
    stepped(opt, p)
    assert opt.state[p]["step"] == 7
