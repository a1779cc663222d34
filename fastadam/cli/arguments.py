"""Arguments and settings that several commands have."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fastadam.kernels.cpu import threads

__all__ = ["at_least", "new_file", "restored_threads"]


def at_least(minimum: int) -> Callable[[str], int]:
    """Return what reads a whole number for argparse, and refuses smaller ones."""

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = minimum - 1
        if number < minimum:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {minimum} on")
        return number

    return read


def new_file(text: str) -> Path:
    """Read a path that a file can be written to, so that no result is lost at the end."""
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is a folder; give the path of a file")
    if not os.access(path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text}: no file can be made in {path.parent}")
    return path


@contextmanager
def restored_threads() -> Iterator[None]:
    """Put the number of threads back to what it was, whatever the body sets it to."""
    before = threads.set_by_hand()
    try:
        yield
    finally:
        threads.set_num_threads(before)
