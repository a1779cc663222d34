"""The report on a GPU: whatever a part does, the next runs, and what is known is readable."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import environment
import estimated
import estimates
import pytest
import report
import report_parts
from cuda_on_cpu import emulator
from report_parts import Part
from report_text import text

FOLDER = Path(report.__file__).parent
WAITS = "import time; print('waiting', flush=True); time.sleep(60)"


def read_nothing(_: Path, __: str) -> dict[str, Any]:
    return {}


def part(name: str, code: str, **more: Any) -> Part:
    """Return a part that runs a piece of Python."""
    command = [sys.executable, "-c", textwrap.dedent(code)]
    return Part(name, f"{name} is well", command, 0.1, read_nothing)._replace(**more)


def verdicts(made: dict[str, Any]) -> dict[str, str]:
    return {row["name"]: row["verdict"] for row in made["parts"]}


def on_disk(folder: Path) -> dict[str, Any]:
    """Read the report, which has no half-written file beside it."""
    assert not list(folder.glob("report.*.part"))
    made: dict[str, Any] = json.loads((folder / "report.json").read_text())
    assert (folder / "report.md").read_text() == text(made)
    return made


def test_every_end_of_a_part(tmp_path: Path) -> None:
    def broken(_: Path, __: str) -> dict[str, Any]:
        raise ValueError("half a file")

    parts = [
        part("first", "print('well')"),
        part("raises", "print('before'); raise SystemExit('it is wrong')"),
        part("waits", WAITS, share=0.001),
        part("killed", "import os; os.kill(os.getpid(), 9)"),
        part("absent", "", tool="no-such-tool-of-anybody"),
        part("unreadable", "pass", read=broken),
        part("differs", "pass", read=lambda *_: {"failed": ["p0", "p1"]}),
        part("differs-late", WAITS, share=0.001, read=lambda *_: {"failed": ["p2"]}),
        part("silent", "pass", read=lambda *_: {"nothing": "no summary"}),
        part("silent-late", WAITS, share=0.001, read=lambda *_: {"nothing": "no summary"}),
        part("refused", "raise SystemExit(3)", read=lambda *_: {"not_there": "no permission"}),
        part("last", "pass"),
    ]
    made = report.run(parts, 0.5, tmp_path)
    assert made == on_disk(tmp_path)
    assert made["finished"]
    assert verdicts(made) == {
        "first": "passed",
        "raises": "failed",
        "waits": "out of time",
        "killed": "failed",
        "absent": "not there",
        "unreadable": "failed",
        "differs": "failed",
        "differs-late": "failed",
        "silent": "failed",
        "silent-late": "out of time",
        "refused": "not there",
        "last": "passed",
    }
    rows = {row["name"]: row for row in made["parts"]}
    assert rows["raises"]["last_lines"] == ["before", "it is wrong"]
    assert rows["waits"]["last_lines"][0] == "waiting"
    assert rows["killed"]["exit_status"] == -9
    assert rows["unreadable"]["failed"] == ["unreadable result: ValueError: half a file"]
    written = text(made)
    assert rows["differs-late"]["exit_status"] is None
    for words in ("it is wrong", "* p1", "no permission", "no-such-tool-of-anybody is not on"):
        assert words in written
    assert "| differs-late | **failed** (and out of time) |" in written
    assert "not finished" not in written


def test_what_an_earlier_run_has_left_is_not_read(tmp_path: Path) -> None:
    names = ("environment", "bit-tests", "races", "tests", "bench")
    parts = [each for each in report_parts.all_parts() if each.name in names]
    assert len(parts) == 5
    for each in parts:
        for name in each.leaves:
            (tmp_path / name).write_text('<testcase classname="a" name="old"/>')
    # its chart is the benchmark's, and is drawn by nothing else
    leaves = {name for each in parts for name in each.leaves}
    assert {"tests.xml", "bench.json", "chart.part", "chart.png"} < leaves
    (tmp_path / "kept.txt").write_text("somebody's")
    nothing = [sys.executable, "-c", "pass"]
    made = report.run([each._replace(command=nothing) for each in parts[1:]], 1, tmp_path)
    assert set(verdicts(made).values()) == {"failed", "not there"}
    assert made["parts"][0]["failed"] == ["no test has run"]
    assert not any((tmp_path / name).exists() for name in leaves)
    assert (tmp_path / "kept.txt").exists()


def test_why_tests_were_skipped_is_told(tmp_path: Path) -> None:
    skipped = '<testcase><skipped message="needs | torch"/></testcase>'
    passed = '<testcase classname="a" name="f"/>'
    (tmp_path / "tests.xml").write_text(f"<testsuite>{skipped * 3}{passed * 2}</testsuite>")
    # written before it runs, but not named as its own
    one = part("tests", "pass", read=report_parts.of_tests("tests"))
    written = text(report.run([one], 1, tmp_path))
    assert "| tests | **passed** | 2 passed, 3 skipped |" in written
    assert "| tests | 3 | needs / torch |" in written


@pytest.mark.parametrize(
    "error", [OSError("not to be run"), subprocess.TimeoutExpired("nvidia-smi", 20)]
)
def test_a_driver_s_tool_that_does_not_answer_is_no_verdict(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    def run(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(environment.shutil, "which", lambda _: "/usr/bin/nvidia-smi")
    monkeypatch.setattr(environment.subprocess, "run", run)
    monkeypatch.setattr(environment, "describe", lambda: {"gpu": "a GPU"})
    monkeypatch.setitem(sys.modules, "cupy", types.SimpleNamespace(zeros=lambda _: None))
    assert environment.main() == 0
    assert str(error) in json.loads(capsys.readouterr().out)["nvidia_smi"]


def test_without_a_gpu_nothing_else_is_run(tmp_path: Path) -> None:
    parts = [part(name, "raise SystemExit(1)") for name in ("environment", "bits", "memcheck")]
    parts[2] = parts[2]._replace(tool=sys.executable)
    made = report.run(parts, 1, tmp_path)
    expected = {"environment": "failed", "bits": "not there", "memcheck": "not there"}
    assert verdicts(made) == expected
    assert "environment failed" in text(made)


def test_time_that_is_left_is_shared(tmp_path: Path) -> None:
    parts = [
        part("a", "pass", share=0.1),
        part("b", "pass", share=0.3),
        part("c", "pass", share=0.1),
    ]
    rows = report.run(parts, 1, tmp_path)["parts"]
    assert rows[0]["limit"] == pytest.approx(12, abs=0.2)
    # what the first has not taken is the others'
    assert rows[1]["limit"] > 40
    assert rows[2]["limit"] > 50
    assert report_parts.bench_seconds(100) == 80
    assert report_parts.bench_seconds(10_000) == 330
    assert report_parts.bench_seconds(0) == 1


SCRIPT = """
import signal, sys
# under nohup it would be ignored
signal.signal(signal.SIGHUP, signal.SIG_DFL)
sys.path.insert(0, {folder!r})
import report
from report_parts import Part
def some(name, code):
    return Part(name, name, [sys.executable, "-c", code], 0.1, lambda *_: {{}})
