"""The command line: its commands, what they print and what they return."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastadam
from fastadam.__main__ import main
from fastadam.cli import extras, output

COMMANDS = ("bench", "demo", "info", "inspect", "selftest")


def test_without_a_command_it_introduces_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"fastadam {fastadam.__version__}")
    assert "instruction set" in out
    for command in COMMANDS:
        assert f"python -m fastadam {command} " in out
    assert err == ""


def test_without_a_command_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["fastadam"] == fastadam.__version__
    assert result["config"] == fastadam.get_config()
    assert tuple(result["commands"]) == COMMANDS


def test_info_is_show_config(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    ours = capsys.readouterr().out
    fastadam.show_config()
    assert ours == capsys.readouterr().out != ""


@pytest.mark.parametrize("argv", [["info", "--json"], ["--json", "info"]])
def test_json_before_and_after_the_command(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == fastadam.get_config()
    assert err == ""


@pytest.mark.parametrize(
    "argv",
    [
        ["bake"],
        ["info", "--loud"],
        ["selftest", "--isa", "mmx"],
        ["demo", "--epochs", "0"],
        ["demo", "--epochs", "many"],
        ["demo", "--threads", "-1"],
        ["demo", "--seed", "-1"],
        ["demo", "--gradients", "guess"],
        ["demo", "--out", str(Path("no", "such", "folder", "a.png"))],
        ["demo", "--out", "."],
    ],
)
def test_wrong_usage_is_status_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(argv)
    assert stopped.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert argv[-1] in err


@pytest.mark.parametrize("argv", [["--help"], *([command, "--help"] for command in COMMANDS)])
def test_help(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(argv)
    assert stopped.value.code == 0
    assert "--json" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"fastadam {fastadam.__version__}\n"


def test_status_and_output_of_the_process() -> None:
    child = "import sys; sys.path[:] = {}; import runpy; sys.argv = ['fastadam', {!r}, '--json']; "
    child += "runpy.run_module('fastadam', run_name='__main__')"
    for command, status in (("info", 0), ("bake", 2)):
        done = subprocess.run(
            [sys.executable, "-c", child.format(sys.path, command)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == status, done.stderr
        assert bool(done.stdout) == (status == 0)


@pytest.mark.parametrize(
    "missing", ["tqdm", "matplotlib", "sklearn"], ids=lambda name: f"without {name}"
)
def test_missing_extra_is_one_line(
    missing: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    block(missing, monkeypatch)
    assert main(["demo"]) == 1
    assert capsys.readouterr() == ("", 'pip install "fastadam[demo]"\n')
    assert main(["demo", "--json"]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["install"] == 'pip install "fastadam[demo]"'
    assert err == ""


def test_autograd_is_needed_for_its_option_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in ("sklearn", "matplotlib", "tqdm"):
        pytest.importorskip(module, reason="needs the extra 'demo'")
    block("autograd", monkeypatch)
    assert main(["demo", "--gradients", "autograd"]) == 1
    assert capsys.readouterr() == ("", 'pip install "fastadam[demo]"\n')


def test_a_broken_module_is_not_taken_for_a_missing_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_extra.py").write_text("raise ImportError('wrong ABI')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match="wrong ABI"):
        extras.load("demo", "broken_extra")
    with pytest.raises(extras.MissingExtra, match=r'^pip install "fastadam\[cuda12\]"$'):
        extras.load("cuda12", "broken_extra_that_is_not_there")
    assert extras.load("demo", "json") is importlib.import_module("json")


def test_table_aligns_columns() -> None:
    rows = [("name", "loss"), ("Adam", "0.5"), ("AdaBound", "12.25")]
    assert output.table(rows, "lr") == [
        "name       loss",
        "Adam        0.5",
        "AdaBound  12.25",
    ]


def block(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let imports of a package fail as if it were not installed."""
    for name in list(sys.modules):
        if name.startswith(f"{package}."):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)


def test_a_reader_that_has_seen_enough(tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    # more than a pipe holds
    params = {f"w{i}": np.ones(1) for i in range(2000)}
    fastadam.save(path, fastadam.Adam().setup(params))
    argv = [sys.executable, "-m", "fastadam", "inspect", str(path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
