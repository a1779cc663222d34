"""The commands as processes: outputs that are closed, full or no longer read, and Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import fastadam
from fastadam.cli import program

# The same package from the same places, as `python -m fastadam` runs it.
_MODULE = "import runpy, sys; sys.path[:] = {path!r}; sys.argv = {argv!r}; {before}; "
_MODULE += "runpy.run_module('fastadam', run_name='__main__')"


def command(*argv: str, before: str = "pass", unbuffered: bool = False) -> list[str]:
    """Return how a process runs one of the commands."""
    code = _MODULE.format(path=sys.path, argv=["fastadam", *argv], before=before)
    return [sys.executable, *(["-u"] if unbuffered else []), "-c", code]


@pytest.fixture(scope="module")
def long_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file whose listing is longer than what a pipe holds."""
    path = tmp_path_factory.mktemp("long") / "run.npz"
    params = {f"w{i}": np.ones(1) for i in range(2000)}
    fastadam.save(path, fastadam.Adam().setup(params))
    return str(path)


@pytest.mark.slow
@pytest.mark.parametrize("unbuffered", [False, True])
def test_a_reader_that_has_seen_enough(long_file: str, unbuffered: bool) -> None:
    # the pipe of `--help` and `info` is closed before they write the little that they do
    slow = "import time; time.sleep(0.2)"
    for argv in (["inspect", long_file], ["info"], ["--help"], ["info", "--json"], []):
        process = subprocess.Popen(
            command(*argv, before=slow, unbuffered=unbuffered),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        with process:
            assert process.stdout is not None
            assert process.stderr is not None
            if argv[:1] == ["inspect"]:
                process.stdout.readline()
            process.stdout.close()
            assert process.stderr.read() == b"", argv
        assert process.returncode == program.BROKEN_PIPE == 128 + signal.SIGPIPE, argv


def test_both_outputs_into_one_pipe_that_is_closed(long_file: str) -> None:
    read, write = os.pipe()
    process = subprocess.Popen(command("inspect", long_file), stdout=write, stderr=write)
    os.close(write)
    os.close(read)
    assert process.wait() == program.BROKEN_PIPE


def shell(redirection: str, *argv: str) -> subprocess.CompletedProcess[str]:
    """Run a command with an output redirected."""
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {redirection}', "sh", *command(*argv)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_outputs_that_are_closed(long_file: str, tmp_path: Path) -> None:
    for argv in (["info"], ["inspect", long_file], ["--version"], ["info", "--json"]):
        done = shell(">&-", *argv)
        assert done.returncode == 1, argv
        assert done.stderr == "fastadam: standard output cannot be written: it is closed\n", argv
    # what belongs on standard error comes nowhere else
    missing = str(tmp_path / "missing.npz")
    done = shell("2>&-", "inspect", missing)
    assert (done.returncode, done.stdout) == (1, "")
    assert shell("2>&-", "info").stdout == shell("", "info").stdout != ""
    done = shell(">&- 2>&- <&-", "info")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
@pytest.mark.parametrize("unbuffered", [False, True])
def test_an_output_that_is_full(long_file: str, unbuffered: bool) -> None:
    for argv in (["info"], ["inspect", long_file], ["--help"]):
        with open("/dev/full", "w") as full:
            done = subprocess.run(
                command(*argv, unbuffered=unbuffered),
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
            )
        assert done.returncode == 1, argv
        why = "No space left on device"
        assert done.stderr == f"fastadam: standard output cannot be written: {why}\n", argv


# Where each command is when Ctrl-C comes: in the midst of what it does.
_INTERRUPTED = {
    "selftest": (["selftest"], "fastadam.cli.selftest_checks", "check_digest"),
    "selftest in processes": (["selftest", "--isa", "all"], "subprocess", "run"),
    "bench": (["bench", "--quick"], "fastadam.bench.plans", "run"),
    "demo": (["demo"], "fastadam.cli.demo_training", "train"),
    "info": (["info"], "fastadam.configuration", "_lines"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", ["selftest", "selftest in processes", "bench", "demo", "info"])
@pytest.mark.parametrize("as_json", [False, True])
def test_ctrl_c(case: str, as_json: bool, tmp_path: Path) -> None:
    argv, module, name = _INTERRUPTED[case]
    if case == "demo":
        for needed in ("sklearn", "matplotlib", "tqdm"):
            pytest.importorskip(needed, reason="needs the extra 'demo'")
    if case == "info" and as_json:
        name = "get_config"
    stop = (
        f"import os, signal, {module}; "
        f"{module}.{name} = lambda *_, **__: os.kill(os.getpid(), signal.SIGINT)"
    )
    done = subprocess.run(
        command(*argv, *(["--json"] if as_json else []), before=stop),
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == program.INTERRUPTED == 128 + signal.SIGINT, done.stderr
    assert "Traceback" not in done.stderr
    assert "KeyboardInterrupt" not in done.stderr


def test_ctrl_c_from_outside() -> None:
    process = subprocess.Popen(
        command("selftest", unbuffered=True), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert process.stderr.read() == b""
    assert process.returncode == program.INTERRUPTED


@pytest.mark.parametrize("stop", [None, 0, 2, "a message"])
def test_statuses_of_commands(stop: object, capsys: pytest.CaptureFixture[str]) -> None:
    def leave() -> int:
        raise SystemExit(stop)

    assert program.as_program(leave) == {None: 0, 0: 0, 2: 2, "a message": 1}[stop]  # type: ignore[index]
    assert program.as_program(lambda: 3) == 3


@pytest.mark.parametrize("error", [ValueError, FileNotFoundError])
def test_mistakes_of_our_own_are_not_hidden(error: Callable[..., Exception]) -> None:
    def fail() -> int:
        raise error("ours")

    with pytest.raises(error, match="ours"):  # type: ignore[call-overload]
        program.as_program(fail)
