"""Measure fastadam's steps beside those of other libraries and beside the memory's limit.

All contenders are timed in turns in one process. PyTorch, optax, DeepSpeed and Chainer take part
where they are installed. The ratios of one run can be relied on; times change with the machine
and with what else it does.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fastadam.bench import arrays, machine, plans, report
from fastadam.bench.cases import CASES
from fastadam.bench.device import DEVICES, Cpu, Cuda
from fastadam.bench.headers import UnreadableModel, read_model
from fastadam.bench.peers import OURS, Roster
from fastadam.bench.picture import check_matplotlib, save_picture
from fastadam.bench.settings import VARIANTS
from fastadam.bench.targets import judge
from fastadam.cli import arguments, output
from fastadam.cli.extras import MissingExtra

__all__ = ["SUMMARY", "add_arguments", "run"]

SUMMARY = "time steps beside PyTorch, optax, DeepSpeed, Chainer, NumPy and the memory's limit"

# CPUs taken by other programs that are worth a warning.
_BUSY = 0.1

_DTYPES = ("float32", "float64", "float16", "bfloat16")
_CONTENDERS = {**Cpu.contenders, **Cuda.contenders}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "--device",
        choices=tuple(DEVICES),
        default="cpu",
        help="where: on the CPU, or with CuPy on the first GPU (default: cpu)",
    )
    for option, known, default, text in (
        ("--what", plans.WHAT, None, "what to measure (default: ratios; on a GPU host, too)"),
        ("--cases", CASES, None, "what ratios and chain are measured on"),
        ("--variants", VARIANTS, ("adamw",), "of the Adam family"),
        ("--dtypes", _DTYPES, None, "of parameters and gradients"),
        ("--contenders", _CONTENDERS, None, "who takes part, by default all; fastadam always does"),
    ):
        names = tuple(known)
        shown = f" (default: {','.join(default)})" if default and default != names else ""
        parser.add_argument(
            option,
            type=_names(names),
            default=default,
            metavar="NAME,...",
            help=f"{text}: {', '.join(names)}{shown}",
        )
    parser.add_argument(
        "--threads",
        type=_threads,
        default=None,
        metavar="N,...",
        help="numbers of threads, and 'all' for one a CPU (default: all)",
    )
    parser.add_argument(
        "--rounds",
        type=arguments.at_least(1),
        metavar="N",
        help="how many turns each contender has (default: 15, with --quick 5)",
    )
    parser.add_argument(
        "--quick", action="store_true", help="small cases and short turns: under a minute"
    )
    parser.add_argument(
        "--like",
        type=Path,
        metavar="FILE",
        help="compare on the shapes in a model's .npz or .safetensors file, read from its header",
    )
    parser.add_argument(
        "--output", type=_file, metavar="FILE", help="write the result as JSON to this file, too"
    )
    parser.add_argument("--png", type=_file, metavar="FILE", help="draw a chart into this file")


def run(args: argparse.Namespace) -> int:
    """Measure, print, write and draw; return 0, or 1 if something that was asked for is missing."""
    try:
        result = _measure(args)
    except (MissingExtra, UnreadableModel, _MissingDevice) as error:
        if args.json:
            install = {"install": error.install} if isinstance(error, MissingExtra) else {}
            output.print_json({"error": str(error)} | install)
        else:
            print(error, file=sys.stderr)
        return 1
    if args.output is not None:
        args.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    if args.png is not None:
        save_picture(args.png, result)
    if args.json:
        output.print_json(result)
    else:
        _print_result(result, args)
    return 0


class _MissingDevice(Exception):
    """There is no such device here, or what was asked for is not measured on it."""


def _device(args: argparse.Namespace) -> Cpu | Cuda:
    """Return the device, if it is there and all that was asked for can be measured on it."""
    try:
        device = DEVICES[args.device]()
    except RuntimeError as error:
        raise _MissingDevice(str(error)) from error
    for option, asked, known in (
        ("--what", args.what, device.what),
        ("--contenders", args.contenders, tuple(device.contenders)),
    ):
        wrong = [name for name in asked or () if known is not None and name not in known]
        if wrong:
            raise _MissingDevice(
                f"with --device {device.name} there is no {option} {','.join(wrong)}; "
                f"there are {', '.join(known or ())}"
            )
    return device


def _measure(args: argparse.Namespace) -> dict[str, Any]:
    """Find out what to measure on, measure, and return all that there is to tell."""
    started = time.perf_counter()
    if args.png is not None:
        check_matplotlib()
    device = _device(args)
    sizes = plans.QUICK if args.quick else plans.THOROUGH
    if device.cases is not None and not args.quick:
        sizes = sizes._replace(cases=device.cases)
    if args.rounds is not None:
        sizes = sizes._replace(plan=sizes.plan._replace(rounds=args.rounds))
    dtypes: tuple[str | None, ...] = args.dtypes or ("float32",)
    left_out: list[str] = []
    if args.like is not None:
        like, left_out = read_model(args.like)
        cases = [like] + [CASES[name]() for name in args.cases or ()]
        dtypes = args.dtypes or (None,)
    else:
        cases = [CASES[name]() for name in args.cases or sizes.cases]
    for case in cases:
        for dtype in dtypes:
            arrays.dtypes(case, dtype)  # what is missing is said before anything else happens
    threads = args.threads or [machine.cpus()]
    names = tuple(dict.fromkeys((OURS[0], *(args.contenders or device.contenders))))
    what = args.what or device.what or ("ratios",)
    options = plans.Options(what, cases, args.variants, dtypes, threads, sizes)
    with _quiet(), arguments.restored_threads():
        roster = Roster(names, device)
        made_on = machine.describe(roster.versions) | device.describe()
        before, since = machine.others_seconds(), time.perf_counter()
        results = plans.run(roster, options)
        after, until = machine.others_seconds(), time.perf_counter()
    if before is not None and after is not None:
        # counted in ticks, so that it may come out below 0
        made_on["other_programs_cpus"] = max(0.0, round((after - before) / (until - since), 2))
    if left_out:
        roster.leave_out(str(args.like), f"not of a type that is stepped: {', '.join(left_out)}")
    return {
        "made_on": made_on,
        "threads": threads,
        "rounds": sizes.plan.rounds,
        "results": results,
        "targets": judge(results),
        "left_out": [one._asdict() for one in roster.left_out],
        "seconds": round(time.perf_counter() - started, 1),
    }


def _print_result(result: dict[str, Any], args: argparse.Namespace) -> None:
    """Print the tables, on what they were made, and what is not in them."""
    print(
        f"Medians of {result['rounds']} rounds with (first-third quartile). Beside fastadam: above "
        "1, fastadam is\nfaster. Beside the floor: 1 is the memory's limit.\n"
    )
    for line in report.text(result["results"]):
        print(line)
    for one in result["targets"]:
        reached = "reached" if one["reached"] else "not reached"
        print(f"{one['what']}: wanted {one['wanted']:g}, measured {one['measured']:.3g}, {reached}")
    print(f"Made on {machine.line(result['made_on'], result['threads'])}")
    others = result["made_on"].get("other_programs_cpus", 0.0)
    if others > _BUSY:
        print(
            f"Other programs took {others} CPUs meanwhile: steps on several threads, which wait "
            "for each other, look\nslower than they are. Measure again on a quiet machine."
        )
    for one in result["left_out"]:
        where = f" ({'; '.join(one['where'])})" if one["where"] else ""
        print(f"Left out: {one['what']}{where}: {one['why']}")
    for what, path in (("JSON", args.output), ("Chart", args.png)):
        if path is not None:
            print(f"{what}: {path}")
    print(f"Done in {result['seconds']} s.")


def _names(known: tuple[str, ...]) -> Callable[[str], tuple[str, ...]]:
    """Return what reads names with commas between them for argparse, and refuses unknown ones."""

    def read(text: str) -> tuple[str, ...]:
        names = tuple(dict.fromkeys(text.split(",")))
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
        return names

    return read


def _threads(text: str) -> list[int]:
    """Read numbers of threads with commas between them."""
    read = arguments.at_least(1)
    found = [machine.cpus() if part == "all" else read(part) for part in text.split(",")]
    return list(dict.fromkeys(found))


def _file(text: str) -> Path:
    """Read a path that a file can be written to, so that no measurement is lost at its end."""
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is a folder; give the path of a file")
    if not os.access(path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text}: no file can be made in {path.parent}")
    return path


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Turn to standard error what libraries, their C code too, print to standard output."""
    sys.stdout.flush()
    saved = os.dup(1)
    os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        ctypes.CDLL(None).fflush(None)  # what C code has not written yet
        os.dup2(saved, 1)
        os.close(saved)
