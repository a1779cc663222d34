"""List what a file holds."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from fastadam.checkpoint.listing import listing
from fastadam.cli import output
from fastadam.files.errors import CheckpointError

__all__ = ["SUMMARY", "add_arguments", "run"]

# Characters of a value.
_WIDEST = 40

SUMMARY = "list what a saved file holds, and check it"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("file", type=Path, metavar="FILE", help="an .npz, .h5 or .hdf5 file")


def run(args: argparse.Namespace) -> int:
    """Print; return 1 if the file is damaged or cannot be read."""
    try:
        found = listing(args.file)
    except (CheckpointError, OSError, ValueError, RuntimeError) as error:
        return output.refuse(args, str(error))
    if args.json:
        output.print_json(found)
    else:
        _print(found)
    return 0 if found["damaged"] == [] else 1


def _print(found: dict[str, Any]) -> None:
    """Print a table, and what there is to say of the whole."""
    rows = [["key", "dtype", "shape", "bytes", "value", ""]]
    for entry in found["entries"]:
        shape = "x".join(map(str, entry["shape"])) or "-"
        damage = "" if entry["damage"] is None else entry["damage"]
        value = "" if entry["value"] is None else str(entry["value"])
        if len(value) > _WIDEST:
            value = value[: _WIDEST - 3] + "..."
        cells = [entry["key"], entry["dtype"], shape, f"{entry['bytes']:,}", value, damage]
        rows.append([_one_line(cell) for cell in cells])
    print(*output.table(rows, "lllrll"), sep="\n")
    total = sum(entry["bytes"] for entry in found["entries"])
    print(f"{len(found['entries'])} entries, {total:,} bytes")
    if found["versions"]:
        versions = ", ".join(f"{k} {v}" for k, v in found["versions"].items())
        print("saved with " + _one_line(versions))
    if found["damaged"]:
        print(f"DAMAGED: {_one_line(', '.join(found['damaged']))}")
    elif found["verified"]:
        print("verified: everything is as it was saved")
    else:
        print("not verified: the file has no list of its contents, as others write them")


def _one_line(text: str) -> str:
    """Return text of a file as one line of a terminal."""
    return output.printable(text.replace("\n", "\\n"))
