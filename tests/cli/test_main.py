"""The command line: its commands, what they print and what they return."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import fastadam
from fastadam.__main__ import main
from fastadam.cli import extras, output

COMMANDS = ("bench", "demo", "info", "inspect", "selftest")
INSTALL_DEMO = "pip install scikit-learn matplotlib tqdm autograd"


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
    for module in ("tqdm", "matplotlib", "sklearn"):
        # where the extra is not installed at all, the first of them is named
        if module != missing and importlib.util.find_spec(module) is None:
            pytest.skip("needs the rest of the extra 'demo'")
    assert main(["demo"]) == 1
    line = f"{missing} is not installed: {INSTALL_DEMO}"
    assert capsys.readouterr() == ("", f"{line}\n")
    assert main(["demo", "--json"]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out) == {"error": line, "install": INSTALL_DEMO}
    assert err == ""


def test_autograd_is_needed_for_its_option_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in ("sklearn", "matplotlib", "tqdm"):
        pytest.importorskip(module, reason="needs the extra 'demo'")
    block("autograd", monkeypatch)
    assert main(["demo", "--gradients", "autograd"]) == 1
    assert capsys.readouterr() == ("", f"autograd is not installed: {INSTALL_DEMO}\n")


def test_a_broken_module_is_not_taken_for_a_missing_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_extra.py").write_text("raise ImportError('wrong ABI')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match="wrong ABI"):
        extras.load("demo", "broken_extra")
    missing = "^broken_extra_that_is_not_there is not installed: pip install ml_dtypes$"
    with pytest.raises(extras.MissingExtra, match=missing):
        extras.load("bfloat16", "broken_extra_that_is_not_there.part")
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


def test_packages_of_the_extras_are_those_of_the_project() -> None:
    path = Path(__file__).parents[2] / "pyproject.toml"
    wanted = tomllib.loads(path.read_text())["project"]["optional-dependencies"]
    for extra, packages in extras._PACKAGES.items():
        assert list(packages) == wanted[extra]


def test_no_message_names_an_extra_of_a_package_that_is_on_no_index() -> None:
    root = Path(fastadam.__file__).parent
    for path in root.rglob("*.py"):
        assert "fastadam[" not in path.read_text(encoding="utf-8"), path


def test_the_reference_has_every_command() -> None:
    page = Path(__file__).parents[2] / "docs" / "reference.rst"
    section = page.read_text(encoding="utf-8").partition("\nCommand line\n")[2]
    for command in COMMANDS:
        assert f"\n``{command}``\n" in section, command
