"""``python -m fastadam bench``: what it prints, writes and returns."""

from __future__ import annotations

import argparse
import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastadam
from fastadam.__main__ import main
from fastadam.bench import command, machine, plans, tensor_plans
from fastadam.bench.cases import CASES
from fastadam.bench.picture import save_picture
from fastadam.kernels.cpu.threads import set_by_hand

OURS = ["--contenders", "fastadam,fastadam-link,numpy", "--rounds", "2", "--quick"]
TINY = ["bench", *OURS, "--cases", "tiny"]


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure on next to nothing."""
    plan = plans.QUICK.plan._replace(block_s=0.0, settle_s=0.0)
    monkeypatch.setattr(plans, "QUICK", plans.QUICK._replace(plan=plan, host=20))


def result_of(capsys: pytest.CaptureFixture[str], *argv: str) -> dict[str, Any]:
    """Run a command with --json; return what it prints on standard output."""
    assert main([*argv, "--json"]) == 0
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


def test_it_prints_tables_and_on_what_they_were_made(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TINY, "--threads", "1"]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    heading = "tiny, adamw, float32, 1 thread(s), 2 tensors, gradients kept, 1,230 elements"
    first = lines.index(heading)
    assert [line.split()[0] for line in lines[first + 2 : first + 6]] == [
        "floor",
        "fastadam",
        "fastadam-link",
        "numpy",
    ]
    (made_on,) = (line for line in lines if line.startswith("Made on "))
    for part in (machine.cpu_model(), "threads: 1", f"numpy {np.__version__}", "instruction set"):
        assert part in made_on
    assert "ratios: tiny" in err


def test_the_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = tmp_path / "bench.json"
    argv = [*TINY, "--what", "ratios,host", "--threads", "1,2", "--output", str(written)]
    result = result_of(capsys, *argv)
    assert json.loads(written.read_text()) == result
    expected = {"made_on", "threads", "rounds", "results", "targets", "failed", "left_out"}
    assert result.keys() == {*expected, "seconds", "finished"}
    assert result["threads"] == [1, 2]
    assert result["rounds"] == 2
    assert result["left_out"] == []
    assert result["made_on"]["config"]["fastadam"] == fastadam.__version__
    assert {"cpu", "cpus", "caches", "date", "versions", "load_average"} <= result["made_on"].keys()
    ratios, host = result["results"]["ratios"], result["results"]["host"]
    assert (len(ratios), len(host)) == (2, 4)
    for row in ratios:
        times = row["times_us"]
        for name in ("fastadam-link", "numpy"):
            expected = times[name]["median"] / times["fastadam"]["median"]
            assert row["beside_fastadam"][name]["median"] == pytest.approx(expected)
        assert row["beside_floor"].keys() == times.keys() - {"floor"}
        assert row["difference"]["numpy"] < 1e-4
    for row in host:
        assert row["tensors"] == row["elements"] == 20
        ours = row["times_us"]["fastadam"]["median"] / 20
        assert row["us_per_parameter"]["fastadam"] == pytest.approx(ours)


def test_what_is_known_is_kept_when_a_run_ends_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = plans.run

    def ended(*arguments: Any) -> Iterator[tuple[str, dict[str, Any]]]:
        yield next(run(*arguments))
        raise KeyboardInterrupt

    monkeypatch.setattr(plans, "run", ended)
    written = tmp_path / "bench.json"
    argv = [*TINY, "--what", "ratios,host", "--output", str(written)]
    with pytest.raises(KeyboardInterrupt):
        command.run(parsed(argv))
    result = json.loads(written.read_text())
    assert not result["finished"]
    assert [len(rows) for rows in result["results"].values()] == [1, 0]
    assert list(tmp_path.iterdir()) == [written]


def parsed(argv: list[str]) -> argparse.Namespace:
    """Read the options of the command, without its name."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", action="store_true")
    command.add_arguments(parser)
    return parser.parse_args(argv[1:])


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["amsgrad", "amsbound"])
def test_variants_and_dtypes(variant: str, capsys: pytest.CaptureFixture[str]) -> None:
    argv = [*TINY, "--variants", f"adam,{variant}", "--dtypes", "float64,float16"]
    rows = result_of(capsys, *argv)["results"]["ratios"]
    assert [(row["variant"], row["dtype"]) for row in rows] == [
        ("adam", "float64"),
        ("adam", "float16"),
        (variant, "float64"),
        (variant, "float16"),
    ]
    # of every element: bytes of p and m and v, and of vhat
    assert [row["bytes_moved"] // 1230 for row in rows] == [56, 22, 72, 30]


def test_the_shapes_of_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "model.npz"
    np.savez(path, W=np.ones((30, 20), np.float32), b=np.ones(30), n=np.arange(3))
    argv = ["bench", *OURS, "--like", str(path)]
    result = result_of(capsys, *argv)
    (row,) = result["results"]["ratios"]
    assert row["case"] == "model.npz"
    assert row["dtype"] == "float32 float64"
    assert (row["tensors"], row["elements"]) == (2, 630)
    assert row["bytes_moved"] == 600 * 28 + 30 * 56
    (left_out,) = result["left_out"]
    assert left_out["what"] == str(path)
    assert left_out["why"].endswith("n (int64)")
    # in another dtype, and beside a case
    rows = result_of(capsys, *argv, "--dtypes", "float64", "--cases", "tiny")["results"]["ratios"]
    assert [(row["case"], row["dtype"]) for row in rows] == [
        ("model.npz", "float64"),
        ("tiny", "float64"),
    ]


def test_a_safetensors_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("safetensors", reason="needs safetensors, of the extra 'bench'")
    header = json.dumps({"w": {"dtype": "F16", "shape": [5], "data_offsets": [0, 10]}}).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(10))
    (row,) = result_of(capsys, "bench", *OURS, "--like", str(path))["results"]["ratios"]
    assert (row["dtype"], row["elements"]) == ("float16", 5)


