"""Arguments and settings that several commands have."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager

from fastadam.kernels import threads

__all__ = ["positive", "restored_threads"]


def positive(text: str) -> int:
    """Read a whole number of at least 1, for argparse."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"it must be a whole number of at least 1, not {text!r}")
    return number


@contextmanager
def restored_threads() -> Iterator[None]:
    """Put the number of threads back to what it was, whatever the body sets it to."""
    before = threads.set_by_hand()
    try:
        yield
    finally:
        threads.set_num_threads(before)
