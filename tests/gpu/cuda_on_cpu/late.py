"""Work that is done late: when something waits for it, or when a seeded chance lets it.

Each stream of CUDA has a queue. What a queue is given runs after what it was given before, after
the events it waits for and, but for non-blocking streams, in the order of the legacy default
stream; in any order otherwise.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

__all__ = ["Queue", "Work", "late_streams", "legacy_queue", "nudge", "running_late", "wait"]

# How often work that could run does, when more is queued or something is waited for: never, which
# is as late as can be, and now and then.
CHANCES = (0.0, 0.15, 0.5)


class Work:
    """Something that a queue was given."""

    __slots__ = ("after", "call", "device", "done")

    def __init__(self, call: Callable[[], None], after: Iterable[Work], device: int) -> None:
        self.call = call
        self.after = [work for work in after if not work.done]
        self.device = device
        self.done = False

    def ready(self) -> bool:
        """Tell whether what it comes after has been done."""
        return all(before.done for before in self.after)

    def run(self) -> None:
        """Do it."""
        call, self.call, self.after, self.done = self.call, _nothing, [], True
        call()


def _nothing() -> None:
    pass


class _Late:
    """What has not run yet, and the chance that it does."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.chance = CHANCES[seed % len(CHANCES)]
        # in the order in which it was queued
        self.pending: dict[Work, None] = {}
        self.queues: list[Queue] = []

    def run(self, works: Iterable[Work]) -> None:
        """Run works, and before them what they come after, in any order that this allows."""
        wanted, found = list(works), set[Work]()
        while wanted:
            work = wanted.pop()
            if not work.done and work not in found:
                found.add(work)
                wanted += work.after
        left = [work for work in self.pending if work in found]
        while left:
            # the first comes after none of the others
            picked = [self.random.randrange(len(left)) for _ in range(4)]
            place = next((i for i in picked if left[i].ready()), 0)
            work = left.pop(place)
            del self.pending[work]
            work.run()

    def by_chance(self) -> None:
        """Run what could run, now and then."""
        while self.pending and self.random.random() < self.chance:
            self.run([self.random.choice(list(self.pending))])


_late: _Late | None = None
_legacy: dict[int, Queue] = {}


class Queue:
    """What a stream of a device has been given; it outlives the stream."""

    def __init__(self, device: int, blocking: bool) -> None:
        self.device = device
        self.blocking = blocking
        self.last: Work | None = None
        self._waits: list[Work] = []
        if _late is not None and blocking:
            _late.queues.append(self)

    def add(self, call: Callable[[], None]) -> Work:
        """Queue something."""
        if _late is None:
            work = Work(call, (), self.device)
            work.run()
            return work
        work = Work(call, self._before(), self.device)
        self.last, self._waits = work, []
        _late.pending[work] = None
        _late.by_chance()
        return work

    def _before(self) -> Iterator[Work]:
        """Yield what the next work comes after."""
        assert _late is not None
        yield from self._waits
        queues = [self]
        if self is _legacy.get(self.device):
            queues += [queue for queue in _late.queues if queue.device == self.device]
        elif self.blocking:
            queues.append(legacy_queue(self.device))
        yield from (queue.last for queue in queues if queue.last is not None)

    def wait_for(self, work: Work | None) -> None:
        """Let all that comes from now on come after a work."""
        if work is not None and not work.done:
            self._waits.append(work)


def legacy_queue(device: int) -> Queue:
    """Return the queue of a device's default stream."""
    if device not in _legacy:
        _legacy[device] = Queue(device, blocking=True)
    return _legacy[device]


def running_late() -> bool:
    """Tell whether streams run late."""
    return _late is not None


def wait(work: Work | None = None, device: int | None = None) -> None:
    """Run a work, or all of a device, to its end."""
    if _late is None:
        return
    if device is not None:
        _late.run([pending for pending in _late.pending if pending.device == device])
    elif work is not None:
        _late.run([work])
    _late.by_chance()


def nudge() -> None:
    """Let time pass: by chance, something runs."""
    if _late is not None:
        _late.by_chance()


@contextmanager
def late_streams(seed: int) -> Iterator[None]:
    """Let all streams run late; in the end all is run.

    Parameters
    ----------
    seed : int
        Of the order; every third one runs as late as can be.
    """
    global _late
    assert _late is None
    _late = _Late(seed)
    _legacy.clear()
    try:
        yield
        _late.run(_late.pending)
    finally:
        _late = None
        _legacy.clear()
