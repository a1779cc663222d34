"""Data parallelism with two processes, and PyTorch's distributed checkpoints."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed
import torch.multiprocessing

import fastadam.torch

pytestmark = [
    pytest.mark.serial,
    pytest.mark.skipif(
        not torch.distributed.is_available(), reason="this PyTorch is built without distributed"
    ),
]


def network() -> torch.nn.Module:
    torch.manual_seed(5)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2
    )
    model = torch.nn.parallel.DistributedDataParallel(network())
    opt = fastadam.torch.AdamW(model.parameters(), lr=0.05, max_grad_norm=1.0)
    for k in range(4):
        x = torch.linspace(-1, 1, 32).reshape(8, 4)[rank::2] * (k + 1)
        opt.zero_grad()
        (model(x) ** 2).mean().backward()
        opt.step()
    torch.save([p.detach() for p in model.parameters()], f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(work, args=(str(tmp_path),), nprocs=2)
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


def shard(rank: int, folder: str) -> None:
    fsdp = __import__("torch.distributed.fsdp", fromlist=["fully_shard"])
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2
    )
    mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (2,))
    model, other = network(), network()
    found = []
    for each, library in ((model, fastadam.torch), (other, torch.optim)):
        fsdp.fully_shard(each, mesh=mesh)
        opt = library.AdamW(each.parameters(), lr=0.05)
        for k in range(4):
            x = torch.linspace(-1, 1, 32).reshape(8, 4)[rank::2] * (k + 1)
            opt.zero_grad()
            (each(x) ** 2).mean().backward()
            opt.step()
        found.append([p.full_tensor().detach() for p in each.parameters()])
        if library is fastadam.torch:
            opt.max_grad_norm = 1.0
            with pytest.raises(ValueError, match="DTensor"):
                opt.step()
    if rank == 0:
        torch.save(found, f"{folder}/found.pt")
    torch.distributed.destroy_process_group()


def test_sharded_parameters(tmp_path: Path) -> None:
    fsdp = pytest.importorskip("torch.distributed.fsdp")
    if not hasattr(fsdp, "fully_shard"):
        pytest.skip("this PyTorch has no fully_shard")
    torch.multiprocessing.spawn(shard, args=(str(tmp_path),), nprocs=2)
    ours, theirs = torch.load(tmp_path / "found.pt", weights_only=True)
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)
    assert not torch.equal(ours[0], next(network().parameters()).detach())
