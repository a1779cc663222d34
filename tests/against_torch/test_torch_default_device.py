"""A default device that is not the CPU changes nothing: what is made, is made on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import fastadam
import fastadam.torch
from fastadam.torch import tensors


# the second is refused by PyTorch where there is none
@pytest.mark.parametrize("device", ["meta", "cuda"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.complex64], ids=str)
def test_saved_and_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, device: str
) -> None:
    def made(value: float) -> tuple[torch.nn.Parameter, Any]:
        p = torch.nn.Parameter(torch.full((3,), value, dtype=dtype, device="cpu"))
        options: dict[str, Any] = {"amsgrad": True, "master_weights": True}
        opt = fastadam.torch.AdamW([p], lr=torch.tensor(0.1, device="cpu"), **options)
        p.grad = torch.ones_like(p)
        opt.step()
        return p, opt

    path = tmp_path / "run.npz"
    # which is made with the first tensor that is read
    monkeypatch.setattr(tensors, "_reader", None)
    with torch.device(device):
        _, opt = made(2.0)
        fastadam.save(path, opt)
        p, other = made(1.0)
        fastadam.load(path, other)
        assert not fastadam.compare(opt, other)
        p.grad = torch.ones_like(p)
        other.step()
    states = [p, *other.state[p].values()]
    assert {each.device.type for each in states} == {"cpu"}
    assert (p.detach().abs() < 2).all()
