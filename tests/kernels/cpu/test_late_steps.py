"""Steps that wait for the CPUs of other runtimes' threads are made on one thread for a while."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastadam
from fastadam.kernels.cpu import _threads
from fastadam.kernels.cpu._late_steps import FIRST_HOLD, LARGE, LONGEST_HOLD, TRUSTED, LateSteps

N = 100_000
LATE = 3_300_000
QUICK = 20_000


class Machine:
    """Steps with the times that a machine takes."""

    def __init__(self, threaded_ns: int, single_ns: int, total: int = N) -> None:
        self.late_steps = LateSteps()
        self.ns = {2: threaded_ns, 1: single_ns}
        self.total = total

    def steps(self, count: int) -> list[int]:
        """Make steps; return the number of threads of each."""
        made = []
        for _ in range(count):
            n = self.late_steps.bound(2, self.total)
            self.late_steps.note(n, self.total, self.ns[n])
            made.append(n)
        return made


def test_steps_in_time_are_made_on_all_threads() -> None:
    assert Machine(QUICK, QUICK).steps(100) == [2] * 100


def test_two_late_steps_are_followed_by_a_try_and_then_by_a_while_on_one_thread() -> None:
    machine = Machine(LATE, QUICK)
    assert machine.steps(3 + FIRST_HOLD) == [2, 2] + [1] * (1 + FIRST_HOLD)


def test_the_while_doubles_as_long_as_several_threads_are_late_again() -> None:
    machine = Machine(LATE, QUICK)
    made = machine.steps(20_000)
    runs = [len(run) for run in "".join(map(str, made)).split("2") if run]
    expected, hold = [], FIRST_HOLD
    while sum(expected) < 30_000:
        expected.append(1 + hold)
        hold = min(2 * hold, LONGEST_HOLD)
    assert runs[:-1] == expected[: len(runs) - 1]
    # one late step is enough to go back to one thread
    assert "22" not in "".join(map(str, made))[2:]


def test_all_threads_are_back_when_they_are_in_time_again() -> None:
    machine = Machine(LATE, QUICK)
    machine.steps(3 + FIRST_HOLD)
    machine.ns[2] = QUICK
    assert machine.steps(50) == [2] * 50
    # and the next time begins as the first
    machine.ns[2] = LATE
    assert machine.steps(4 + FIRST_HOLD) == [2, 2] + [1] * (1 + FIRST_HOLD) + [2]


def test_one_late_step_now_and_then_changes_nothing() -> None:
    machine = Machine(QUICK, QUICK)
    for _ in range(20):
        machine.ns[2] = LATE
        assert machine.steps(1) == [2]
        machine.ns[2] = QUICK
        assert machine.steps(3) == [2] * 3


def test_a_machine_that_is_slow_on_one_thread_too_is_looked_at_rarely() -> None:
    machine = Machine(LATE, 2 * LATE)
    made = machine.steps(5000)
    assert made[:4] == [2, 2, 1, 2]
    assert 1 <= made.count(1) <= 1 + 5000 // TRUSTED


@pytest.mark.parametrize(("single", "back"), [(LATE // 2 + 1, 2), (LATE // 2 - 1, 1)])
def test_one_thread_must_take_less_than_half_the_time(single: int, back: int) -> None:
    assert Machine(LATE, single).steps(4) == [2, 2, 1, back]


def test_late_is_measured_by_the_elements() -> None:
    total = 3_000_000
    assert Machine(1_000_000 + total, QUICK, total).steps(10) == [2] * 10
    assert Machine(1_000_001 + total, QUICK, total).steps(3) == [2, 2, 1]


def test_the_largest_steps_keep_their_threads() -> None:
    machine = Machine(LATE, QUICK)
    machine.steps(3)
    assert machine.late_steps.bound(2, N) == 1
    assert machine.late_steps.bound(2, LARGE) == 2
    assert Machine(100 * LATE, QUICK, LARGE).steps(10) == [2] * 10


def test_times_are_compared_by_the_element() -> None:
    machine = Machine(LATE, QUICK)
    machine.steps(2)
    # ten times the elements in ten times the time are as slow
    machine.late_steps.note(1, 10 * N, 10 * LATE)
    assert machine.late_steps.bound(2, N) == 2


@pytest.fixture
def crowded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Two threads, whose steps are always late; returns (threads, elements) of the steps made."""
    noted: list[tuple[int, int]] = []

    class Late(LateSteps):
        def note(self, n_threads: int, total: int, ns: int) -> None:
            assert ns > 0
            noted.append((n_threads, total))
            super().note(n_threads, total, LATE if n_threads > 1 else QUICK)

    monkeypatch.setattr(_threads, "late_steps", Late())
    monkeypatch.setattr(_threads, "number", lambda: 2)
    return noted


def test_updates_are_noted_and_follow(crowded: list[tuple[int, int]]) -> None:
    params = {"w": np.ones(N, "f4"), "b": np.ones(40_000, "f8")}
    grads = {name: np.full_like(array, 0.5) for name, array in params.items()}
    opt = fastadam.Adam().setup(params)
    for _ in range(3 + FIRST_HOLD):
        opt.apply_gradients(grads)
    assert crowded == [(2, N + 40_000)] * 2 + [(1, N + 40_000)] * (1 + FIRST_HOLD)


def test_steps_of_ones_own_state_are_noted_and_follow(crowded: list[tuple[int, int]]) -> None:
    p, g, m, v = (np.full(N, x, "f4") for x in (1, 0.5, 0, 0))
    for t in range(1, 5):
        fastadam.adam_step(p, g, m, v, t=t)
    assert crowded == [(2, N)] * 2 + [(1, N)] * 2


def test_small_steps_and_strided_ones_are_not_noted(crowded: list[tuple[int, int]]) -> None:
    for p in (np.ones(_threads.SERIAL_BELOW - 1, "f4"), np.ones(2 * N, "f4")[::2]):
        opt = fastadam.Adam().setup(p)
        for _ in range(3):
            opt.apply_gradients(np.ones_like(p))
    assert crowded == []


def test_steps_with_gradients_that_are_copied_before_are_noted(
    crowded: list[tuple[int, int]],
) -> None:
    p, m, v = (np.full(N, x, "f4") for x in (1, 0, 0))
    for t in range(1, 4):
        fastadam.adam_step(p, p, m, v, t=t)
    assert crowded == [(2, N)] * 2 + [(1, N)]


def test_a_number_of_threads_that_was_set_holds(crowded: list[tuple[int, int]]) -> None:
    opt = fastadam.Adam().setup(np.ones(N, "f4"))
    grad: Any = np.ones(N, "f4")
    for _ in range(4):
        opt.apply_gradients(grad)
    assert _threads.n_threads(N) == 1
    fastadam.set_num_threads(2)
    try:
        assert _threads.n_threads(N) == 2
        opt.apply_gradients(grad)
    finally:
        fastadam.set_num_threads(None)
    assert len(crowded) == 4
    assert _threads.n_threads(N) == 1
