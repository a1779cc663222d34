"""Steps timed in turns: a block of one, a block of the next, round after round."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from itertools import repeat
from typing import NamedTuple

__all__ = ["Plan", "Subject", "block", "measure"]


class Plan(NamedTuple):
    """How long to measure.

    Attributes
    ----------
    rounds : int
        How often every subject has its turn.
    block_s : float
        About how long the timed steps of one turn take, at least one step.
    settle_s : float
        How long nothing is done at the beginning of a turn. The threads of another library's
        OpenMP runtime wait for work in a loop for some milliseconds after its last step, on the
        cores that the next one needs.
    """

    rounds: int = 15
    block_s: float = 0.03
    settle_s: float = 0.01


class Subject(NamedTuple):
    """Something to time.

    Attributes
    ----------
    name : str
        In the results.
    step : callable
        What is timed.
    before : callable or None
        Called before every step, outside of the time. A block of steps is timed as a whole where
        it is None, and otherwise every step by itself.
    """

    name: str
    step: Callable[[], object]
    before: Callable[[], object] | None = None


# More steps than this in a block tell nothing more.
_MOST_STEPS = 2000
_WARM_UP_STEPS = 3


def block(subject: Subject, steps: int) -> float:
    """Make steps; return the microseconds of one."""
    step, before = subject.step, subject.before
    if before is None:
        started = time.perf_counter_ns()
        for _ in repeat(None, steps):
            step()
        return (time.perf_counter_ns() - started) / steps / 1000
    total = 0
    for _ in repeat(None, steps):
        before()
        started = time.perf_counter_ns()
        step()
        total += time.perf_counter_ns() - started
    return total / steps / 1000


def measure(
    subjects: Sequence[Subject],
    plan: Plan,
    make_block: Callable[[Subject, int], float] = block,
) -> dict[str, list[float]]:
    """Time subjects of different names in turns.

    Every turn begins with a pause and untimed steps, which bring threads, caches and clocks to
    where that subject has them. The order is another in every round. The garbage collector is off
    meanwhile. Another `make_block` is another clock.

    Returns
    -------
    dict of list of float
        By name: microseconds a step, one a round.
    """
    times: dict[str, list[float]] = {subject.name: [] for subject in subjects}
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        steps = []
        for subject in subjects:
            make_block(subject, _WARM_UP_STEPS)
            # also those that a block makes outside of the time count
            started = time.perf_counter()
            make_block(subject, 1)
            seconds = time.perf_counter() - started
            steps.append(max(1, min(int(plan.block_s / seconds), _MOST_STEPS)))
        for turn in range(plan.rounds):
            first = turn % len(subjects)
            for i in (*range(first, len(subjects)), *range(first)):
                time.sleep(plan.settle_s)
                make_block(subjects[i], max(1, min(steps[i] // 4, 50)))
                times[subjects[i].name].append(make_block(subjects[i], steps[i]))
    finally:
        if was_on:
            gc.enable()
    return times
