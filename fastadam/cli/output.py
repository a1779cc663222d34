"""What commands print: results on standard output, progress on standard error."""

from __future__ import annotations

import argparse
import json
import sys

from fastadam.update.text_table import table

__all__ = ["print_json", "printable", "progress", "refuse", "table"]


def print_json(result: object) -> None:
    """Print a result for machines on standard output."""
    print(json.dumps(result, indent=2))


def refuse(args: argparse.Namespace, message: str, **more: str) -> int:
    """Say why there is no result, as JSON if that was asked for; return the status of that."""
    if args.json:
        print_json({"error": message, **more})
    else:
        print(printable(message), file=sys.stderr)
    return 1


def printable(text: str) -> str:
    r"""Return text from a file as a terminal may print it: what is no character is escaped.

    Line breaks stay.

    Examples
    --------
    >>> printable('w\x1b[2J')
    'w\\x1b[2J'
    """
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


def progress(line: str) -> None:
    """Print a line that is not part of the result on standard error."""
    print(line, file=sys.stderr, flush=True)
