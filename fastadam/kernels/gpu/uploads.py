"""What the host puts into a GPU's memory: tables that kernels read, now or in a CUDA graph."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from fastadam.kernels.backend import capturing, current_stream, loaded_cupy, on_device

__all__ = [
    "SPARE",
    "DeviceTable",
    "Recording",
    "allocate",
    "follow_stream",
    "refused_by_name",
    "reserve",
    "upload",
]

# How many graphs may be captured one after the other with nothing in between.
SPARE = 4


def upload(memory: Any, data: bytes) -> None:
    """Copy bytes to memory of their length on the current device and stream of a GPU.

    They are kept until they have been read; nobody can change them meanwhile.
    """
    memory.set(np.frombuffer(data, np.uint8))
    event = loaded_cupy().cuda.Event(disable_timing=True)
    event.record()
    with _uploading:
        _uploads.append((event, data))
        while _uploads and _uploads[0][0].done:
            _uploads.popleft()


# What has been given to be copied, and when it has been.
_uploads: deque[tuple[Any, bytes]] = deque()
_uploading = threading.Lock()


@contextmanager
def refused_by_name(device: int, what: str) -> Iterator[None]:
    """Say what to do if CUDA refuses something because a stream is capturing."""
    recording = capturing(device)
    try:
        yield
    except loaded_cupy().cuda.runtime.CUDARuntimeError as error:
        if not recording:
            raise
        raise RuntimeError(
            f"this update cannot be captured in a CUDA graph: CUDA does not {what} while a stream "
            f"captures in global mode ({error}); make one more such update before the capture "
            "begins, or capture in relaxed mode"
        ) from error


class Recording:
    """What a CUDA graph reads that is being captured: kept alive, and written before its launch.

    In a capture nothing is copied or waited for; nor is anything allocated that could have been
    before, since that is for captures in relaxed mode alone.
    """

    def __init__(self, device: int) -> None:
        self.device = device
        self._read: list[Any] = []
        self._due: list[tuple[Any, bytes, Any]] = []
        # what tables have put here, by table and contents
        self.there: dict[tuple[DeviceTable, bytes], Any] = {}

    def keep(self, memory: Any) -> Any:
        """Keep what the graph reads."""
        self._read.append(memory)
        return memory

    def put(self, reserved: tuple[Any, Any] | None, data: bytes) -> Any:
        """Return memory in which bytes will be when the graph is launched.

        It is what `reserve` has returned for it, if something has been reserved.
        """
        memory, stream = reserved or reserve(self.device, len(data))
        self._due.append((memory, data, stream))
        return self.keep(memory)

    def send(self) -> None:
        """Write what has not been written yet, on the current stream."""
        due, self._due = self._due, []
        with on_device(self.device):
            for memory, data, stream in due:
                follow_stream(stream)
                upload(memory, data)


def allocate(device: int, n: int, dtype: npt.DTypeLike) -> Any:
    """Return an array of a GPU's, of whatever there has been; refused by name in a capture."""
    with refused_by_name(device, "allocate memory"), on_device(device):
        return loaded_cupy().empty(n, dtype)


def reserve(device: int, size: int) -> tuple[Any, Any]:
    """Return bytes of a GPU's memory, and the stream in whose order they are had."""
    return allocate(device, size, np.uint8), current_stream(device)


def follow_stream(stream: Any) -> None:
    """Let the current stream come after all that another one of its device has been given.

    What was had on one stream may have been another's just before, which that stream still reads.
    """
    current = loaded_cupy().cuda.get_current_stream()
    if current.ptr != stream.ptr:
        current.wait_event(stream.record())


class DeviceTable:
    """A table in a GPU's memory, which is uploaded only when it differs from what is there.

    What has been written is never written over, since an earlier launch may have yet to read it;
    and it is read on the stream that it was had on alone, in the order of which its memory will be
    somebody else's. That stream is kept: CUDA gives the number of one that is gone to the next.
    """

    def __init__(self, device: int) -> None:
        self.device = device
        self._there: bytes | None = None
        self._version: int | None = None
        self._memory: Any = None
        self._stream: Any = None
        self._reserved: list[tuple[Any, Any]] = []

    def put(
        self,
        table: npt.NDArray[Any],
        recording: Recording | None = None,
        version: int | None = None,
        stream: Any = None,
    ) -> Any:
        """Upload a table, unless it is there, on the current stream; return the GPU's array.

        Parameters
        ----------
        table : numpy.ndarray
            Contiguous, of any dtype.
        recording : Recording, optional
            Of the graph that is to read it, and keeps it.
        version : int, optional
            A number that is another whenever the table is: then its bytes are not compared.
        stream : cupy.cuda.Stream, optional
            The current one of the GPU, if it is known.
        """
        now = self._there
        if now is None or version is None or version != self._version:
            now, self._version = table.tobytes(), None
        if recording is not None:
            if now == self._there:
                return recording.keep(self._memory)
            key = self, now
            if key not in recording.there:
                reserved = self._reserved.pop() if self._reserved else None
                recording.there[key] = recording.put(reserved, now)
            return recording.there[key]
        stream = stream or current_stream(self.device)
        if now != self._there or stream.ptr != self._stream.ptr:
            with on_device(self.device):
                memory = loaded_cupy().empty(len(now), np.uint8)
                upload(memory, now)
            # Ctrl-C before this leaves what was there
            self._memory, self._stream, self._there = memory, stream, now
        self._version = version
        return self._memory

    def reserve(self, size: int) -> None:
        """Have memory for the next SPARE graphs, so that capturing them need not."""
        while len(self._reserved) < SPARE:
            self._reserved.append(reserve(self.device, size))
