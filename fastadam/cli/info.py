"""Show the configuration: versions, compiler, instruction sets and threads."""

from __future__ import annotations

import argparse

from fastadam.cli import output
from fastadam.configuration import get_config, show_config

__all__ = ["SUMMARY", "add_arguments", "run"]

SUMMARY = "show versions, compiler, instruction sets and threads"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add nothing: the command has no options of its own."""


def run(args: argparse.Namespace) -> int:
    """Print the configuration; return 0."""
    if args.json:
        output.print_json(get_config())
    else:
        show_config()
    return 0