def test_a_file_without_shapes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "model.npz"
    path.write_bytes(b"nothing")
    assert main(["bench", *OURS, "--like", str(path)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"{path}: not an .npz file")
    assert main(["bench", *OURS, "--like", str(path), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["error"].startswith(f"{path}: not an .npz file")


@pytest.mark.parametrize("module", ["matplotlib", "safetensors", "ml_dtypes"])
def test_what_an_extra_brings_is_asked_for_at_once(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in list(sys.modules):
        if name.startswith(f"{module}."):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr(plans, "run", lambda *_: pytest.fail("it has measured"))
    (tmp_path / "a.safetensors").write_bytes(b"")
    bench = "pip install matplotlib ml_dtypes safetensors threadpoolctl"
    install, option = {
        "matplotlib": (bench, ["--png", str(tmp_path / "a.png")]),
        "safetensors": (bench, ["--like", str(tmp_path / "a.safetensors")]),
        "ml_dtypes": ("pip install ml_dtypes", ["--dtypes", "bfloat16"]),
    }[module]
    assert main([*TINY, *option]) == 1
    line = f"{module} is not installed: {install}"
    assert capsys.readouterr() == ("", f"{line}\n")
    assert main([*TINY, *option, "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == {"error": line, "install": install}


def test_who_is_not_installed_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert main([*TINY, "--contenders", "torch-fused"]) == 0
    assert (
        "Left out: torch-fused: not installed: pip install torch==2.13.0" in capsys.readouterr().out
    )


def test_tensors_need_pytorch(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(plans, "run", lambda *_: pytest.fail("it has measured"))
    install = "pip install torch==2.13.0"
    line = f"--torch needs PyTorch, which is not installed: {install}"
    assert main(["bench", "--torch"]) == 1
    assert capsys.readouterr() == ("", f"{line}\n")
    assert main(["bench", "--torch", "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == {"error": line, "install": install}


def test_what_is_measured_on_tensors_alone_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for what in tensor_plans.ONLY_HERE:
        assert main([*TINY, "--what", what]) == 1
        expected = f"without --torch and --cuda there is no --what {what}; there are ratios, host\n"
        assert capsys.readouterr() == ("", expected)


def test_the_chart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason="needs matplotlib, of the extra 'bench'")
    path = tmp_path / "chart.png"
    assert main([*TINY, "--what", "ratios,host", "--png", str(path)]) == 0
    assert f"Chart: {path}" in capsys.readouterr().out
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG\r\n")
    assert len(content) > 10_000
    # width and height as the head of the file has them
    assert struct.unpack(">II", content[16:24])[0] > 1000
    # nothing to draw is no error
    made_on = {"cpu": "a CPU", "cpus": 1, "date": "today"}
    save_picture(path, {"results": {}, "made_on": made_on})


@pytest.mark.parametrize(
    "argv",
    [
        ["--what", "everything"],
        ["--cases", "mlp,,tiny"],
        ["--cases", "bert"],
        ["--variants", "sgd"],
        ["--dtypes", "int8"],
        ["--contenders", "keras"],
        ["--threads", "0"],
        ["--threads", "1,some"],
        ["--rounds", "0"],
        ["--output", "."],
        ["--png", str(Path("no", "such", "folder", "a.png"))],
    ],
)
def test_wrong_options_are_status_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["bench", *argv])
    assert stopped.value.code == 2
    assert argv[0] in capsys.readouterr().err


def test_options_are_read() -> None:
    assert command._threads("1,all,1") == list(dict.fromkeys([1, machine.cpus()]))
    assert command._names(("a", "b"))("b,a,b") == ("b", "a")
    assert set(plans.THOROUGH.cases) < set(CASES)
    assert set(plans.QUICK.cases) < set(CASES)
    assert set(tensor_plans.QUICK_CASES) < set(tensor_plans.CASES) < set(CASES)


def test_the_threads_are_put_back(capsys: pytest.CaptureFixture[str]) -> None:
    assert set_by_hand() is None
    assert main([*TINY, "--threads", "3"]) == 0
    assert set_by_hand() is None


def test_a_busy_machine_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = iter([10.0, 10_000.0])
    monkeypatch.setattr(machine, "others_seconds", lambda: next(taken))
    assert main(TINY) == 0
    assert "Measure again on a quiet machine" in capsys.readouterr().out
    monkeypatch.setattr(machine, "others_seconds", lambda: None)
    assert main(TINY) == 0
    assert "quiet machine" not in capsys.readouterr().out


def test_what_libraries_print_is_not_in_the_json() -> None:
    noisy = (
        "import ctypes, os, sys; sys.path[:] = {!r}\n"
        "from fastadam.__main__ import main\n"
        "from fastadam.bench import plans\n"
        "run = plans.run\n"
        "def loud(*arguments):\n"
        "    print('from Python'); ctypes.CDLL(None).puts(b'from C'); os.write(1, b'raw')\n"
        "    return run(*arguments)\n"
        "plans.run = loud\n"
        "sys.exit(main({!r}))"
    )
    argv = [*TINY, "--json"]
    # with it, C would not keep back what it writes
    environ = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    command = [sys.executable, "-c", noisy.format(sys.path, argv)]
    done = subprocess.run(command, capture_output=True, text=True, env=environ)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rounds"] == 2
    for text in ("from Python", "from C", "raw"):
        assert text in done.stderr


def test_importing_the_command_imports_no_other_library() -> None:
    script = f"import sys; sys.path[:] = {sys.path!r}\nimport fastadam.bench.command"
    script += "\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    foreign = {"torch", "jax", "optax", "deepspeed", "chainer", "matplotlib", "safetensors"}
    assert foreign.isdisjoint(done.stdout.split())
