"""The command line: ``python -m fastadam``, also installed as ``fastadam``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from types import ModuleType

from fastadam._version import __version__
from fastadam.bench import command as bench
from fastadam.cli import demo, info, inspect, output, selftest
from fastadam.cli.program import as_program
from fastadam.configuration import get_config, show_config

__all__ = ["main", "run"]

# Each is a module with SUMMARY, add_arguments(parser) and run(args) -> exit status.
_COMMANDS: dict[str, ModuleType] = {
    "bench": bench,
    "demo": demo,
    "info": info,
    "inspect": inspect,
    "selftest": selftest,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command of the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments after the program's name; default: those of the process.

    Returns
    -------
    int
        0 if all is well, 1 if a check failed or something is not installed.

    Raises
    ------
    SystemExit
        With status 2 if the arguments are wrong, with 0 after ``--help`` and ``--version``.

    Examples
    --------
    >>> from fastadam.__main__ import main
    >>> main(['info'])  # doctest: +ELLIPSIS
    fastadam: ...
    0
    """
    args = _parser().parse_args(argv)
    if args.command is None:
        return _overview(args.json)
    status: int = _COMMANDS[args.command].run(args)
    return status


def _parser() -> argparse.ArgumentParser:
    """Build the parser, one subparser a command."""
    parser = argparse.ArgumentParser(
        prog="fastadam", description="The Adam family of optimizers, fast on the CPU."
    )
    parser.add_argument("--version", action="version", version=f"fastadam {__version__}")
    json_help = "print the result as JSON on standard output, and everything else on standard error"
    parser.add_argument("--json", action="store_true", help=json_help)
    subparsers = parser.add_subparsers(dest="command", title="commands", metavar="COMMAND")
    for name, command in _COMMANDS.items():
        subparser = subparsers.add_parser(name, help=command.SUMMARY, description=command.__doc__)
        # without a default of its own, it leaves alone a --json that stands before the command
        subparser.add_argument(
            "--json", action="store_true", default=argparse.SUPPRESS, help=json_help
        )
        command.add_arguments(subparser)
    return parser


def _overview(as_json: bool) -> int:
    """Say what this is, how it is configured and which commands there are."""
    summaries = {name: command.SUMMARY for name, command in _COMMANDS.items()}
    if as_json:
        output.print_json({"fastadam": __version__, "config": get_config(), "commands": summaries})
        return 0
    print(f"fastadam {__version__}: the Adam family of optimizers, fast on the CPU\n")
    show_config()
    print("\ncommands, each with --help and --json:")
    for line in output.table([(f"python -m fastadam {k}", v) for k, v in summaries.items()], "ll"):
        print(f"  {line}")
    return 0


def run() -> int:
    """Run as a program, of which a shell sees the status and no traceback."""
    return as_program(main)


if __name__ == "__main__":
    sys.exit(run())
