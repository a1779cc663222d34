"""List what a file holds."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from fastadam.checkpoint.listing import listing
from fastadam.cli import output
from fastadam.files.errors import CheckpointError

__all__ = ["SUMMARY", "add_arguments", "run"]

SUMMARY = "list what a saved file holds, and check it"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("file", type=Path, metavar="FILE", help="an .npz, .h5 or .hdf5 file")


def run(args: argparse.Namespace) -> int:
    """Print; return 1 if the file is damaged or cannot be read."""
    try:
        found = listing(args.file)
    except (CheckpointError, OSError, ValueError, RuntimeError) as error:
        if args.json:
            output.print_json({"error": str(error)})
        else:
            print(error, file=sys.stderr)
        return 1
    if args.json:
        output.print_json(found)
    else:
        _print(found)
    return 0 if found["damaged"] == [] else 1


def _print(found: dict[str, Any]) -> None:
    """Print a table, and what there is to say of the whole."""
    rows = [["key", "dtype", "shape", "bytes", ""]]
    for entry in found["entries"]:
        shape = "x".join(map(str, entry["shape"])) or "-"
        damage = "" if entry["damage"] is None else entry["damage"]
        rows.append([entry["key"], entry["dtype"], shape, f"{entry['bytes']:,}", damage])
    for line in output.table(rows, "lllrl"):
        print(line.rstrip())
    total = sum(entry["bytes"] for entry in found["entries"])
    print(f"{len(found['entries'])} entries, {total:,} bytes")
    if found["versions"]:
        print("saved with " + ", ".join(f"{k} {v}" for k, v in found["versions"].items()))
    if found["damaged"]:
        print(f"DAMAGED: {', '.join(found['damaged'])}")
    elif found["verified"]:
        print("verified: everything is as it was saved")
    else:
        print("not verified: the file has no list of its contents, as others write them")
