"""The benchmark of a GPU, from its options to its picture."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from fastadam.bench import peers, plans
from fastadam.bench.contender import check
from fastadam.bench.settings import VARIANTS

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import campaigns
from gpu import Cuda
from targets import judge

ARGV = ["--device", "cuda", "--cases", "tiny", "--rounds", "2", "--quick"]


def test_everything(
    cupy: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(plans, "QUICK", plans.QUICK._replace(host=10))
    output, png = tmp_path / "bench.json", tmp_path / "bench.png"
    argv = [*ARGV, "--output", str(output), "--png", str(png)]
    assert campaigns.main(argv) == 0
    printed = capsys.readouterr().out
    result = json.loads(output.read_text())
    assert png.read_bytes().startswith(b"\x89PNG")
    assert result["made_on"]["gpu"] in printed
    ratios, host = result["results"]["ratios"], result["results"]["host"]
    assert [row["case"] for row in ratios + host] == ["tiny", "host-kept", "host-fresh"]
    for row in ratios + host:
        assert row["device"] == "cuda"
        assert {"floor", "fastadam", "fastadam-graph", "chainer"} <= row["times_us"].keys()
    left_out = {one["what"] for one in result["left_out"]}
    assert left_out <= {"torch-fused", "torch-foreach"}
    assert "on a GPU" in printed
    assert "microseconds of an update of 1000 parameters, gradients kept: wanted 500" in printed


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", Cuda.contenders)
def test_contenders_do_what_fastadam_does(cupy: Any, name: str, variant: str) -> None:
    kind = Cuda.contenders[name]
    try:
        kind.version()
        assert check(kind, VARIANTS[variant], "float32") < 1e-4
    except (peers.Unavailable, peers.NotComparable) as reason:
        pytest.skip(str(reason))


def test_what_is_not_there_is_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert campaigns.main(ARGV) == 1
    assert "needs CuPy" in capsys.readouterr().err


def test_what_is_not_measured_there_is_said(cupy: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert campaigns.main([*ARGV, "--what", "ratios,memory"]) == 1
    assert "there is no --what memory; there are ratios, host" in capsys.readouterr().err
    assert campaigns.main([*ARGV, "--contenders", "optax"]) == 1
    assert "there is no --contenders optax" in capsys.readouterr().err
    assert campaigns.main(["--contenders", "fastadam-graph", "--quick"]) == 1
    assert "without --torch there is no --contenders fastadam-graph" in capsys.readouterr().err


def row(case: str, ours: float, floor: float, fused: float) -> dict[str, Any]:
    return {
        **{"case": case, "variant": "adamw", "dtype": "float32", "device": "cuda", "tensors": 1000},
        "times_us": {"fastadam": {"median": ours}},
        "beside_floor": {"fastadam": {"median": ours / floor}},
        "beside_fastadam": {"torch-fused": {"median": fused / ours}},
        "gradients": "kept",
    }


def test_targets() -> None:
    rows = [row("100m", 100, 91, 99), row("16m", 100, 69, 130), row("mlp", 5, 1, 50)]
    results = {"ratios": rows, "host": [row("host-kept", 499, 1, 1)]}
    judged = {one["what"].partition(",")[0] + one["what"][-30:]: one for one in judge(results)}
    reached = [one["reached"] for one in judged.values()]
    assert reached == [True, False, False, True, True, True]
    assert [one["wanted"] for one in judged.values()] == [0.9, 1.0, 0.7, 1.0, 1.0, 500.0]
    assert judge({"ratios": [row("100m", 1, 1, 1) | {"device": "cpu"}]}) == []
