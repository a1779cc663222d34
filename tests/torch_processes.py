"""What each of two processes does in tests of distributed training.

Usage: python torch_processes.py data|shards RANK FOLDER
"""

from __future__ import annotations

import sys

import pytest
import torch
import torch.distributed

import fastadam.torch


def network() -> torch.nn.Module:
    torch.manual_seed(5)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))


def data(rank: int, folder: str) -> None:
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


def shards(rank: int, folder: str) -> None:
    from torch.distributed.fsdp import fully_shard

    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2
    )
    mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (2,))
    model, other = network(), network()
    found = []
    for each, library in ((model, fastadam.torch), (other, torch.optim)):
        fully_shard(each, mesh=mesh)
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


if __name__ == "__main__":
    {"data": data, "shards": shards}[sys.argv[1]](int(sys.argv[2]), sys.argv[3])
