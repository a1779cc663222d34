"""Tries the mutants: breaks the library in one place at a time and runs the tests, which must fail.

    python tests/run_mutants.py [--workers N] [--record] [NAME ...]

It works in copies of the checkout, one for each CPU; ``tox -e mutants`` runs it in an environment
of its own. A mutant is tried with the test that killed it last time, which the file
``mutants_killed_by.txt`` names, and if that passes or none is known, with all tests, the likeliest
first. ``--record`` writes down who has killed whom. At last the tests that have killed run without
any mutant, and must pass; before the first, one of them. A mutant that survives, or cannot be
tried, makes the exit status 1. The mutants of fastadam.torch, and no others, are tried with the
tests beside PyTorch, which must be installed for them.
"""

from __future__ import annotations

import argparse
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue

sys.path.insert(0, str(Path(__file__).parent))
from mutants import MUTANTS, Mutant

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
KILLED_BY = TESTS / "mutants_killed_by.txt"

# Those of docs compare texts, not what they lead to. The GPU's engine has no mutants here, and the
# build is not rebuilt for each.
MARKERS = "not slow and not huge and not docs"
# They must not be disturbed by what runs beside them: run only if they are known to kill.
SERIAL = " and not serial"
ELSEWHERE = ("gpu/", "against_chainer/", "peers/", "trainers/", "test_build.py", "test_frozen.py")
OPTIONS = ["-v", "-p", "no:cacheprovider", "--hypothesis-profile=ci", "-W", "error"]

PASSED, NO_TESTS = 0, 5

# Tried before any mutant, to see that tests run at all.
FIRST = "tests/kernels/test_dtypes.py"

# Seconds. No test takes a third as long on two cores: what says nothing for longer is endless.
SILENCE = 180


class NotTriedError(Exception):
    """A mutant is not there, does not compile, or lets no test begin."""


def is_compiled(file: str) -> bool:
    """Tell whether a change of a file takes effect in what is built of it."""
    return file.endswith((".pyx", ".pxi", ".pxd")) or file == "setup.py"


def read_killers() -> dict[str, str]:
    """Return the test that killed each mutant last time, by the names of mutants."""
    lines = KILLED_BY.read_text(encoding="utf-8").splitlines() if KILLED_BY.is_file() else []
    return dict(line.split("\t") for line in lines)


def write_killers(killers: dict[str, str]) -> None:
    """Write down the test that killed each mutant, for those that there are."""
    names = sorted({mutant.name for mutant in MUTANTS} & killers.keys())
    text = "".join(f"{name}\t{killers[name]}\n" for name in names)
    KILLED_BY.write_text(text, encoding="utf-8")


def is_test(killer: str) -> bool:
    """Tell whether there is such a test."""
    file, _, name = killer.partition("::")
    path = ROOT / file
    function = rf"^\s*def {name.rpartition('::')[2]}\("
    return path.is_file() and re.search(function, path.read_text("utf-8"), re.M) is not None


def stages(mutated: str) -> list[list[str]]:
    """Return the files of tests in the order to try them, for three calls of pytest.

    First come those that are named after the mutated module, and the folder that mirrors its
    folder; then those that mention it; then all others, those in folders last.
    """
    stem, folder = Path(mutated).stem.strip("_"), Path(mutated).parent.name
    # PyTorch's tensors are stepped in these tests alone, and nothing else is
    of_torch = mutated.startswith("fastadam/torch/")

    def unlikely(test: Path) -> tuple[bool, bool, int, Path]:
        return stem not in test.stem, test.parent.name != folder, len(test.parts), test

    likely, mentioning, others = [], [], []
    for test in sorted(TESTS.rglob("test_*.py"), key=unlikely):
        name = test.relative_to(TESTS).as_posix()
        if name.startswith(ELSEWHERE) or name.startswith("against_torch/") != of_torch:
            continue
        if stem in test.stem or test.parent.name == folder:
            found = likely
        elif re.search(rf"\b_?{stem}\b", test.read_text(encoding="utf-8")):
            found = mentioning
        else:
            found = others
        found.append(test.relative_to(ROOT).as_posix())
    return [group for group in (likely, mentioning, others) if group]


def failed(output: str) -> str:
    """Return the test that failed, or else the one that was running at the end of pytest's output.

    The parameters are left out: what they are called may depend on versions.
    """
    found = re.search(r"^(?:FAILED|ERROR) (tests/[^\s\[]+)", output, re.M)
    if found is not None:
        return found[1]
    begun = re.findall(r"^(tests/[^\s\[]+::[^\s\[]+)", output, re.M)
    return begun[-1] if begun else ""


