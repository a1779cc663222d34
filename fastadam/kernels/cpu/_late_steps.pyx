"""Threads that wait for a CPU: noticed by the time that steps take, and done without for a while.

An idle thread of another OpenMP runtime (scikit-learn's, say) spins for some milliseconds on a CPU
that one of ours needs, and the system lets it use up its time slice first. A step of 0.02 ms then
takes 3 ms on two threads, and still 0.02 ms on one.
"""

# A step that takes longer than a millisecond and a nanosecond an element may have waited.
LATE_NS = 1_000_000
LATE_NS_PER_ELEMENT = 1

# So many late steps in a row are worth a look.
LATE_STEPS = 2

# From so many elements on, a time slice is little beside the step.
LARGE = 4_000_000

# How many steps are made on one thread, the first time and at most.
FIRST_HOLD = 16
LONGEST_HOLD = 1024

# How many late steps pass without a look, when one thread was no faster: it is the machine.
TRUSTED = 1000


class LateSteps:
    """What the times of steps say about the threads of others.

    After two late steps in a row, the next is made on one thread. If that takes less than half the
    time, so are the following ones; then several threads are tried again. Every time that they are
    late again, the number of steps in between doubles.
    """

    def __init__(self):
        self._late = 0
        self._trusted = 0
        # nanoseconds an element of the last late step, while one thread is being tried
        self._suspect = None
        self._left = 0
        self._hold = FIRST_HOLD

    def bound(self, n_threads, total):
        """Return how many of the threads a call on this many elements should take."""
        alone = self._left > 0 or self._suspect is not None
        return 1 if alone and total < LARGE else n_threads

    def note(self, n_threads, total, ns):
        """Take in what a step on this many elements took.

        Parameters
        ----------
        n_threads : int
            How many threads it was made on.
        total : int
            Elements.
        ns : int
            Nanoseconds.
        """
        suspect = self._suspect  # read once: other Python threads make steps, too
        if self._left > 0:
            self._left -= 1
        elif n_threads > 1:
            self._note_threaded(total, ns)
        elif suspect is not None:
            self._compare(ns / total, suspect)

    def _note_threaded(self, total, ns):
        """See whether a step on several threads was late."""
        if ns <= LATE_NS + LATE_NS_PER_ELEMENT * total or total >= LARGE:
            self._late = 0
            self._hold = FIRST_HOLD
        elif self._trusted > 0:
            self._trusted -= 1
        else:
            self._late += 1
            if self._late >= LATE_STEPS:
                self._suspect = ns / total

    def _compare(self, rate, suspect):
        """Decide, by the nanoseconds an element of a step on one thread and of the late one."""
        if 2 * rate < suspect:
            self._left = self._hold
            self._hold = min(2 * self._hold, LONGEST_HOLD)
            # when several threads are tried again, one late step will do
            self._late = LATE_STEPS - 1
        else:
            self._trusted = TRUSTED
            self._late = 0
        self._suspect = None
