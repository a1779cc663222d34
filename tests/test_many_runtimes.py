"""Libraries that bring OpenMP runtimes of their own: every one's bits are as if it were alone."""

from __future__ import annotations

import functools
import importlib.util
import itertools
import os
import subprocess
import sys
from collections.abc import Sequence

import pytest

from fastadam.kernels.cpu import _openmp

pytestmark = pytest.mark.serial

# Each library is asked for one piece of work again and again, and always gives the same bits. With
# an argument, each is asked alone: that is what they are compared with.
PROGRAM = """
import hashlib, importlib, os, signal, sys, warnings

warnings.filterwarnings("error")
warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
names, times = sys.argv[1].split(), int(sys.argv[2])
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what others say of themselves when they are imported
    libraries = {name: importlib.import_module(name) for name in names}
import numpy as np

N = 120_001

def random(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)

def fastadam_work():
    import fastadam
    w = random(1, N)
    opt = fastadam.AdamW(weight_decay_rate=0.01, decay_mode="eta").setup(w)
    for i in range(3):
        opt.apply_gradients(random(2 + i, N))
    return w.tobytes()

def torch_work():
    import torch
    w = torch.from_numpy(random(1, N)).requires_grad_()
    opt = torch.optim.AdamW([w], fused=True)
    for i in range(3):
        w.grad = torch.from_numpy(random(2 + i, N))
        opt.step()
    return w.detach().numpy().tobytes()

def sklearn_work():
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.metrics import pairwise_distances_argmin
    x = random(5, 3000, 4).astype(np.float64)
    trees = HistGradientBoostingRegressor(max_iter=3, max_leaf_nodes=8, early_stopping=False)
    nearest = pairwise_distances_argmin(x, x[::50] + 0.1)
    return trees.fit(x, x[:, 0] * x[:, 1]).predict(x).tobytes() + nearest.tobytes()

WORKS = {"fastadam": fastadam_work, "torch": torch_work, "sklearn": sklearn_work}

def digest(name):
    return hashlib.sha256(WORKS[name]()).hexdigest()

found = {name: set() for name in names}
for _ in range(times):
    for name in names:
        found[name].add(digest(name))
if "fastadam" in names and hasattr(os, "fork"):
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        os._exit(0 if {digest("fastadam")} == found["fastadam"] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
for name in sorted(names):
    print(name, *found[name])
"""
SKLEARN = pytest.mark.skipif(
    importlib.util.find_spec("sklearn") is None, reason="needs scikit-learn; the demo extra has it"
)
TORCH = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="needs PyTorch; tox -e peers installs it"
)


def run(names: Sequence[str], times: int, **environ: str) -> list[str]:
    """Let libraries work in turn in one new process, imported in this order."""
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM, " ".join(names), str(times)],
        # threads that spin while they are idle keep those of other runtimes from their CPUs
        env={**os.environ, "OMP_WAIT_POLICY": "passive", **environ},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (found.returncode, found.stderr) == (0, "")
    return found.stdout.splitlines()


@functools.cache
def alone(name: str, **environ: str) -> list[str]:
    """Return what a library prints that has a process to itself."""
    return run([name], 1, **environ)


def check(names: Sequence[str], times: int, **environ: str) -> None:
    """Compare libraries in one process with the same libraries, each alone in one."""
    expected = sorted(line for name in names for line in alone(name, **environ))
    assert run(names, times, **environ) == expected


@SKLEARN
@pytest.mark.parametrize("names", list(itertools.permutations(["fastadam", "sklearn"])))
def test_alternating_with_scikit_learn(names: tuple[str, ...]) -> None:
    check(names, 10)


@TORCH
@pytest.mark.parametrize("names", list(itertools.permutations(["fastadam", "torch"])))
def test_alternating_with_pytorch(names: tuple[str, ...]) -> None:
    check(names, 50)


@SKLEARN
@TORCH
@pytest.mark.parametrize("names", list(itertools.permutations(["fastadam", "sklearn", "torch"])))
def test_alternating_with_both(names: tuple[str, ...]) -> None:
    check(names, 4)


@SKLEARN
def test_threads_that_spin_while_they_are_idle() -> None:
    check(["fastadam", "sklearn"], 2, OMP_WAIT_POLICY="active")


# Several runtimes are loaded; the limits must reach that of fastadam. Its new threads are counted.
LIMITS = """
import importlib, os, sys, threading, warnings
warnings.simplefilter("ignore")
for name in sys.argv[1].split():
    importlib.import_module(name)
import numpy as np
import fastadam
from threadpoolctl import threadpool_info, threadpool_limits

def started(**limits):
    # in a new thread OpenMP starts new threads, which stay as long as it does
    result = []
    def run():
        def step():
            before = set(os.listdir("/proc/self/task"))
            w = np.ones(100_000, np.float32)
            fastadam.Adam().setup(w).apply_gradients(w.copy())
            result.append(len(set(os.listdir("/proc/self/task")) - before))
        if limits:
            with threadpool_limits(**limits):
                step()
        else:
            step()
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return result[0]

print(started(limits=1), started(limits=1, user_api="openmp"), started())
"""
NEEDED = {"sklearn.cluster": SKLEARN, "torch": TORCH}


@pytest.mark.skipif(not _openmp.version(), reason="this build has no OpenMP")
@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="needs Linux's /proc")
@pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="needs two CPUs",
)
@pytest.mark.parametrize(
    "names",
    [
        pytest.param(" ".join(order), marks=[NEEDED[n] for n in order if n in NEEDED])
        for several in (["sklearn.cluster"], ["torch"], ["sklearn.cluster", "torch"])
        for order in itertools.permutations([*several, "fastadam"])
    ],
)
def test_threadpool_limits_reach_the_runtime_of_fastadam(names: str) -> None:
    pytest.importorskip("threadpoolctl", reason="needs threadpoolctl")
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
    found = subprocess.run(
        [sys.executable, "-c", LIMITS, names],
        env={**clean, "OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (found.returncode, found.stderr, found.stdout.split()) == (0, "", ["0", "0", "1"])
