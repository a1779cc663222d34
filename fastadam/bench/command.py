"""Measure fastadam's steps beside those of other libraries and beside the memory's limit.

All contenders are timed in turns in one process. PyTorch, optax, DeepSpeed and Chainer take part
where they are installed. The ratios of one run can be relied on; times change with the machine
and with what else it does. With --torch it is PyTorch's tensors that are stepped, by the classes of
fastadam.torch beside PyTorch's own. With --cuda it is CuPy's arrays, on the first GPU.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from fastadam.bench import arrays, cuda_picture, cuda_plans, machine, plans, tensor_plans
from fastadam.bench.cases import CASES
from fastadam.bench.contender import Contender, Unavailable, imported
from fastadam.bench.cuda import Cuda, describe
from fastadam.bench.headers import UnreadableModel, read_model
from fastadam.bench.peers import CONTENDERS, OURS, Roster
from fastadam.bench.picture import Panel, save_picture
from fastadam.bench.plans import Measurement
from fastadam.bench.settings import VARIANTS
from fastadam.bench.targets import judge
from fastadam.bench.tensors import Tensors
from fastadam.cli import arguments, output
from fastadam.cli.extras import MissingExtra, load
from fastadam.files.atomic import atomic_write
from fastadam.kernels.backend import require_cupy

__all__ = ["SUMMARY", "Bench", "Refused", "add_arguments", "refuse_others", "run"]

SUMMARY = "time steps beside PyTorch, optax, DeepSpeed, Chainer, NumPy and the memory's limit"

# CPUs taken by other programs that are worth a warning.
_BUSY = 0.1

_DTYPES = ("float32", "float64", "float16", "bfloat16")


class Refused(Exception):
    """What was asked for cannot be measured here; the message says why.

    Attributes
    ----------
    more : dict of str to str
        What is said beside it in JSON.
    """

    def __init__(self, why: str, **more: str) -> None:
        super().__init__(why)
        self.more = more


def refuse_others(
    args: argparse.Namespace, where: str, what: Collection[str], contenders: Collection[str]
) -> None:
    """Refuse measurements and contenders that there are not, but elsewhere.

    Raises
    ------
    Refused
        With those that there are.
    """
    for option, asked, known in (
        ("--what", args.what, what),
        ("--contenders", args.contenders, contenders),
    ):
        wrong = [name for name in asked or () if name not in known]
        if wrong:
            raise Refused(
                f"{where} there is no {option} {','.join(wrong)}; there are {', '.join(known)}"
            )


class Bench:
    """The options of a benchmark, and a run of it."""

    what: ClassVar[Mapping[str, Measurement]] = tensor_plans.ON_TENSORS
    contenders: ClassVar[Mapping[str, type[Contender]]] = {**CONTENDERS, **Cuda.contenders}

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the options."""
        for option, known, text in (
            (
                *("--what", {**self.what, **cuda_plans.ON_GPU}),
                "what to measure (default: ratios; with --torch, which alone has "
                f"{', '.join(tensor_plans.ONLY_HERE)}, these too; with --cuda "
                f"{', '.join(cuda_plans.BY_DEFAULT)})",
            ),
            ("--cases", CASES, "what is stepped"),
            ("--variants", VARIANTS, "of the Adam family (default: adamw)"),
            ("--dtypes", _DTYPES, "of parameters and gradients"),
            (
                *("--contenders", self.contenders),
                "who takes part, by default all; fastadam always does",
            ),
        ):
            names = tuple(known)
            shown = f"{text}: {', '.join(names)}"
            parser.add_argument(option, type=_names(names), metavar="NAME,...", help=shown)
        parser.add_argument(
            "--threads",
            type=_threads,
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
            "--torch",
            action="store_true",
            help="step PyTorch's tensors: fastadam.torch beside PyTorch's three and DeepSpeed",
        )
        parser.add_argument(
            "--cuda",
            action="store_true",
            help="step CuPy's arrays on the first GPU, beside PyTorch's, apex's and Chainer's",
        )
        parser.add_argument(
            "--seconds",
            type=arguments.at_least(1),
            metavar="N",
            help="after so many, begin nothing more, and name what is left out "
            f"(default: no limit; with --cuda {cuda_plans.SECONDS})",
        )
        parser.add_argument(
            "--quick", action="store_true", help="small cases and short turns: under a minute"
        )
        parser.add_argument(
            "--like",
            type=Path,
            metavar="FILE",
            help="compare on the shapes in a model's .npz or .safetensors file, from its header",
        )
        parser.add_argument(
            "--output",
            type=arguments.new_file,
            metavar="FILE",
            help="write the result as JSON to this file, too",
        )
        parser.add_argument(
            "--png", type=arguments.new_file, metavar="FILE", help="draw a chart into this file"
        )

    def run(self, args: argparse.Namespace) -> int:
        """Measure, print, write and draw; return 0, or 1 for what is missing or failed."""
        try:
            result = self.measure(args)
        except MissingExtra as error:
            return output.refuse(args, str(error), install=error.install)
        except Refused as error:
            return output.refuse(args, str(error), **error.more)
        except UnreadableModel as error:
            return output.refuse(args, str(error))
        if args.output is not None:
            _write(args.output, result)
        if args.png is not None:
            save_picture(args.png, result, self.panels(result))
        if args.json:
            output.print_json(result)
        else:
            print(*self.lines(result, args), sep="\n")
        return int(bool(result["failed"]))

    def roster(self, args: argparse.Namespace) -> type[Roster]:
        """Return the kind of roster that takes part, if all that was asked for is there."""
        if args.cuda:
            return _on_gpu(args)
        if not args.torch:
            here = [name for name in self.what if name not in tensor_plans.ONLY_HERE]
            refuse_others(args, "without --torch and --cuda", here, Roster.contenders)
            return Roster
        try:
            imported("torch")
        except Unavailable as error:
            more = {} if error.install is None else {"install": error.install}
            raise Refused(f"--torch needs PyTorch, which is {error}", **more) from None
        refuse_others(args, "with --torch", tensor_plans.ON_TENSORS, Tensors.contenders)
        args.what = args.what or tensor_plans.BY_DEFAULT
        if args.like is None:
            by_default = tensor_plans.QUICK_CASES if args.quick else tensor_plans.CASES
            args.cases = args.cases or by_default
        return Tensors

    def panels(self, result: dict[str, Any]) -> list[Panel]:
        """Return what is drawn beside the ratios."""
        return cuda_picture.panels(result)

    def measure(self, args: argparse.Namespace) -> dict[str, Any]:
        """Find out what to measure on, measure, and return all that there is to tell."""
        started = time.perf_counter()
        if args.png is not None:
            load("bench", "matplotlib.figure")
        kind = self.roster(args)
        sizes = plans.QUICK if args.quick else plans.THOROUGH
        if args.rounds is not None:
            sizes = sizes._replace(plan=sizes.plan._replace(rounds=args.rounds))
        dtypes: tuple[str | None, ...] = args.dtypes or (
            None if args.like or args.torch or args.cuda else "float32",
        )
        names = args.cases or (() if args.like else sizes.cases)
        cases = [CASES[name]() for name in names]
        left_out: list[str] = []
        if args.like is not None:
            like, left_out = read_model(args.like)
            cases.insert(0, like)
        if args.torch:
            # as a backward pass leaves them
            cases = [case._replace(fresh=True) for case in cases]
        for case in cases:
            for dtype in dtypes:
                # what is missing is said before anything else happens
                arrays.label(case, dtype)
        threads = args.threads or [machine.cpus()]
        known = cuda_plans.ON_GPU if args.cuda else self.what
        what = {name: known[name] for name in args.what or ("ratios",)}
        results: dict[str, plans.Rows] = {name: [] for name in what}

        def told(finished: bool) -> dict[str, Any]:
            return {
                "made_on": made_on,
                "threads": threads,
                "rounds": sizes.plan.rounds,
                "results": results,
                "targets": judge(results) if args.cuda else [],
                "failed": roster.failed,
                "left_out": [one._asdict() for one in roster.left_out],
                "seconds": round(time.perf_counter() - started, 1),
                "finished": finished,
            }

        options = plans.Options(cases, args.variants or ("adamw",), dtypes, threads, sizes)
        with _quiet(), arguments.restored_threads():
            roster = kind(tuple(dict.fromkeys((OURS[0], *(args.contenders or kind.contenders)))))
            if args.seconds is not None:
                roster.until = started + args.seconds
            made_on = machine.describe(roster.versions)
            if args.cuda:
                made_on |= describe()
            before, since = machine.others_seconds(), time.perf_counter()
            for name, row in plans.run(roster, what, options):
                results[name] += [] if row is None else [row]
                if args.output is not None and (args.output.is_file() or not args.output.exists()):
                    # whatever ends this run, what was measured and what has failed is kept
                    _write(args.output, told(finished=False))
            after, until = machine.others_seconds(), time.perf_counter()
        if before is not None and after is not None:
            # counted in ticks, so that it may come out below 0
            made_on["other_programs_cpus"] = max(0.0, round((after - before) / (until - since), 2))
        if left_out:
            why = f"not of a type that is stepped: {', '.join(left_out)}"
            roster.leave_out(str(args.like), why)
        return told(finished=True)

    def lines(self, result: dict[str, Any], args: argparse.Namespace) -> Iterator[str]:
        """Yield the tables, on what they were made, and what is not in them."""
        yield (
            f"Medians of {result['rounds']} rounds with (first-third quartile). Beside fastadam: "
            "above 1, fastadam is\nfaster. Beside the floor: 1 is the memory's limit.\n"
        )
        known = cuda_plans.ON_GPU if args.cuda else self.what
        for what, rows in result["results"].items():
            yield from known[what].text(rows)
        yield f"Made on {machine.line(result['made_on'], result['threads'])}"
        others = result["made_on"].get("other_programs_cpus", 0.0)
        if others > _BUSY:
            yield (
                f"Other programs took {others} CPUs meanwhile: steps on several threads, which "
                "wait for each other, look\nslower than they are. Measure again on a quiet machine."
            )
        for one in result["targets"]:
            reached = "reached" if one["reached"] else "not reached"
            numbers = f"wanted {one['wanted']:g}, measured {one['measured']:.3g}"
            yield f"{one['what']}: {numbers}, {reached}"
        for one in result["left_out"]:
            where = f" ({'; '.join(one['where'])})" if one["where"] else ""
            yield f"Left out: {one['what']}{where}: {one['why']}"
        for what, path in (("JSON", args.output), ("Chart", args.png)):
            if path is not None:
                yield f"{what}: {path}"
        yield f"Done in {result['seconds']} s."


def _write(path: Path, result: dict[str, Any]) -> None:
    """Write a result as JSON, whole or not at all."""
    with atomic_write(path) as file:
        file.write((json.dumps(result, indent=2) + "\n").encode())


def _on_gpu(args: argparse.Namespace) -> type[Roster]:
    """Return who takes part on a GPU, if all that was asked for is there."""
    if args.torch:
        raise Refused("--torch is for tensors on the CPU: leave out --cuda")
    if args.threads:
        raise Refused("--threads is for steps on the CPU: leave out --cuda")
    refuse_others(args, "with --cuda", cuda_plans.ON_GPU, Cuda.contenders)
    try:
        require_cupy()
    except RuntimeError as error:
        raise Refused(str(error)) from error
    args.what = args.what or cuda_plans.BY_DEFAULT
    args.seconds = args.seconds or cuda_plans.SECONDS
    if args.like is None:
        args.cases = args.cases or (cuda_plans.QUICK_CASES if args.quick else cuda_plans.CASES)
    return Cuda


_BENCH = Bench()
add_arguments, run = _BENCH.add_arguments, _BENCH.run


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