parts = some("first", "pass"), some("second", {second!r}), some("third", "pass")
report.all_parts = lambda stand_in: parts
sys.exit(report.main(["--output", {output!r}, "--minutes", "2"]))
"""


def started(output: Path, second: str) -> subprocess.Popen[bytes]:
    """Start the script, with a second part."""
    code = SCRIPT.format(folder=str(FOLDER), output=str(output), second=second)
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_kill_leaves_a_readable_report(tmp_path: Path, number: int) -> None:
    pid = tmp_path / "pid"
    waits = f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    process = started(tmp_path / "made", waits)
    child = None
    try:
        for _ in range(600):
            if pid.exists() and pid.read_text():
                child = int(pid.read_text())
                break
            time.sleep(0.05)
        assert child is not None
        process.send_signal(number)
        process.wait(30)
        made = on_disk(tmp_path / "made")
        assert verdicts(made) == {
            "first": "passed",
            "second": "not reached",
            "third": "not reached",
        }
        assert not made["finished"]
        assert "This report is not finished" in text(made)
        if number != signal.SIGKILL:
            assert process.returncode == 128 + number
            # the part that ran has ended, too
            with pytest.raises(ProcessLookupError):
                os.kill(child, 0)
            child = None
    finally:
        process.kill()
        process.wait()
        if child is not None:
            os.kill(child, signal.SIGKILL)


@pytest.mark.parametrize(("second", "status"), [("pass", 0), ("raise SystemExit(2)", 1)])
def test_exit_status(tmp_path: Path, second: str, status: int) -> None:
    assert started(tmp_path / "made", second).wait(60) == status
    assert on_disk(tmp_path / "made")["finished"]


@pytest.mark.parametrize(
    "argv", [[], ["--output", "x", "--minutes", "0"], ["--output", "x", "--minutes", "some"]]
)
def test_wrong_options(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        report.main(argv)
    assert stopped.value.code == 2
    assert "--output" in capsys.readouterr().err


def test_the_files_of_the_parts_are_there() -> None:
    names = [*report_parts.BITS, *report_parts.RACES]
    assert all((FOLDER / name).exists() for name in names)
    parts = {each.name: each for each in report_parts.all_parts()}
    assert next(iter(parts)) == "environment"
    assert sum(each.share for each in parts.values()) == pytest.approx(1, abs=0.05)
    for each in parts.values():
        scripts = [word for word in each.command if word.endswith(".py")]
        assert all(Path(word.removeprefix("--ignore=")).exists() for word in scripts)
    assert "on_stand_in" not in str(parts)


def test_counts(tmp_path: Path) -> None:
    junit = tmp_path / "junit.xml"
    assert report_parts.counts(junit) == {"passed": 0, "skipped": {}, "failed": []}
    bad = '<testcase classname="a" name="f"><failure/></testcase>'
    bad += '<testcase classname="a" name="e"><error/></testcase>'
    skipped = "<testcase><skipped/></testcase>"
    junit.write_text(f"<testsuites><testsuite><testcase/>{bad}{skipped}</testsuite></testsuites>")
    expected = {"passed": 1, "skipped": {"": 1}, "failed": ["a::f", "a::e"]}
    assert report_parts.counts(junit) == expected
    junit.write_text(f"<testsuites><testsuite>{skipped}</testsuite></testsuites>")
    read = report_parts.of_tests("junit")
    # tests that are all skipped have shown nothing
    assert read(tmp_path, "")["nothing"] == "no test has run"


@pytest.mark.parametrize(
    ("read", "printed", "failed"),
    [
        (report_parts.of_sanitizer, "========= ERROR SUMMARY: 0 errors", []),
        (report_parts.of_sanitizer, "RACECHECK SUMMARY: 0 hazards displayed (0 errors)", []),
        (report_parts.of_sanitizer, "ERROR SUMMARY: 10 errors", ["ERROR SUMMARY: 10 errors"]),
        (report_parts.of_sanitizer, "Invalid __global__ read", ["Invalid __global__ read"]),
        (report_parts.printed_json, 'a warning\n{"error": "no GPU"}', ["no GPU"]),
        (report_parts.printed_json, '{"checked": 2, "differ": ["p"]}', ["p"]),
    ],
)
def test_what_is_read_of_tools(
    tmp_path: Path, read: Callable[[Path, str], Any], printed: str, failed: list[str]
) -> None:
    assert read(tmp_path, printed)["failed"] == failed


@pytest.mark.parametrize(
    ("read", "printed", "nothing"),
    [
        (report_parts.of_sanitizer, "Segmentation fault", "no summary"),
        (report_parts.of_profiler, "==ERROR== no kernels", "no kernel was seen"),
        (report_parts.printed_json, "Killed", "no result"),
        (report_parts.of_bench, "Killed", "no result"),
    ],
)
def test_what_tools_leave_that_were_ended(
    tmp_path: Path, read: Callable[[Path, str], Any], printed: str, nothing: str
) -> None:
    found = read(tmp_path, printed)
    assert found["nothing"] == nothing
    assert not found.get("failed")


def test_counters_are_read(tmp_path: Path) -> None:
    printed = '==PROF== Connected\n"ID","Kernel Name","Metric Name","Metric Unit","Metric Value"\n'
    printed += '"0","adam","gpu__time_duration.sum","usecond","12.5"\n'
    found = report_parts.of_profiler(tmp_path, printed)
    assert found["rows"] == [["0", "adam", "gpu__time_duration.sum", "usecond", "12.5"]]
    assert found["ran"] == "1 counters of 1 launches"
    denied = report_parts.of_profiler(tmp_path, "==ERROR== ERR_NVGPUCTRPERM - no permission")
    assert "administrators" in denied["not_there"]


def measured(case: str, dtype: str, **tb_per_s: float) -> dict[str, Any]:
    rates = {name.replace("_", "-"): {"median": rate} for name, rate in tb_per_s.items()}
    row = {"case": case, "dtype": dtype, "variant": "adamw", "elements": 256_000_000}
    return row | {"tb_per_s": rates}


def test_what_is_measured_stands_beside_the_estimates() -> None:
    steps = [
        measured("256m", "float32", fastadam=4.0),
        measured("256m-bfloat16-gradients", "float32, bfloat16 gradients", fastadam=4.4),
        # of which nothing is estimated
        measured("model", "float16 float32", fastadam=4.0),
        measured("16m", "float32", fastadam=2.0) | {"elements": 16_000_000},
    ]
    amsgrad = measured("256m", "float32", fastadam=4.2) | {"variant": "amsgrad"}
    norm = measured("256m", "bfloat16", norm=3.0, scaled_norm=2.0)
    results = {"ratios": steps, "amsgrad": [amsgrad], "norm": [norm]}
    assert estimated.beside_estimates("NVIDIA H200", results) == [
        ["256m", "step, float32", "4.42", "4.00", "91 %"],
        [
            *("256m-bfloat16-gradients", "step, float32, bfloat16 gradients", "4.42"),
            "4.40",
            "100 %",
        ],
        ["256m", "step, float32, AMSGrad", "4.42", "4.20", "95 %"],
        ["256m", "norm, bfloat16", "4.42", "3.00", "68 %"],
    ]
    assert estimated.beside_estimates("NVIDIA GeForce RTX 4090", results) == []
    assert len({gpu.reported for gpu in estimates.GPUS}) == len(estimates.GPUS)


@pytest.mark.skipif(emulator.compiler() is None, reason="CUDA on a CPU needs a C++ compiler")
@pytest.mark.usefixtures("_kernels")
def test_a_dry_run(tmp_path: Path) -> None:
    """On the stand-in, without the tests, which run here anyway."""
    pytest.importorskip("ml_dtypes")
    names = ("environment", "bits", "bench")
    parts = [each for each in report_parts.all_parts(stand_in=True) if each.name in names]
    made = report.run(parts, 3, tmp_path)
    assert verdicts(made) == dict.fromkeys(names, "passed"), text(made)
    written = (tmp_path / "report.md").read_text()
    for words in (
        "fastadam on CUDA on a CPU",
        "What the memory gives",
        "| tiny, amsgrad float32 |",
    ):
        assert words in written
    compared = made["results"]["bits"]
    assert compared["complete"]
    assert compared["differ"] == compared["failed"] == []
    assert f"| {compared['checked']} arrays compared |" in written
    chart = tmp_path / "chart.png"
    assert not chart.exists() or chart.read_bytes().startswith(b"\x89PNG")
