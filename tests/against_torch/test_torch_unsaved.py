"""What cannot be saved or loaded is told in words that say what it is, and what to do."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch_pairs import named

import fastadam
import fastadam.torch


def quantized() -> torch.Tensor:
    with warnings.catch_warnings():
        # deprecated
        warnings.simplefilter("ignore")
        return torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)


BUFFERS: dict[str, Callable[[], torch.Tensor]] = {
    "float8_e4m3fn": lambda: torch.ones(3).to(torch.float8_e4m3fn),
    "qint8": quantized,
    "sparse_coo": lambda: torch.eye(3).to_sparse(),
    "meta": lambda: torch.ones(3, device="meta"),
}


@pytest.mark.parametrize("what", BUFFERS)
def test_buffers(tmp_path: Path, what: str) -> None:
    model = torch.nn.Linear(2, 2)
    model.register_buffer("odd", BUFFERS[what]())
    opt = fastadam.Adam().setup(model)
    with pytest.raises(TypeError, match=f"buffer 'odd': .*{what}.* cannot be saved or loaded"):
        fastadam.save(tmp_path / "run.npz", opt)


def test_parameters(tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    p = torch.nn.Parameter(torch.ones(3, device="meta"))
    opt = fastadam.torch.Adam([p])
    with pytest.raises(
        TypeError, match=r"^cannot save parameter '0': a tensor of .* cannot be saved"
    ):
        fastadam.save(path, opt)
    with pytest.raises(TypeError, match=r"^parameter '0': a tensor of .* cannot be compared"):
        fastadam.snapshot(opt)


def test_uninitialised_parameters(tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    layer = torch.nn.LazyLinear(3)
    opt = fastadam.torch.Adam(named(layer.named_parameters()))
    with pytest.raises(ValueError, match=r"parameter '(0|weight)': it is uninitialised yet: call"):
        fastadam.save(path, opt)
    assert not path.exists()
    fastadam.save(path, fastadam.torch.Adam(named(torch.nn.Linear(2, 3).named_parameters())))
    for doing in (lambda: fastadam.load(path, opt), lambda: fastadam.snapshot(opt)):
        with pytest.raises(ValueError, match=r"parameter '(0|weight)'.* uninitialised yet: call"):
            doing()
    # a step leaves what has no gradient
    opt.step()
    layer(torch.ones(2))
    fastadam.load(path, opt)
    layer(torch.ones(2)).sum().backward()
    opt.step()
    fastadam.save(path, opt)


@pytest.mark.parametrize("value", [1 << 80, -(1 << 64), (1, 1 << 80)])
def test_integers_of_more_than_64_bits(tmp_path: Path, value: Any) -> None:
    opt = fastadam.torch.Adam([torch.nn.Parameter(torch.ones(2))])
    opt.param_groups[0]["seed"] = value
    with pytest.raises(TypeError, match=r"fastadam/group/0/seed': .*64 bits.*as a string"):
        fastadam.save(tmp_path / "run.npz", opt)
    opt.param_groups[0]["seed"] = str(value)
    fastadam.save(tmp_path / "run.npz", opt)
    opt.param_groups[0]["seed"] = None
    fastadam.load(tmp_path / "run.npz", opt)
    assert opt.param_groups[0]["seed"] == str(value)


@pytest.mark.parametrize("value", [2**64 - 1, -(2**63)])
def test_integers_of_64_bits(tmp_path: Path, value: int) -> None:
    opt = fastadam.torch.Adam([torch.nn.Parameter(torch.ones(2))])
    opt.param_groups[0]["seed"] = value
    fastadam.save(tmp_path / "run.npz", opt)
    opt.param_groups[0]["seed"] = None
    fastadam.load(tmp_path / "run.npz", opt)
    assert opt.param_groups[0]["seed"] == value
