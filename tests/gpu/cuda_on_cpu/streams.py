"""Streams and events of CUDA, as CuPy has them, and what may be done while one is capturing."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

from cuda_on_cpu.late import Queue, Work, legacy_queue, nudge, wait
from cuda_on_cpu.state import CUDARuntimeError, counts, state

__all__ = [
    "GLOBAL",
    "RELAXED",
    "Event",
    "Graph",
    "Stream",
    "do",
    "get_current_stream",
    "get_elapsed_time",
    "refuse_unsafe",
    "start_over",
    "synchronize_device",
]

GLOBAL, THREAD_LOCAL, RELAXED = range(3)


class Node(NamedTuple):
    """What a graph does, and what is noted of it when it is launched."""

    call: Callable[[], None]
    note: Callable[[Stream], None]


def _note_nothing(stream: Stream) -> None:
    pass


class Graph:
    """What a stream has recorded, to be done again; as CUDA's, it keeps no memory alive."""

    def __init__(self, nodes: list[Node]) -> None:
        self._nodes = nodes

    def launch(self, stream: Stream | None = None) -> None:
        stream = stream or get_current_stream()
        for node in self._nodes:
            stream.do(*node)

    def upload(self, stream: Any = None) -> None:
        pass


# Streams that are capturing, and numbers of streams that have been destroyed.
_capturing: list[Stream] = []
_numbers: list[int] = []
_current = threading.local()
# Streams that there are, for who knows their number only.
_by_number: weakref.WeakValueDictionary[int, Stream] = weakref.WeakValueDictionary()


class Stream:
    """A stream, which is the current one of its device inside a ``with``."""

    null: Stream
    # CUDA's own streams have the first numbers
    _next = 16

    def __init__(self, null: bool = False, non_blocking: bool = False, ptds: bool = False) -> None:
        self._before: list[tuple[int, Stream]] = []
        self._recorded: list[Node] | None = None
        self._invalid = False
        self._owned = not null
        if null:
            self.ptr, self.device_id = 0, -1
            return
        if _numbers:
            # the number of the last one that was destroyed, as CUDA likes to
            self.ptr = _numbers.pop()
        else:
            self.ptr = Stream._next
            Stream._next += 1
        self.device_id = state.device
        self.queue = Queue(state.device, not non_blocking)
        _by_number[self.ptr] = self

    def __del__(self) -> None:
        # what it was given is done all the same
        if self._owned:
            _numbers.append(self.ptr)

    @classmethod
    def from_external(cls, obj: Any) -> Stream:
        """Return another object for the stream of another library's, or of this one."""
        version, ptr = obj.__cuda_stream__()
        assert version == 0
        if not ptr:
            return cls.null
        made = _Foreign.__new__(_Foreign)
        # it is one stream, whoever asks
        made.__dict__ = _by_number[ptr].__dict__
        return made

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self.ptr

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream) and other.ptr == self.ptr

    def __hash__(self) -> int:
        return self.ptr

    def _checked_device(self) -> int:
        if self.device_id not in (-1, state.device):
            raise RuntimeError(
                f"The device that the stream is created on ({self.device_id}) does not match with "
                f"the current device ({state.device})"
            )
        return state.device

    def __enter__(self) -> Stream:
        self._before.append((self._checked_device(), get_current_stream()))
        return self.use()

    def __exit__(self, *_: object) -> None:
        device, stream = self._before.pop()
        _streams()[device] = stream

    def use(self) -> Stream:
        _streams()[self._checked_device()] = self
        return self

    def _queue(self) -> Queue:
        return self.queue if self.ptr else legacy_queue(state.device)

    def do(self, call: Callable[[], None], note: Any = _note_nothing) -> Work | None:
        """Do something on the stream, late or not, or record it."""
        if self._recorded is not None:
            self._recorded.append(Node(call, note))
            return None
        queue = self._queue()
        if queue is legacy_queue(state.device):
            for other in _capturing:
                if other.queue.blocking:
                    other._invalidate("Implicit: the default stream waits for it")
        note(self)
        return queue.add(call)

    def _invalidate(self, why: str) -> None:
        """Refuse something; a capture in global mode is then of no use, as all are for CUDA."""
        self._invalid = self.mode != RELAXED
        raise CUDARuntimeError(f"cudaErrorStreamCapture{why}")

    def synchronize(self) -> None:
        if self._recorded is not None:
            self._invalidate("Unsupported: it is capturing")
        refuse_unsafe("to wait")
        counts.synchronisations += 1
        wait(self.do(lambda: None))

    @property
    def done(self) -> bool:
        refuse_unsafe("to ask a stream")
        nudge()
        last = self._queue().last
        return last is None or last.done

    def record(self, event: Event | None = None) -> Event:
        event = event or Event()
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        if self._recorded is not None:
            self._invalidate("Isolation: the event is of what is not captured")
        self._queue().wait_for(event.work)

    def begin_capture(self, mode: int | None = None) -> None:
        if not self.ptr:
            raise CUDARuntimeError("cudaErrorStreamCaptureUnsupported: the default stream")
        self.mode = RELAXED if mode is None else mode
        self._recorded, self._invalid = [], False
        _capturing.append(self)

    def is_capturing(self) -> bool:
        if not self.ptr and any(other.queue.blocking for other in _capturing):
            raise CUDARuntimeError("cudaErrorStreamCaptureImplicit: the default stream")
        return self._recorded is not None

    def end_capture(self) -> Graph:
        recorded, self._recorded = self._recorded, None
        assert recorded is not None
        # by identity: another object may be the same stream
        _capturing[:] = [stream for stream in _capturing if stream is not self]
        if self._invalid:
            raise CUDARuntimeError("cudaErrorStreamCaptureInvalidated")
        return Graph(recorded)


