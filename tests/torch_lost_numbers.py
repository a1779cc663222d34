"""Steps with numbers in tensors whose memory is gone: a wrong read may end the process.

Usage: python torch_lost_numbers.py
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch_pairs import same, snapshot

import fastadam.torch

NUMBERS = {
    "AdamW": ("lr", "betas", "eps", "weight_decay"),
    "AdaBound": ("lr", "betas", "final_lr", "gamma", "base_lr"),
}

MAKE: dict[str, Callable[[], torch.Tensor]] = {
    "float32": lambda: torch.tensor(0.01),
    # whose memory the system gets back
    "the last of many": lambda: torch.full((2**20,), 0.01, dtype=torch.float64)[-1],
    "bfloat16": lambda: torch.tensor(0.01, dtype=torch.bfloat16),
    "a negative view": lambda: torch._neg_view(torch.tensor(-0.01)),
}


def put(opt: Any, key: str, number: Any) -> None:
    """Give the group a number."""
    opt.param_groups[0][key] = [0.9, number] if key == "betas" else number


def refused(opt: Any, key: str, number: torch.Tensor, words: str) -> None:
    """Check that a step with this number is refused by name, and changes nothing."""
    plain = opt.defaults.get(key, 1e-3)
    opt.param_groups[0][key] = plain
    before = snapshot(opt)
    put(opt, key, number)
    with pytest.raises(RuntimeError, match=rf"^{key} of param_groups\[0\] has no memory .*{words}"):
        opt.step()
    opt.param_groups[0][key] = plain
    assert same(snapshot(opt), before)


def steps() -> None:
    """Try all of them before the first step, and after others."""
    for kind, keys in NUMBERS.items():
        for key in keys:
            for make in MAKE.values():
                p = torch.nn.Parameter(torch.ones(3))
                p.grad = torch.ones(3)
                opt = getattr(fastadam.torch, kind)([p])
                for _ in range(2):
                    number, lost = make(), make()
                    refused(opt, key, number.to("meta"), "on meta")
                    lost.untyped_storage().resize_(0)
                    refused(opt, key, lost, "its memory was freed or shrunk")
                    # and one that was read before
                    put(opt, key, number)
                    opt.step()
                    number.untyped_storage().resize_(1)
                    refused(opt, key, number, "its memory was freed or shrunk")


def first_rates() -> None:
    """Try rates that groups of AdaBound begin with."""
    lr = torch.tensor(0.5)
    opt = fastadam.torch.AdaBound([torch.nn.Parameter(torch.ones(2))], lr=lr)
    lr.untyped_storage().resize_(0)
    # what is known is not read again
    opt.__setstate__(opt.__getstate__())
    assert opt.param_groups[0]["base_lr"] == 0.5
    added = {"params": [torch.nn.Parameter(torch.ones(2))]}
    with pytest.raises(RuntimeError, match=r"^lr of param_groups\[1\] has no memory"):
        opt.add_param_group(added)
    assert len(opt.param_groups) == 1
    opt.add_param_group({**added, "lr": 0.25, "base_lr": 0.125})
    opt.add_param_group({"params": [torch.nn.Parameter(torch.ones(2))], "lr": 0.25})
    assert [group["base_lr"] for group in opt.param_groups] == [0.5, 0.125, 0.25]


if __name__ == "__main__":
    steps()
    first_rates()
    print("refused")
