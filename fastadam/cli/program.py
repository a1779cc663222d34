"""A command as a program of its own: closed and full outputs, readers that go away, Ctrl-C."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from typing import IO, Any

__all__ = ["BROKEN_PIPE", "INTERRUPTED", "NOT_WRITTEN", "as_program"]

# What a shell reports of programs that these signals have ended.
INTERRUPTED = 130
BROKEN_PIPE = 141

NOT_WRITTEN = 1


def as_program(command: Callable[[], int]) -> int:
    """Call a command and return the status of its process, without a traceback for its outside.

    The command returns a status, or raises SystemExit with one.

    Returns
    -------
    int
        The command's status. 130 after Ctrl-C; 141 if who reads the output has gone, such as
        ``head``; 1, with a line on standard error, if the output cannot be written: it is closed,
        or the disk is full.
    """
    closed = _open_closed_streams()
    _record_failures()
    status: object = 0
    try:
        status = command()
    except SystemExit as stop:
        status = stop.code
    except KeyboardInterrupt:
        status = INTERRUPTED
    except OSError:
        # one of an output's is told at the end
        if not any([_failure(sys.stdout), _failure(sys.stderr)]):
            raise
    unwritten = _end_streams(closed)
    return unwritten or (status if isinstance(status, int) else int(status is not None))


def _open_closed_streams() -> bool:
    """Let outputs that are closed lead nowhere; tell whether standard output is one of them.

    Otherwise the next file that is opened would get the number of standard output.
    """
    closed = sys.stdout is None
    for number, name in ((0, "stdin"), (1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            _lead_nowhere(number)
            setattr(sys, name, open(number, "r+" if number == 0 else "w", closefd=False))  # noqa: SIM115
    return closed


class _Recorded(io.FileIO):
    """A file descriptor that remembers why it could not be written; buffers may forget it."""

    failure: OSError | None = None

    def write(self, data: Any, /) -> int:
        """Write, and keep the error if that fails."""
        try:
            return super().write(data)
        except OSError as error:
            self.failure = error
            raise


def _record_failures() -> None:
    """Buffer standard output anew, so that it can tell afterwards why it could not be written."""
    stream: Any = sys.stdout
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(_Recorded(1, "w", closefd=False)),
        stream.encoding,
        stream.errors,
        line_buffering=stream.line_buffering or stream.write_through,
    )


def _end_streams(closed: bool) -> int:
    """Write what is left; return the status of what cannot be written, 0 if everything was."""
    failures = {}
    for number, stream in ((1, sys.stdout), (2, sys.stderr)):
        failure = _failure(stream)
        if failure is not None:
            # what is left in it is written at the end of the process again
            _lead_nowhere(number)
            failures[number] = failure
    if any(isinstance(failure, BrokenPipeError) for failure in failures.values()):
        return BROKEN_PIPE
    if closed or failures:
        why = "it is closed" if closed else next(iter(failures.values())).strerror
        if 2 not in failures:
            print(f"fastadam: standard output cannot be written: {why}", file=sys.stderr)
        return NOT_WRITTEN
    return 0


def _failure(stream: IO[Any]) -> OSError | None:
    """Write what is left in a stream; return what came of it if it could not be written."""
    try:
        stream.flush()
    except OSError as error:
        return error
    raw = getattr(getattr(stream, "buffer", None), "raw", None)
    return raw.failure if isinstance(raw, _Recorded) else None


def _lead_nowhere(number: int) -> None:
    """Let a file descriptor lead nowhere."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    if nowhere != number:
        os.dup2(nowhere, number)
        os.close(nowhere)
