"""Limits of others hold: OpenMP's variables, threadpoolctl, CPU affinity, `set_num_threads`.

What is counted is the threads that an update really starts, in a process of its own.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence

import pytest

from fastadam.kernels.cpu import _openmp

pytestmark = [
    pytest.mark.serial,
    pytest.mark.skipif(not _openmp.version(), reason="this build has no OpenMP"),
    pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="needs Linux's /proc"),
]
TWO_CPUS = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="needs two CPUs",
)
THREADPOOLCTL = pytest.mark.skipif(
    importlib.util.find_spec("threadpoolctl") is None, reason="needs threadpoolctl"
)
VARIABLES = ("OMP_", "GOMP_", "OPENBLAS_")

# `used()` makes an update in a new Python thread, for which OpenMP starts new threads that stay
# as long as it does: these are counted. The bits must be those of one thread.
START = """
import os, sys, threading, time
import numpy as np
import fastadam
from fastadam.kernels.cpu import _openmp, _threads, engine

# however busy the machine is
_threads.late_steps.bound = lambda n_threads, total: n_threads

N = 100_003
GRADIENT = np.linspace(-1, 1, N, dtype=np.float32)

def tasks():
    return len(os.listdir("/proc/self/task"))

def step():
    w = np.ones(N, np.float32)
    opt = fastadam.Adam().setup(w)
    for _ in range(2):
        opt.apply_gradients(GRADIENT)
    return w.tobytes()

BASE = tasks()

def settled(n):
    # the threads of the last call are on their way out
    for _ in range(1000):
        if tasks() == n:
            return n
        time.sleep(0.01)

def used(before=lambda: None):
    found = []
    def run():
        before()
        start = settled(BASE + 1)
        assert step() == EXPECTED
        found.append(1 + tasks() - start)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return found[0] if found else None

fastadam.set_num_threads(1)
EXPECTED = step()
fastadam.set_num_threads(None)
"""


def run(code: str, *, first: Sequence[str] = (), **environ: str) -> list[str]:
    """Run code after START in a new Python, without OpenMP's variables, and return its words."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(VARIABLES)}
    found = subprocess.run(
        [*first, sys.executable, "-c", START + code],
        env={**clean, "OPENBLAS_NUM_THREADS": "1", **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (found.returncode, found.stderr) == (0, "")
    return found.stdout.split()


ASK = "print(used(), fastadam.get_num_threads())"
SET = """
fastadam.set_num_threads(3)
print(used(), fastadam.get_num_threads())
fastadam.set_num_threads(None)
print(used(), fastadam.get_num_threads())
"""


@TWO_CPUS
def test_by_default_every_cpu_has_a_thread() -> None:
    used, promised = run(ASK, first=["taskset", "-c", _cpus(2)])
    assert used == promised == "2"


@TWO_CPUS
@pytest.mark.parametrize(("number", "expected"), [("1", "1"), ("2", "2"), ("2,1", "2")])
def test_omp_num_threads_holds(number: str, expected: str) -> None:
    assert run(ASK, OMP_NUM_THREADS=number) == [expected, expected]


def test_set_num_threads_wins_over_omp_num_threads_until_it_is_taken_back() -> None:
    assert run(SET, OMP_NUM_THREADS="1") == ["3", "3", "1", "1"]


@TWO_CPUS
def test_omp_thread_limit_holds() -> None:
    assert run(ASK, OMP_THREAD_LIMIT="1") == ["1", "1"]


def test_omp_thread_limit_bounds_a_number_that_was_set_too() -> None:
    # the limit is the runtime's: one thread is Python's, which counts
    assert run(SET, OMP_THREAD_LIMIT="1") == ["1"] * 4


def test_omp_dynamic_may_take_threads_away_but_no_bits() -> None:
    used, promised, *_ = run(SET, OMP_DYNAMIC="true")
    assert 1 <= int(used) <= int(promised) == 3


def test_threads_that_sleep_while_they_wait() -> None:
    assert run(SET, OMP_WAIT_POLICY="passive", OMP_NUM_THREADS="1") == ["3", "3", "1", "1"]


LIMITS = """
from threadpoolctl import threadpool_limits
fastadam.set_num_threads(SET)
print(used())
def block():
    with threadpool_limits(1):
        assert fastadam.get_num_threads() == INSIDE
print(used(block))
def limited(**kwds):
    return used(lambda: threadpool_limits(**kwds))
print(limited(limits=1), limited(limits=1, user_api="openmp"), limited(limits=1, user_api="blas"))
def nested():
    with threadpool_limits(1):
        # OpenBLAS would start a thread at once
        with threadpool_limits(2, user_api="openmp"):
            assert fastadam.get_num_threads() == max(2, INSIDE)
        assert fastadam.get_num_threads() == INSIDE
print(used(nested))
with threadpool_limits(1):
    before = settled(BASE)
    assert step() == EXPECTED
    print(1 + tasks() - before)
assert step() == EXPECTED
print(1 + tasks() - before)
"""


@TWO_CPUS
@THREADPOOLCTL
def test_threadpool_limits_hold_inside_and_not_after() -> None:
    code = LIMITS.replace("SET)", "None)").replace("INSIDE", "1")
    found = run(code, first=["taskset", "-c", _cpus(2)])
    # all; after a block; limited: everything, OpenMP, BLAS; after nested blocks; main: in and after
    assert found == ["2", "2", "1", "1", "2", "2", "1", "2"]


@THREADPOOLCTL
def test_a_number_that_was_set_wins_over_threadpool_limits() -> None:
    code = LIMITS.replace("SET)", "3)").replace("INSIDE", "3")
    assert run(code) == ["3"] * 8


@TWO_CPUS
@THREADPOOLCTL
def test_threadpool_limits_are_those_of_the_python_thread_that_set_them() -> None:
    # OpenMP keeps one number per thread: nothing of this is fastadam's
    code = """
from threadpoolctl import threadpool_limits
with threadpool_limits(1):
    print(fastadam.get_num_threads(), used())
"""
    assert run(code, first=["taskset", "-c", _cpus(2)]) == ["1", "2"]


@TWO_CPUS
def test_affinity_from_the_start() -> None:
    assert run(ASK, first=["taskset", "-c", _cpus(1)]) == ["1", "1"]


@TWO_CPUS
@pytest.mark.parametrize("number", [None, 3])
def test_affinity_that_is_narrowed_and_widened_later(number: int | None) -> None:
    code = f"""
fastadam.set_num_threads({number})
cpus = sorted(os.sched_getaffinity(0))[:2]
for few in (cpus, cpus[:1], cpus):
    os.sched_setaffinity(0, few)
    print(used())
"""
    assert run(code) == (["2", "1", "2"] if number is None else ["3"] * 3)


@TWO_CPUS
def test_affinity_is_that_of_the_thread_that_updates() -> None:
    code = """
cpus = sorted(os.sched_getaffinity(0))[:2]
os.sched_setaffinity(0, cpus)
print(used(lambda: os.sched_setaffinity(0, cpus[:1])), used())
"""
    assert run(code) == ["1", "2"]


@TWO_CPUS
def test_threads_that_openmp_binds_are_all_used() -> None:
    # the affinity of a bound thread is one CPU, and OpenMP knows why
    assert run(ASK, first=["taskset", "-c", _cpus(2)], OMP_PROC_BIND="true") == ["2", "2"]


def _cpus(n: int) -> str:
    """Name the first CPUs that this process may run on, as taskset takes them."""
    return ",".join(map(str, sorted(os.sched_getaffinity(0))[:n]))
