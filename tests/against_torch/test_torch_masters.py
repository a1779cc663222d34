"""Half-precision parameters that are stepped through float32 masters."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch_pairs import same, snapshot

import fastadam.torch

DTYPES = [torch.float16, torch.bfloat16]


def halves(dtype: torch.dtype, *shape: int) -> tuple[torch.nn.Parameter, torch.nn.Parameter]:
    """A half-precision parameter, and one of float32 with its values."""
    if dtype is torch.bfloat16:
        pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")
    p = torch.nn.Parameter(torch.randn(shape).to(dtype))
    return p, torch.nn.Parameter(p.detach().float())


@pytest.mark.parametrize("options", [{}, {"max_grad_norm": 0.5}, {"amsgrad": True}])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_run_is_that_of_float32(dtype: torch.dtype, options: dict[str, Any]) -> None:
    p, q = halves(dtype, 30, 7)
    ours = fastadam.torch.AdamW([p], lr=1e-4, weight_decay=0.3, master_weights=True, **options)
    theirs = fastadam.torch.AdamW([q], lr=1e-4, weight_decay=0.3, **options)
    for _ in range(30):
        p.grad = torch.randn(30, 7).to(dtype)
        q.grad = p.grad.float()
        ours.step()
        theirs.step()
        state = ours.state[p]
        assert torch.equal(state["master_param"], q)
        assert torch.equal(p, q.detach().to(dtype))
        assert torch.equal(state["exp_avg_sq"], theirs.state[q]["exp_avg_sq"])
    assert (ours.last_update.grad_norm is None) == ("max_grad_norm" not in options)


@pytest.mark.parametrize("dtype", DTYPES)
def test_parameters_without_a_dense_layout(dtype: torch.dtype) -> None:
    p, q = halves(dtype, 6, 4)
    p.data = torch.stack([p.data, p.data], -1)[..., 0]
    ours = fastadam.torch.Adam([p], lr=1e-3, master_weights=True, maximize=True)
    theirs = fastadam.torch.Adam([q], lr=1e-3, maximize=True)
    for _ in range(5):
        p.grad = torch.randn(6, 4).to(dtype)
        q.grad = p.grad.float()
        ours.step()
        theirs.step()
    assert torch.equal(ours.state[p]["master_param"], q)
    assert torch.equal(p, q.detach().to(dtype))


def test_checkpoints_go_on_with_the_master() -> None:
    p, _ = halves(torch.float16, 12)
    opt = fastadam.torch.AdamW([p], lr=1e-4, master_weights=True)
    for _ in range(3):
        p.grad = torch.randn(12).half()
        opt.step()
    other = torch.nn.Parameter(p.detach().clone())
    again = fastadam.torch.AdamW([other], lr=1e-4, master_weights=True)
    again.load_state_dict(opt.state_dict())
    p.grad = other.grad = torch.randn(12).half()
    opt.step()
    again.step()
    assert torch.equal(opt.state[p]["master_param"], again.state[other]["master_param"])
    plain = fastadam.torch.AdamW([other], lr=1e-4)
    before = snapshot(plain)
    with pytest.raises(ValueError, match="master_weights=True"):
        plain.load_state_dict(opt.state_dict())
    assert same(snapshot(plain), before)
    # PyTorch takes them, and leaves the master alone
    torch.optim.AdamW([other], lr=1e-4).load_state_dict(opt.state_dict())
    # and states without masters get them from their parameters
    state = opt.state_dict()
    for own in state["state"].values():
        del own["master_param"]
    again.load_state_dict(state)
    again.step()
    assert again.state[other]["master_param"].dtype is torch.float32


def test_wide_parameters_have_no_master() -> None:
    p, q = halves(torch.float16, 5)
    opt = fastadam.torch.Adam([p, q], lr=0.1, master_weights=True)
    p.grad, q.grad = torch.ones(5).half(), torch.ones(5)
    opt.step()
    assert "master_param" in opt.state[p]
    assert "master_param" not in opt.state[q]


def test_text_is_no_truth_value() -> None:
    with pytest.raises(TypeError, match="master_weights must be True or False, not str 'no'"):
        fastadam.torch.AdamW([torch.nn.Parameter(torch.ones(2))], master_weights="no")
