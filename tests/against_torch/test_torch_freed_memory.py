"""Tensors whose memory was freed, or shrunk, are refused by name: nothing is read from there."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch_lost_numbers

import fastadam
import fastadam.torch

FREED = "its memory was freed or shrunk"


def freed(tensor: torch.Tensor, n_bytes: int = 0) -> None:
    tensor.untyped_storage().resize_(n_bytes)


def stepped(dtype: torch.dtype = torch.float32) -> tuple[torch.nn.Parameter, Any]:
    if dtype == torch.bfloat16:
        pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")
    p = torch.nn.Parameter(torch.full((4,), 5.0, dtype=dtype))
    opt = fastadam.torch.Adam([p], amsgrad=True)
    p.grad = torch.ones_like(p)
    opt.step()
    return p, opt


LOOKS: dict[str, Callable[[Path, Any], Any]] = {
    "save": fastadam.save,
    "snapshot": lambda _, opt: fastadam.snapshot(opt),
    "compare": lambda _, opt: fastadam.compare(opt, stepped()[1]),
}


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.complex64], ids=str
)
def test_parameters(tmp_path: Path, look: str, dtype: torch.dtype) -> None:
    p, opt = stepped(dtype)
    freed(p)
    path = tmp_path / "run.npz"
    with pytest.raises(TypeError, match=f"parameter '0': {FREED}"):
        LOOKS[look](path, opt)
    assert not path.exists()


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("key", ["step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq", "mine"])
def test_states(tmp_path: Path, look: str, key: str) -> None:
    p, opt = stepped()
    opt.state[p]["mine"] = torch.arange(5)
    freed(opt.state[p][key])
    path = tmp_path / "run.npz"
    with pytest.raises((TypeError, RuntimeError), match=f"0.*{FREED}") as caught:
        LOOKS[look](path, opt)
    assert key in str(caught.value)
    assert not path.exists()


def test_a_large_one_that_was_shrunk(tmp_path: Path) -> None:
    p = torch.nn.Parameter(torch.ones(3000, 1000))
    freed(p, 40)
    # within the storage, and no further
    few = torch.nn.Parameter(torch.as_strided(p.detach(), (8,), (1,), 2))
    opt = fastadam.torch.Adam([few])
    fastadam.save(tmp_path / "run.npz", opt)
    opt.add_param_group({"params": [p]})
    with pytest.raises(TypeError, match=f"parameter '1': {FREED}.* 12000000 bytes.* has 40"):
        fastadam.save(tmp_path / "run.npz", opt)


def test_numbers_in_groups(tmp_path: Path) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        lr = torch.tensor(0.5, dtype=dtype)
        opt = fastadam.torch.Adam([torch.nn.Parameter(torch.ones(2))], lr=lr)
        path = tmp_path / "run.npz"
        fastadam.save(path, opt)
        freed(lr)
        with pytest.raises(TypeError, match=f"fastadam/group/0/lr': {FREED}"):
            fastadam.save(path, opt)
        with pytest.raises(RuntimeError, match=f"lr .*: {FREED}"):
            fastadam.snapshot(opt)
        with pytest.raises(fastadam.CheckpointError, match=f"lr.*: {FREED}"):
            fastadam.load(path, opt)


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.bool], ids=str)
def test_buffers_of_a_module(tmp_path: Path, dtype: torch.dtype) -> None:
    model = torch.nn.Linear(2, 2)
    model.register_buffer("seen", torch.ones(1000, dtype=dtype))
    opt = fastadam.Adam().setup(model)
    path = tmp_path / "run.npz"
    if dtype == torch.float32:
        fastadam.save(path, opt)
    freed(model.seen, 40)
    with pytest.raises(TypeError, match=f"buffer 'seen': {FREED}"):
        fastadam.save(path, opt)
    if dtype == torch.float32:
        with pytest.raises(TypeError, match=f"buffer 'seen': {FREED}"):
            fastadam.load(path, opt)


def test_turned_ones(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 2)
    base = torch.ones(100000, dtype=torch.complex64)
    model.register_buffer("seen", base.conj())
    opt = fastadam.Adam().setup(model)
    fastadam.save(tmp_path / "run.npz", opt)
    freed(base, 8)
    with pytest.raises(TypeError, match=f"buffer 'seen': {FREED}"):
        fastadam.save(tmp_path / "run.npz", opt)


def test_a_save_leaves_memory_to_be_freed(tmp_path: Path) -> None:
    p, opt = stepped()
    fastadam.save(tmp_path / "run.npz", opt)
    fastadam.snapshot(opt)
    # NumPy's arrays of tensor.numpy() would forbid it for ever
    freed(p)
    freed(opt.state[p]["exp_avg"])
    freed(p.grad)
    with pytest.raises(TypeError, match=f"parameter .*: {FREED}"):
        opt.step()


def test_states_that_are_stepped_or_loaded() -> None:
    p, opt = stepped()
    states = copy.deepcopy(opt.state_dict())
    # of another type, it would be cast first
    opt.state[p]["exp_avg"] = wide = torch.ones(4, dtype=torch.float64)
    freed(wide)
    with pytest.raises(RuntimeError, match=f"exp_avg of parameter .*: {FREED}"):
        opt.step()
    states["state"][0]["exp_avg_sq"] = wide
    with pytest.raises(RuntimeError, match=f"exp_avg_sq of parameter .*: {FREED}"):
        opt.load_state_dict(states)


def test_numbers_of_a_step() -> None:
    command = [sys.executable, torch_lost_numbers.__file__]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "refused\n"), done.stderr


@pytest.mark.parametrize("key", ["step", "exp_avg", "max_exp_avg_sq"])
def test_states_that_have_no_memory(key: str) -> None:
    p, opt = stepped()
    opt.state[p][key] = opt.state[p][key].to("meta")
    with pytest.raises(RuntimeError, match=f"^{key} of parameter .* no memory .* on meta"):
        opt.step()
