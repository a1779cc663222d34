"""AdaBound and AMSBound, beside the code of their authors."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import fastadam.torch


def authors_step(
    p: torch.Tensor, state: dict[str, Any], lr: float, base: float, options: dict[str, Any]
) -> None:
    """The step of the authors' adabound.py, with its names."""
    grad = p.grad
    if options["weight_decay"] != 0:
        grad = grad.add(p.detach(), alpha=options["weight_decay"])
    beta1, beta2 = options["betas"]
    state["step"] += 1
    state["exp_avg"].mul_(beta1).add_(grad, alpha=1 - beta1)
    state["exp_avg_sq"].mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
    v = state["exp_avg_sq"]
    if options["amsgrad"]:
        torch.maximum(state["max_exp_avg_sq"], v, out=state["max_exp_avg_sq"])
        v = state["max_exp_avg_sq"]
    t = state["step"]
    step_size = lr * math.sqrt(1 - beta2**t) / (1 - beta1**t)
    final = options["final_lr"] * lr / base
    lower = final * (1 - 1 / (options["gamma"] * t + 1))
    upper = final * (1 + 1 / (options["gamma"] * t))
    size = torch.full_like(v, step_size).div_(v.sqrt().add_(options["eps"])).clamp_(lower, upper)
    p.data.add_(-size * state["exp_avg"])


@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("decay", [0.0, 0.2])
def test_steps(amsgrad: bool, decay: float) -> None:
    kind = fastadam.torch.AMSBound if amsgrad else fastadam.torch.AdaBound
    options = {"betas": (0.8, 0.95), "eps": 1e-5, "weight_decay": decay, "gamma": 0.1}
    p, q = (torch.nn.Parameter(torch.linspace(-1, 1, 40)) for _ in range(2))
    opt = kind([p], lr=0.02, final_lr=0.05, **options)
    state = {"step": 0, **{key: torch.zeros(40) for key in ("exp_avg", "exp_avg_sq")}}
    state["max_exp_avg_sq"] = torch.zeros(40)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(opt, 0.7)
    for t in range(6):
        p.grad = q.grad = torch.randn(40) * 10.0 ** (t % 3 - 1)
        authors_step(
            q, state, 0.02 * 0.7**t, 0.02, {**options, "final_lr": 0.05, "amsgrad": amsgrad}
        )
        opt.step()
        scheduler.step()
        torch.testing.assert_close(p, q, rtol=2e-6, atol=2e-6)
    # the learning rate of a group's beginning goes with it
    assert opt.state_dict()["param_groups"][0]["base_lr"] == 0.02
    again = kind([torch.nn.Parameter(p.detach().clone())], lr=9.0)
    again.load_state_dict(opt.state_dict())
    other = again.param_groups[0]["params"][0]
    p.grad = other.grad = torch.randn(40)
    opt.step()
    again.step()
    assert torch.equal(p, other)


def test_decoupled_decay_and_maximize() -> None:
    p, q = (torch.nn.Parameter(torch.ones(3)) for _ in range(2))
    grad = torch.tensor([1.0, -2.0, 0.5])
    ours = fastadam.torch.AdaBound(
        [p], lr=0.1, weight_decay=0.5, decoupled_weight_decay=True, maximize=True
    )
    plain = fastadam.torch.AdaBound([q], lr=0.1)
    p.grad, q.grad = grad, -grad
    ours.step()
    plain.step()
    torch.testing.assert_close(p.detach() - 0.95, q.detach() - 1.0, rtol=1e-5, atol=1e-6)


def test_arguments() -> None:
    params = [torch.nn.Parameter(torch.ones(3))]
    for options, message in (
        ({"lr": -1.0}, "learning rate"),
        ({"eps": -1.0}, "epsilon"),
        ({"betas": (0.5, 1.0)}, "index 1"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"final_lr": -1.0}, "final_lr"),
        ({"gamma": -1.0}, "gamma"),
    ):
        with pytest.raises(ValueError, match=message):
            fastadam.torch.AdaBound(params, **options)
    assert isinstance(fastadam.torch.AdaBound(params), torch.optim.Optimizer)
    late = fastadam.torch.AMSBound(params, lr=0.5)
    late.add_param_group({"params": [torch.nn.Parameter(torch.ones(1))], "lr": 0.25})
    assert [group["base_lr"] for group in late.param_groups] == [0.5, 0.25]
    assert [group["amsgrad"] for group in late.param_groups] == [True, True]
    state = torch.optim.Adam(params, lr=0.1).state_dict()
    with pytest.raises(ValueError, match="no 'final_lr' and no 'gamma'"):
        fastadam.torch.AdaBound(params).load_state_dict(state)
