"""What is around a step: threads, processes, compilers, imports."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import threading
from typing import Any

import pytest
import torch
from torch_pairs import Pair, values

import fastadam
import fastadam.torch
from fastadam.kernels.cpu import _threads


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """How many threads each large step was allowed."""
    found: list[int | None] = []
    n_threads = _threads.n_threads

    def noted(total: int, most: int | None = None) -> int:
        found.append(n_threads(total, most))
        return found[-1]

    monkeypatch.setattr(_threads, "n_threads", noted)
    return found


def test_threads_are_those_of_pytorch(asked: list[int | None]) -> None:
    pair = Pair("Adam", [torch.randn(100000)], lr=0.1)
    torch.set_num_threads(1)
    pair.step()
    assert asked == [1]
    fastadam.set_num_threads(2)
    try:
        if fastadam.get_num_threads() == 1:
            pytest.skip("this build has one thread")
        pair.ours.max_grad_norm = 1e9
        pair.step()
    finally:
        fastadam.set_num_threads(None)
    assert asked == [1, 2, 2]
    pair.check()


def test_threads_are_no_more_than_pytorchs(
    asked: list[int | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    # where PyTorch has an OpenMP of its own, fastadam's does not hear of its number
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    pair = Pair("Adam", [torch.randn(100000)], lr=0.1)
    pair.step()
    assert asked == [1]


def test_python_threads_that_step_one_optimizer() -> None:
    params = [torch.nn.Parameter(torch.zeros(50000)) for _ in range(3)]
    opt = fastadam.torch.Adam(params, lr=1e-3)
    for p in params:
        p.grad = torch.ones(50000)
    opt.step()
    failed: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(50):
                opt.step()
        except BaseException as error:
            failed.append(error)

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failed
    for p in params:
        assert p.isfinite().all()
        # as hogwild goes, some steps may be lost, and none is made of rubbish
        assert -0.16 < p.min() <= p.max() < -0.04


def child(params: list[torch.Tensor], connection: Any) -> None:
    torch.set_num_threads(1)
    opt = fastadam.torch.Adam(params, lr=0.1)
    for p in params:
        p.grad = torch.ones_like(p)
    opt.step()
    connection.send(int(opt.state[params[0]]["step"]))


@pytest.mark.serial
@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="there is no fork")
def test_hogwild_in_a_forked_child() -> None:
    params = [torch.nn.Parameter(torch.zeros(50000)) for _ in range(2)]
    for p in params:
        p.share_memory_()
    opt = fastadam.torch.Adam(params, lr=0.1)
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=child, args=(params, theirs))
    process.start()
    assert ours.poll(60)
    assert ours.recv() == 1
    process.join(60)
    assert process.exitcode == 0
    torch.testing.assert_close(params[0].detach(), torch.full((50000,), -0.1))
    for p in params:
        p.grad = torch.ones(50000)
    opt.step()
    torch.testing.assert_close(params[1].detach(), torch.full((50000,), -0.2))


@pytest.mark.filterwarnings("ignore")
def test_compiled_training_step() -> None:
    pair = Pair("AdamW", [torch.randn(4, 3), torch.randn(4)], lr=0.1)
    x = torch.randn(8, 3)

    def make(opt: Any, params: list[torch.nn.Parameter]) -> Any:
        def train() -> torch.Tensor:
            loss = (torch.nn.functional.linear(x, *params) ** 2).mean()
            loss.backward()
            opt.step()
            opt.zero_grad()
            return loss

        return train

    compiled = torch.compile(make(*pair.both[0]), backend="eager")
    plain = make(*pair.both[1])
    for _ in range(4):
        torch.testing.assert_close(compiled(), plain(), rtol=1e-5, atol=1e-6)
        pair.check(1e-5)
        for opt, _ in pair.both:
            opt.param_groups[0]["lr"] *= 0.5


def test_the_package_alone_imports_no_torch() -> None:
    script = "import sys, fastadam, fastadam.__main__; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


def test_optimizers_are_found_where_they_are() -> None:
    for name in fastadam.torch.__all__:
        assert getattr(fastadam.torch, name).__doc__
    pair = Pair("Adam", values(torch.float32))
    assert isinstance(pair.ours, torch.optim.Adam)
    assert isinstance(fastadam.torch.AdamW(pair.params[0]), torch.optim.AdamW)


def test_warnings_name_the_line_of_who_calls() -> None:
    """PyTorch stands between an update and its caller, whom it could have compiled."""
    script = """
import sys, warnings
import numpy as np
import torch, torch._dynamo
import fastadam, fastadam.torch
opt = fastadam.AdamW().setup(np.ones(2))
opt.weight_decay_rate = 0.01
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    opt.apply_gradients(np.ones(2))
print([(each.filename, each.lineno) for each in caught if each.category is UserWarning])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "[('<string>', 10)]\n", done.stderr
