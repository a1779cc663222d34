"""The number of threads: by hand, by OpenMP, by the CPU quota, after a fork."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from fastadam.kernels.cpu import _openmp, _threads, threads

pytestmark = pytest.mark.serial


@pytest.fixture(autouse=True)
def no_leftovers(monkeypatch):
    monkeypatch.setattr(_threads, "by_hand", None)
    monkeypatch.setattr(_threads, "granted", None)
    monkeypatch.setattr(_threads, "granted_at", float("inf"))  # never read unless a test says so


def run(code: str, **environ: str) -> str:
    """Run a program in a new Python and return what it prints."""
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environ,
        check=True,
        timeout=60,
        capture_output=True,
        text=True,
    ).stdout.strip()


def test_a_number_set_by_hand_wins_even_above_the_core_count():
    threads.set_num_threads(97)
    assert threads.get_num_threads() == 97
    assert threads.set_by_hand() == 97
    _threads.granted = 0.5
    assert threads.get_num_threads() == 97


def test_none_goes_back_to_choosing():
    threads.set_num_threads(97)
    threads.set_num_threads(None)
    assert threads.get_num_threads() == min(_openmp.max_threads(), _openmp.available_cpus())
    assert threads.set_by_hand() is None


def test_any_integer_type_is_taken():
    threads.set_num_threads(np.int64(3))
    assert threads.get_num_threads() == 3
    assert type(threads.get_num_threads()) is int


@pytest.mark.parametrize("n", [0, -1, 4097, 10**30])
def test_a_number_out_of_range_is_refused_and_changes_nothing(n):
    threads.set_num_threads(5)
    with pytest.raises(ValueError, match=f"from 1 to 4096.*got {n}"):
        threads.set_num_threads(n)
    assert threads.get_num_threads() == 5


@pytest.mark.parametrize("n", [2.0, "2", True])
def test_another_type_is_refused_and_changes_nothing(n):
    threads.set_num_threads(5)
    with pytest.raises(TypeError, match=f"number of threads.*{type(n).__name__}"):
        threads.set_num_threads(n)
    assert threads.get_num_threads() == 5


@pytest.mark.parametrize(
    ("openmp", "cpus", "quota", "expected"),
    [
        (8, 9, None, 8),
        (8, 9, 2.0, 2),
        (8, 9, 2.1, 3),
        (8, 9, 0.2, 1),
        (2, 9, 16.0, 2),
        (8, 9, 0.0, 1),
        (1, 9, None, 1),
        (8, 3, None, 3),
        (8, 3, 4.0, 3),
    ],
)
def test_the_smallest_of_openmp_the_cpus_and_the_quota_rounded_up(
    monkeypatch, openmp, cpus, quota, expected
):
    monkeypatch.setattr(_threads._openmp, "max_threads", lambda: openmp)
    monkeypatch.setattr(_threads._openmp, "available_cpus", lambda: cpus)
    monkeypatch.setattr(_threads, "granted", quota)
    assert threads.get_num_threads() == expected


def test_openmps_limit_bounds_all(monkeypatch):
    monkeypatch.setattr(_threads._openmp, "max_threads", lambda: 8)
    monkeypatch.setattr(_threads._openmp, "available_cpus", lambda: 8)
    monkeypatch.setattr(_threads._openmp, "thread_limit", lambda: 3)
    assert threads.get_num_threads() == 3
    threads.set_num_threads(5)
    assert threads.get_num_threads() == 3


def test_the_quota_is_read_again_when_it_is_stale(monkeypatch):
    answers = iter([4.0, 3.0])
    now = [100.0]
    monkeypatch.setattr(_threads, "cpu_quota", lambda: next(answers))
    monkeypatch.setattr(_threads.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(_threads, "granted_at", float("-inf"))
    assert _threads.quota() == 4.0
    now[0] += _threads.STALE_AFTER_S
    assert _threads.quota() == 4.0
    now[0] += 0.001
    assert _threads.quota() == 3.0


# In a process of its own: other packages bring OpenMP runtimes of their own into this one.
ASK_OPENMP = """
import ctypes
from fastadam.kernels.cpu import _threads, threads
with open("/proc/self/maps") as maps:
    paths = {line.split()[-1] for line in maps if "libgomp" in line or "libomp" in line}
[path] = paths
runtime = ctypes.CDLL(path)
_threads._openmp.available_cpus = lambda: 9
for n in (3, 1, 5):
    runtime.omp_set_num_threads(n)
    print(threads.get_num_threads())
"""


@pytest.mark.skipif(not _openmp.version(), reason="this build has no OpenMP")
@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="needs Linux's list of libraries")
def test_openmp_is_asked_every_time():
    assert run(ASK_OPENMP).split() == ["3", "1", "5"]


@pytest.mark.skipif(not _openmp.version(), reason="this build has no OpenMP")
def test_omp_num_threads_holds():
    code = "from fastadam.kernels.cpu import _openmp; print(_openmp.max_threads())"
    assert run(code, OMP_NUM_THREADS="3") == "3"


def test_without_openmp_there_is_one_thread():
    if _openmp.version():
        pytest.skip("this build has OpenMP")
    assert _openmp.max_threads() == 1
    assert threads.get_num_threads() == 1


# A step of two threads before the fork and another in the child, which must end, with right values.
FORK = f"""
import ctypes, os, signal, numpy, fastadam
from fastadam.kernels.cpu import _openmp
def step():
    p, g, m, v = (numpy.ones({4 * _threads.SERIAL_BELOW}, numpy.float32) for _ in range(4))
    fastadam.adam_step(p, g, m, v, t=1)
    return float(p[0]), float(p[-1])
fastadam.set_num_threads(2)
expected = step()
assert not _openmp.forked() and fastadam.get_num_threads() == 2
child = FORK_CALL()
if child == 0:
    signal.alarm(20)
    ok = _openmp.forked() and fastadam.get_num_threads() == 1 and step() == expected
    os._exit(0 if ok else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), _openmp.forked(), step() == expected)
"""


@pytest.mark.parametrize("call", ["os.fork", "ctypes.CDLL(None).fork"])
def test_a_forked_child_steps_on_one_thread_instead_of_hanging(call):
    # from C as well: Python's own hooks do not see that fork
    code = FORK.replace("FORK_CALL", call)
    assert run(code, PYTHONWARNINGS="ignore::DeprecationWarning") == "0 False True"
