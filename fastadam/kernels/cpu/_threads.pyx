"""How many threads a step takes: asked before each, so in C."""

import math
import time

from fastadam.kernels.cpu import _openmp
from fastadam.kernels.cpu._late_steps import LateSteps
from fastadam.kernels.cpu.cgroup import cpu_quota

# Elements below which a parallel region costs more than it saves.
SERIAL_BELOW = 32768

# A control group's quota changes rarely and costs some file reads: it is read again after this.
STALE_AFTER_S = 1.0

# The number given to `set_num_threads`; None chooses.
by_hand = None
granted = None
granted_at = -math.inf
late_steps = LateSteps()


def set_by_hand(n):
    """Take over a number of threads, checked; None chooses."""
    global by_hand
    by_hand = n


def number():
    """Return how many threads a large update would use now, as `get_num_threads` says."""
    if _openmp.forked():
        return 1
    limit = _openmp.thread_limit()
    if by_hand is not None:
        return min(by_hand, limit)
    n = min(_openmp.max_threads(), limit, _openmp.available_cpus())
    cpus = quota()
    return n if cpus is None else max(1, min(n, math.ceil(cpus)))


def quota():
    """Return the control group's CPU quota in CPUs, at most a second old; None without one."""
    global granted, granted_at
    now = time.monotonic()
    if now - granted_at > STALE_AFTER_S:
        granted, granted_at = cpu_quota(), now
    return granted


def n_threads(total, most=None):
    """Return how many threads a call takes for this many elements.

    Parameters
    ----------
    total : int
        Elements.
    most : int, optional
        What the owner of the arrays allows; a number that was set by hand wins over it.
    """
    if total < SERIAL_BELOW:
        return 1
    n = number()
    # who sets the number means it
    if by_hand is not None:
        return n
    return late_steps.bound(n if most is None else min(n, most), total)


def note_time(n, total, ns):
    """Take in how many nanoseconds a step of this many elements took on `n` threads."""
    if by_hand is None:
        late_steps.note(n, total, ns)