class _Foreign(Stream):
    """Another object for a stream, which somebody else keeps."""

    def __del__(self) -> None:
        pass


def start_over() -> None:
    """Make the default streams current and end all captures, which a test that failed has left."""
    _streams().clear()
    for stream in list(_capturing):
        stream._invalid = False
        stream.end_capture()


def refuse_unsafe(what: str) -> None:
    """Refuse what may not be done while any stream is capturing in another mode than relaxed."""
    for stream in _capturing:
        if stream.mode != RELAXED:
            stream._invalidate(f"Unsupported: {what}, while a stream captures in global mode")


def synchronize_device() -> None:
    """Wait for everything on the current device."""
    for stream in _capturing:
        stream._invalidate("Unsupported: to wait for a device")
    counts.synchronisations += 1
    wait(device=state.device)


class Event:
    """A point in a stream."""

    def __init__(
        self, block: bool = False, disable_timing: bool = False, interprocess: bool = False
    ) -> None:
        self.seconds: float | None = None
        self.work: Work | None = None

    def record(self, stream: Stream | None = None) -> None:
        self.work = (stream or get_current_stream()).do(self._happen)

    def _happen(self) -> None:
        self.seconds = time.perf_counter()

    @property
    def done(self) -> bool:
        refuse_unsafe("to ask an event")
        nudge()
        return self.work is None or self.work.done

    def synchronize(self) -> None:
        refuse_unsafe("to wait")
        counts.synchronisations += 1
        wait(self.work)


def get_elapsed_time(start: Event, end: Event) -> float:
    """Return the milliseconds between two events that have been recorded."""
    assert start.seconds is not None
    assert end.seconds is not None
    return (end.seconds - start.seconds) * 1000


Stream.null = Stream(null=True)


def _streams() -> dict[int, Stream]:
    """Return this thread's current streams by their devices."""
    if not hasattr(_current, "streams"):
        _current.streams = {}
    streams: dict[int, Stream] = _current.streams
    return streams


def get_current_stream(device_id: int = -1) -> Stream:
    """Return this thread's current stream of a device, by default the current one."""
    return _streams().get(state.device if device_id == -1 else device_id, Stream.null)


def do(call: Callable[[], None]) -> Work | None:
    """Do something on the current stream."""
    return get_current_stream().do(call)
