"""Children of every kind make right updates, and end: fork, forkserver, spawn, exec."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.serial,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork"),
]

# `work` updates a model of float32, float64 and a half type and returns what became of it. Where a
# child hangs, the alarm ends it.
PROGRAM = '''
import ctypes, multiprocessing, os, signal, subprocess, sys, threading, traceback, warnings
from concurrent.futures import ProcessPoolExecutor
import numpy as np
import fastadam
from fastadam.kernels.cpu import _openmp

# Python tells of every fork of a process that has several threads
warnings.filterwarnings("error")
warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)

def work(seed):
    random = np.random.default_rng(seed)
    params = {
        "a": random.standard_normal((300, 301)).astype(np.float32),
        "b": random.standard_normal(70_001),
        "c": random.standard_normal(40_000).astype(np.float16),
    }
    opt = fastadam.Adam(amsgrad=True, weight_decay_rate=0.01).setup(params)
    opt.use_fp32_update()
    opt.add_hook(fastadam.optimizer_hooks.GradientClipping(3.0))
    for _ in range(4):
        opt.apply_gradients({k: random.standard_normal(p.shape) for k, p in params.items()})
    return [p.tobytes() for p in params.values()]

def child_work(seed):
    """The bits, and whether this process is a fork on one thread."""
    signal.alarm(60)
    fastadam.set_num_threads(3)
    alone = fastadam.get_num_threads() == 1
    assert alone == _openmp.forked(), (alone, _openmp.forked())
    result = work(seed), alone
    signal.alarm(0)
    return result

def in_fork(fork, child):
    """Run a function in a fork; it passes if it is true there."""
    pid = fork()
    if pid == 0:
        code = 1
        try:
            signal.alarm(60)
            code = 0 if child() else 2
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

def main():
    before, what = sys.argv[1:]
    fastadam.set_num_threads(1)
    expected = [work(seed) for seed in range(4)]
    fastadam.set_num_threads(3)
    if before == "parallel":
        assert work(0) == expected[0]
    WHAT[what](expected)
    assert not _openmp.forked() and work(0) == expected[0]
    print("right")

def by_fork(expected, fork=os.fork):
    in_fork(fork, lambda: child_work(1) == (expected[1], True))

def by_c_fork(expected):
    by_fork(expected, ctypes.CDLL(None).fork)

def fork_of_fork(expected):
    def child():
        assert child_work(1)[0] == expected[1]
        by_fork(expected)
        return True
    in_fork(os.fork, child)

def exec_of_fork(expected):
    code = "from fastadam.kernels.cpu import _openmp as o; print(o.forked())"
    def child():
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        return found.stdout == "False\\n"
    in_fork(os.fork, child)

def pool(method, expected):
    context = multiprocessing.get_context(method)
    with context.Pool(2) as workers:
        assert workers.map(child_work, range(4)) == [(e, method == "fork") for e in expected]

def executor(method, expected):
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(2, mp_context=context) as workers:
        found = list(workers.map(child_work, range(4)))
    assert found == [(e, method == "fork") for e in expected]

def preloaded(expected):
    """A forkserver that has imported fastadam forks children that know it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["fastadam"])
    with context.Pool(1) as workers:
        assert workers.map(child_work, [1]) == [(expected[1], True)]

def during_steps(expected):
    """Fork while two other threads are in steps, of the optimizer that the child updates too.

    Its copy of that optimizer is half-way in a step, so that only the other model's bits are known.
    """
    w = np.ones(200_000, np.float32)
    opt = fastadam.Adam().setup(w)
    opt.apply_gradients(w)
    stop = threading.Event()
    def go_on(update):
        while not stop.is_set():
            update()
    threads = [
        threading.Thread(target=go_on, args=(lambda: opt.apply_gradients(w),)),
        threading.Thread(target=go_on, args=(lambda: work(3),)),
    ]
    for thread in threads:
        thread.start()
    try:
        def child():
            opt.apply_gradients(np.ones_like(w))
            assert np.isfinite(w).all()
            return child_work(2)[0] == expected[2]
        for _ in range(5):
            in_fork(os.fork, child)
    finally:
        stop.set()
        for thread in threads:
            thread.join()

def in_a_loss_function(expected):
    """Fork within an update, as loaders of data do; both go on."""
    w = np.ones(100_000, np.float32)
    opt = fastadam.Adam().setup(w)
    def lossfun():
        by_fork(expected)
        return 0.5, np.ones_like(w)
    opt.update(lossfun)
    assert opt.t == 1

WHAT = {
    "fork": by_fork,
    "C": by_c_fork,
    "fork of a fork": fork_of_fork,
    "exec of a fork": exec_of_fork,
    "preloaded": preloaded,
    "during steps": during_steps,
    "in a loss function": in_a_loss_function,
}
for method in ("fork", "forkserver", "spawn"):
    WHAT["pool " + method] = lambda expected, method=method: pool(method, expected)
    WHAT["executor " + method] = lambda expected, method=method: executor(method, expected)

if __name__ == "__main__":
    main()
'''

BEFORE = pytest.mark.parametrize("before", ["serial", "parallel"])


def run(tmp_path: Path, before: str, what: str) -> None:
    """Run one of the things that the program can do."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    found = subprocess.run(
        [sys.executable, program, before, what],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert (found.stdout, found.stderr, found.returncode) == ("right\n", "", 0)


@BEFORE
@pytest.mark.parametrize("what", ["fork", "C", "fork of a fork", "exec of a fork"])
def test_forks(tmp_path: Path, before: str, what: str) -> None:
    run(tmp_path, before, what)


@BEFORE
@pytest.mark.parametrize("kind", ["pool", "executor"])
@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_processes_of_multiprocessing(tmp_path: Path, before: str, kind: str, method: str) -> None:
    run(tmp_path, before, f"{kind} {method}")


def test_children_of_a_server_that_has_imported_fastadam(tmp_path: Path) -> None:
    run(tmp_path, "serial", "preloaded")


def test_a_fork_while_other_threads_step(tmp_path: Path) -> None:
    run(tmp_path, "parallel", "during steps")


def test_a_fork_within_an_update(tmp_path: Path) -> None:
    run(tmp_path, "parallel", "in a loss function")
