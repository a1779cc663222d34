"""Files for parameters that share memory: loaded where their values agree, bit for bit."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch_pairs import named, same, snapshot

import fastadam
import fastadam.torch
from fastadam import CheckpointError

Tensors = tuple[torch.Tensor, torch.Tensor]


def overlapping() -> Tensors:
    base = torch.zeros(6)
    return base[:4], base[2:]


def crossed() -> Tensors:
    base = torch.zeros(3, 3)
    return base, base.t()


def halves() -> Tensors:
    base = torch.zeros(4)
    return base, base.view(torch.float16)


def columns() -> Tensors:
    base = torch.zeros(4, 2)
    return base[:, 0], base[:, 1]


def tied() -> Tensors:
    base = torch.zeros(4)
    return base, base.view(4)


SHARED: dict[str, Callable[[], Tensors]] = {
    "one memory": tied,
    "overlapping": overlapping,
    "crossed": crossed,
    "halves": halves,
}


def of(tensors: Tensors) -> Any:
    params = [torch.nn.Parameter(tensor) for tensor in tensors]
    for p, tensor in zip(params, tensors, strict=True):
        assert p.data_ptr() == tensor.data_ptr()
    return fastadam.torch.Adam(named((f"p{i}", p) for i, p in enumerate(params)))


def saved(path: Path, shared: Callable[[], Tensors], change: float) -> None:
    """Save what shares no memory, and agrees but for one element of the second."""
    first, second = shared()
    first.copy_(torch.arange(first.numel()).view(first.shape))
    apart = first.clone(), second.clone()
    apart[1][(0,) * second.ndim] += change
    fastadam.save(path, of(apart))


@pytest.mark.parametrize("shared", SHARED)
def test_values_that_differ_are_refused(tmp_path: Path, shared: str) -> None:
    path = tmp_path / "run.npz"
    saved(path, SHARED[shared], 7)
    opt = of(SHARED[shared]())
    before = snapshot(opt)
    with pytest.raises(CheckpointError, match="'p0' and 'p1' share memory"):
        fastadam.load(path, opt)
    assert same(snapshot(opt), before)
    for how in ({"parameters": False}, {"ignore_names": "target/p1"}):
        fastadam.load(path, opt, **how)


@pytest.mark.parametrize("shared", SHARED)
def test_values_that_agree_are_loaded(tmp_path: Path, shared: str) -> None:
    path = tmp_path / "run.npz"
    saved(path, SHARED[shared], 0)
    opt = of(SHARED[shared]())
    fastadam.load(path, opt)
    first = opt.param_groups[0]["params"][0].detach()
    assert first.flatten().tolist() == list(range(first.numel()))
    # numbers that are equal, and of other bits
    if shared == "one memory":
        a = torch.tensor([0.0, math.nan, 1.0, 2.0])
        fastadam.save(path, of((a, a.clone())))
        fastadam.load(path, opt)
        b = a.clone()
        b[0] = -0.0
        fastadam.save(path, of((a, b)))
        with pytest.raises(CheckpointError, match="share memory"):
            fastadam.load(path, opt)


def test_neighbours_and_columns(tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    for tensors in (columns, lambda: (torch.zeros(8)[:4], torch.zeros(8)[4:])):
        fastadam.save(path, of((torch.full((4,), 1.0), torch.full((4,), 2.0))))
        opt = of(tensors())
        fastadam.load(path, opt)
        assert [p.tolist() for p in opt.param_groups[0]["params"]] == [[1.0] * 4, [2.0] * 4]
