"""Data parallelism with two processes, and PyTorch's distributed checkpoints."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed
import torch_processes
from torch_processes import network

import fastadam.torch

pytestmark = [
    pytest.mark.serial,
    pytest.mark.skipif(
        not torch.distributed.is_available(), reason="this PyTorch is built without distributed"
    ),
]


def run_two(what: str, folder: Path) -> None:
    """Run two processes, and fail if one of them does."""
    script = Path(torch_processes.__file__)
    running = [
        subprocess.Popen([sys.executable, str(script), what, str(rank), str(folder)])
        for rank in range(2)
    ]
    assert [process.wait(timeout=120) for process in running] == [0, 0]


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    run_two("data", tmp_path)
    model = network()
    opt = torch.optim.AdamW(model.parameters(), lr=0.05)
    for k in range(4):
        x = torch.linspace(-1, 1, 32).reshape(8, 4) * (k + 1)
        opt.zero_grad()
        (model(x) ** 2).mean().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for p, q in zip(found, model.parameters(), strict=True):
            torch.testing.assert_close(p, q.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_distributed_checkpoints(tmp_path: Path) -> None:
    checkpoint = pytest.importorskip("torch.distributed.checkpoint")
    states = pytest.importorskip("torch.distributed.checkpoint.state_dict")
    model = network()
    opt = fastadam.torch.AdamW(model.parameters(), lr=0.05)

    def train(model: Any, opt: Any) -> None:
        opt.zero_grad()
        (model(torch.ones(2, 4)) ** 2).mean().backward()
        opt.step()

    train(model, opt)
    found = dict(zip(("model", "opt"), states.get_state_dict(model, opt), strict=True))
    checkpoint.save(found, checkpoint_id=str(tmp_path / "run"))
    kept = copy.deepcopy(opt.state_dict())
    other = network()
    again = fastadam.torch.AdamW(other.parameters(), lr=1.0)
    room = dict(zip(("model", "opt"), states.get_state_dict(other, again), strict=True))
    checkpoint.load(room, checkpoint_id=str(tmp_path / "run"))
    states.set_state_dict(
        other, again, model_state_dict=room["model"], optim_state_dict=room["opt"]
    )
    assert again.param_groups[0]["lr"] == 0.05
    for key, state in kept["state"].items():
        for name, value in state.items():
            assert torch.equal(again.state_dict()["state"][key][name], value)
    for each in ((model, opt), (other, again)):
        train(*each)
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q)


@pytest.mark.slow
def test_sharded_parameters(tmp_path: Path) -> None:
    fsdp = pytest.importorskip("torch.distributed.fsdp")
    if not hasattr(fsdp, "fully_shard"):
        pytest.skip("this PyTorch has no fully_shard")
    run_two("shards", tmp_path)
    ours, theirs = torch.load(tmp_path / "found.pt", weights_only=True)
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)
    assert not torch.equal(ours[0], next(network().parameters()).detach())