class Copy:
    """A copy of the checkout, or of another copy, in which one mutant after the other is tried."""

    def __init__(self, folder: Path, of: Path) -> None:
        ignored = shutil.ignore_patterns(".*", "__pycache__")
        if of == ROOT:
            ignored = shutil.ignore_patterns(".*", "__pycache__", "build", "dist", "*.so")
        shutil.copytree(of, folder, ignore=ignored)
        self.folder = folder
        self._stale = of == ROOT
        self.build()
        # checked by contents: a mutant may have the size and the second of what it replaces
        compileall = ["compileall", "-q", "--invalidation-mode", "checked-hash", "fastadam"]
        subprocess.run([sys.executable, "-m", *compileall], cwd=folder, check=True)

    def build(self) -> None:
        """Compile what has changed since the last time."""
        if self._stale:
            command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
            done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True)
            if done.returncode:
                raise NotTriedError(done.stdout[-1000:] + done.stderr[-2000:])
            self._stale = False

    @contextmanager
    def broken(self, mutant: Mutant) -> Iterator[None]:
        """Put a mutant into the sources, and take it out again."""
        path = self.folder / mutant.file
        original = path.read_text(encoding="utf-8")
        if mutant.text not in original:
            raise NotTriedError(f"{mutant.text!r} is not in {mutant.file} any more")
        path.write_text(original.replace(mutant.text, mutant.replacement, 1), encoding="utf-8")
        self._stale |= is_compiled(mutant.file)
        try:
            yield
        finally:
            path.write_text(original, encoding="utf-8")
            self._stale |= is_compiled(mutant.file)

    def run(self, *arguments: str, markers: str = MARKERS) -> tuple[int, str]:
        """Run pytest; return its exit status and output, also if it had to be ended."""
        # tox says that an installed fastadam is to be tested: here it is the copy
        outside = {k: v for k, v in os.environ.items() if k != "FASTADAM_TEST_INSTALLED"}
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest", *OPTIONS, "-m", markers, *arguments],
            cwd=self.folder,
            env={**outside, "PYTHONPATH": str(self.folder), "OMP_WAIT_POLICY": "passive"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert process.stdout is not None
        output = b""
        with process:
            while select.select([process.stdout], [], [], SILENCE)[0]:
                piece = os.read(process.stdout.fileno(), 1 << 16)
                output += piece
                if not piece:
                    break
            else:
                os.killpg(process.pid, signal.SIGKILL)
        return process.returncode, output.decode(errors="replace")


def killer_of(mutant: Mutant, copy: Copy, last: str | None) -> str:
    """Return the test that kills a mutant, or "", first trying the one that did so last time."""
    with copy.broken(mutant):
        copy.build()
        for tests in [*([[last]] if last else []), *stages(mutant.file)]:
            markers = MARKERS if tests == [last] else MARKERS + SERIAL
            status, output = copy.run("-x", *tests, markers=markers)
            if status not in (PASSED, NO_TESTS):
                killer = failed(output)
                if not killer:
                    raise NotTriedError(output[-1000:])
                return killer
    return ""


def attempts(mutants: list[Mutant], copies: list[Copy]) -> Iterator[tuple[Mutant, str]]:
    """Try mutants in all copies at once; give each with what has killed it, if anything has."""
    known = {name: killer for name, killer in read_killers().items() if is_test(killer)}
    free: SimpleQueue[Copy] = SimpleQueue()
    for copy in copies:
        free.put(copy)

    def attempt(mutant: Mutant) -> str:
        copy = free.get()
        try:
            return killer_of(mutant, copy, known.get(mutant.name))
        except NotTriedError as error:
            print(f"{mutant.name}: {error}")
            return ""
        finally:
            free.put(copy)

    # what is compiled first, since it takes longest, and one source after the other, since what was
    # restored is compiled together with the next mutant
    ordered = sorted(mutants, key=lambda mutant: (not is_compiled(mutant.file), mutant.file))
    with ThreadPoolExecutor(len(copies)) as threads:
        yield from zip(ordered, threads.map(attempt, ordered), strict=True)


def main() -> int:
    """Try the named mutants, or all; print who was killed by which test."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--record", action="store_true")
    parser.add_argument("names", nargs="*", metavar="NAME")
    options = parser.parse_args()
    unknown = set(options.names) - {mutant.name for mutant in MUTANTS}
    if unknown:
        parser.error(f"there is no mutant {', '.join(map(repr, sorted(unknown)))}")
    mutants = [mutant for mutant in MUTANTS if not options.names or mutant.name in options.names]
    survivors = []
    killers: dict[str, str] = {}
    status = PASSED
    with tempfile.TemporaryDirectory() as temporary:
        first = Copy(Path(temporary, "1"), ROOT)
        number = min(options.workers, len(mutants))
        status, output = first.run(FIRST)
        if status != PASSED:
            print(f"{output[-3000:]}\nno test begins, or {FIRST} fails without any mutant")
            return 1
        others = [Copy(Path(temporary, str(i)), first.folder) for i in range(2, number + 1)]
        for mutant, killer in attempts(mutants, [first, *others]):
            print(f"{'killed' if killer else 'SURVIVED':9}{mutant.name:40}{killer}", flush=True)
            if not killer:
                survivors.append(mutant.name)
            else:
                killers[mutant.name] = killer
                if options.record:
                    write_killers(read_killers() | killers)
        if killers:
            first.build()
            status, output = first.run(*sorted(set(killers.values())))
    print(f"{len(mutants) - len(survivors)} of {len(mutants)} mutants killed")
    if status != PASSED:
        print(f"{output[-3000:]}\nthese tests fail without any mutant")
    return 1 if survivors or status != PASSED else 0


if __name__ == "__main__":
    sys.exit(main())
