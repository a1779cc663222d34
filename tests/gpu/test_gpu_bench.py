"""``python -m fastadam bench --cuda``, from its options to its picture."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fastadam.__main__ import main
from fastadam.bench import arrays, cases, cuda_ceilings, cuda_host, cuda_plans, peers, plans
from fastadam.bench.contender import check
from fastadam.bench.cuda import Cuda
from fastadam.bench.cuda_steps import ChainerKernels, FastadamGraph
from fastadam.bench.settings import VARIANTS
from fastadam.bench.timing import Plan

ARGV = ["bench", "--cuda", "--cases", "tiny", "--rounds", "2", "--quick"]
SHORT = Plan(rounds=2, block_s=0.0, settle_s=0.0)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure on next to nothing."""
    monkeypatch.setattr(plans, "QUICK", plans.QUICK._replace(plan=SHORT))
    monkeypatch.setattr(cuda_plans, "QUICK", cuda_plans.Size(4096, (1, 3)))


def test_everything(cupy: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    output, png = tmp_path / "bench.json", tmp_path / "bench.png"
    assert main([*ARGV, "--output", str(output), "--png", str(png)]) == 0
    printed = capsys.readouterr().out
    result = json.loads(output.read_text())
    assert png.read_bytes().startswith(b"\x89PNG")
    assert result["made_on"]["gpu"] in printed
    results = result["results"]
    assert list(results) == ["ceilings", "host", "ratios", "norm", "amsgrad"]
    assert all(row["device"] == "cuda" for rows in results.values() for row in rows)
    left_out = {one["what"] for one in result["left_out"]}
    # Chainer's of AMSGrad alone
    assert left_out <= {"fastadam-torch", "torch-fused", "torch-foreach", "apex", "chainer"}
    # ours may be missing with PyTorch alone: what is wrong has failed
    assert result["failed"] == []
    absent = [one["why"] for one in result["left_out"] if one["what"] == "fastadam-torch"]
    assert all("not installed" in why or "finds no GPU" in why for why in absent)

    (ceilings,) = results["ceilings"]
    assert ceilings["bytes"] == {"copy": 32768, "4-reads-3-writes": 114688, "read": 16384}
    for name, moved in ceilings["bytes"].items():
        expected = moved / ceilings["times_us"][name]["median"] / 1e6
        assert ceilings["tb_per_s"][name]["median"] == pytest.approx(expected)
    assert [row["tensors"] for row in results["host"]] == [1, 3]
    assert all(row["times_us"].keys() >= cuda_host.CASES.keys() for row in results["host"])
    (steps,), (norm,) = results["ratios"], results["norm"]
    assert {"floor", "fastadam", "fastadam-graph", "chainer", "graph-alone"} <= set(
        steps["times_us"]
    )
    expected = 1230 * 28 / steps["times_us"]["chainer"]["median"] / 1e6
    assert steps["tb_per_s"]["chainer"]["median"] == pytest.approx(expected)
    assert norm["times_us"].keys() == {"read", "norm", "scaled-norm", "step", "clip-and-step"}
    (amsgrad,) = results["amsgrad"]
    assert (amsgrad["variant"], amsgrad["bytes_moved"]) == ("amsgrad", 1230 * 36)
    assert norm["bytes_read"] == 1230 * 4
    for line in ("what memory gives", "time of the host", "on a GPU", "the norm of all gradients"):
        assert line in printed


def test_dtypes_and_variants_of_what_is_measured_once(
    cupy: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ml_dtypes")
    argv = [*ARGV, "--variants", "adam,amsgrad", "--dtypes", "float32,bfloat16"]
    argv += ["--contenders", "fastadam", "--what", "ceilings,host,norm", "--json"]
    assert main(argv) == 0
    results = json.loads(capsys.readouterr().out)["results"]
    assert {what: len(rows) for what, rows in results.items()} == {
        "ceilings": 1,
        "host": 4,
        "norm": 4,
    }
    assert [row["bytes_read"] for row in results["norm"]] == [4920, 2460, 4920, 2460]


def test_fresh_gradients_and_many_tensors(cupy: Any, capsys: pytest.CaptureFixture[str]) -> None:
    argv = [*ARGV[:2], "--cases", "many-fresh", "--rounds", "1", "--quick", "--json"]
    argv += ["--contenders", "fastadam", "--what", "ratios,norm"]
    assert main(argv) == 0
    results = json.loads(capsys.readouterr().out)["results"]
    assert results["ratios"][0]["gradients"] == "fresh"
    assert "graph-alone" not in results["ratios"][0]["times_us"]
    assert results["norm"] == []


def test_the_shapes_of_a_model(
    cupy: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.npz"
    np.savez(path, W=np.ones((30, 20), np.float32), b=np.ones(30, np.float16))
    argv = ["bench", "--cuda", "--quick", "--rounds", "1", "--like", str(path), "--json"]
    assert main([*argv, "--contenders", "fastadam", "--what", "ratios,norm"]) == 0
    results = json.loads(capsys.readouterr().out)["results"]
    for (row,) in results.values():
        assert (row["case"], row["dtype"]) == ("model.npz", "float16 float32")
    assert results["norm"][0]["bytes_read"] == 2400 + 60


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", Cuda.contenders)
def test_contenders_do_what_fastadam_does(cupy: Any, name: str, variant: str) -> None:
    kind = Cuda.contenders[name]
    try:
        kind.version()
        assert check(kind, VARIANTS[variant], "float32") < 1e-4
    except (peers.Unavailable, peers.NotComparable) as reason:
        pytest.skip(str(reason))


def test_what_fails_is_named_and_the_rest_is_kept(
    cupy: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise MemoryError("out of the GPU's memory")

    monkeypatch.setattr(cuda_ceilings, "measure_ceilings", broken)
    assert main([*ARGV, "--contenders", "fastadam", "--what", "ceilings,ratios", "--json"]) == 1
    result = json.loads(capsys.readouterr().out)
    assert result["failed"] == ["ceilings: 4,096 elements, adamw, float32, on a GPU"]
    (left_out,) = result["left_out"]
    assert left_out["why"] == "it failed: MemoryError: out of the GPU's memory"
    assert len(result["results"]["ratios"]) == 1


def test_a_wrong_step_is_a_failure(
    cupy: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def wrong(*_: object) -> float:
        raise peers.NotComparable("other numbers")

    monkeypatch.setattr(peers, "check", wrong)
    assert main([*ARGV, "--what", "ratios"]) == 1
    assert "fastadam's step on the GPU is not the step on the CPU" in capsys.readouterr().out


def no_step(_: Any) -> None:
    pass


def raising_step(_: Any) -> None:
    raise ValueError("no kernel image")


def lacking_step(_: Any) -> None:
    raise peers.NotComparable("it has no such step")


@pytest.mark.parametrize(
    ("step", "status", "why"),
    [
        (no_step, 1, "it failed: after 5 steps its parameters are 1 of their way from fastadam's"),
        (raising_step, 1, "it failed: no kernel image"),
        (lacking_step, 0, "it has no such step"),
    ],
)
def test_a_wrong_step_of_another_kind_of_ours_is_a_failure(
    cupy: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    step: Any,
    status: int,
    why: str,
) -> None:
    monkeypatch.setattr(FastadamGraph, "step", step)
    argv = [*ARGV, "--what", "ratios", "--contenders", "fastadam-graph,chainer", "--json"]
    assert main(argv) == status
    result = json.loads(capsys.readouterr().out)
    assert result["failed"] == (["fastadam-graph: adamw float32"] if status else [])
    (left_out,) = result["left_out"]
    assert left_out["why"].startswith(why)
    # the others are timed all the same
    (row,) = result["results"]["ratios"]
    assert list(row["times_us"]) == ["floor", "fastadam", "chainer"]


def test_a_wrong_step_of_a_peer_is_left_out(
    cupy: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ChainerKernels, "step", no_step)
    assert main([*ARGV, "--what", "ratios", "--contenders", "chainer", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["failed"] == []
    assert "of their way" in result["left_out"][0]["why"]


def test_gradients_of_another_dtype(
    cupy: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ml_dtypes")
    tiny = cases.CASES["tiny"]()
    monkeypatch.setitem(cases.CASES, "tiny", lambda: cases.mixed(tiny, "bfloat16"))
    argv = [*ARGV, "--what", "ratios,norm", "--contenders", "fastadam-graph,chainer", "--json"]
    assert main(argv) == 0
    result = json.loads(capsys.readouterr().out)
    (row,), (norm,) = result["results"]["ratios"], result["results"]["norm"]
    assert (row["case"], row["dtype"]) == (
        "tiny-bfloat16-gradients",
        "float32, bfloat16 gradients",
    )
    assert row["bytes_moved"] == 1230 * 26
    assert norm["bytes_read"] == 1230 * 2
    assert list(row["difference"]) == ["fastadam-graph"]
    (left_out,) = result["left_out"]
    assert left_out["what"] == "chainer"
    assert left_out["why"] == "its gradients are of their parameters' dtype"


def test_every_launch_alone_is_a_step(cupy: Any) -> None:
    """What steps nothing would be timed as if it were infinitely fast."""
    case = cases.CASES["tiny"]()
    graph, twin = (FastadamGraph(VARIANTS["adamw"], arrays.parameters(case, None)) for _ in "ab")
    for one in (graph, twin):
        one.give(arrays.gradients(case, None))
        one.step()
    (part,) = graph.parts()
    assert part.name == "graph-alone"
    assert part.before is not None
    for _ in range(3):
        part.before()
        before = graph.optimizer.t
        part.step()
        # the host has done its part before
        assert graph.optimizer.t == before
        twin.step()
        for here, there in zip(graph.values(), twin.values(), strict=True):
            np.testing.assert_array_equal(here, there)


def test_what_no_time_is_left_for_is_named(
    cupy: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter(range(0, 10_000, 2))
    monkeypatch.setattr(plans.time, "perf_counter", lambda: float(next(clock)))
    assert main([*ARGV, "--seconds", "1", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert all(rows == [] for rows in result["results"].values())
    named = [one["what"] for one in result["left_out"] if "no time was left" in one["why"]]
    assert named == ["ceilings", "host", "ratios", "norm", "amsgrad"]


def test_what_is_not_there_is_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert main(ARGV) == 1
    assert "needs CuPy" in capsys.readouterr().err


def test_what_ends_the_run_leaves_what_has_failed(
    cupy: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(*_: object) -> None:
        raise MemoryError("out of the GPU's memory")

    def ended(*_: object) -> None:
        raise SystemExit(3)

    monkeypatch.setattr(cuda_ceilings, "measure_ceilings", broken)
    monkeypatch.setattr(cuda_host, "measure_host", ended)
    output = tmp_path / "bench.json"
    with pytest.raises(SystemExit):
        main([*ARGV, "--contenders", "fastadam", "--output", str(output)])
    result = json.loads(output.read_text())
    assert not result["finished"]
    assert result["failed"] == ["ceilings: 4,096 elements, adamw, float32, on a GPU"]


def test_measurements_take_turns_where_time_is_limited() -> None:
    roster: Any = SimpleNamespace(until=100.0)
    options = plans.Options([], ["adam", "adamw"], [None], [1], plans.QUICK)

    def rows(roster: Any, options: Any, variant: str, *_: object) -> Any:
        yield from ({"row": f"{variant} {i}"} for i in range(2))

    def nothing(*_: object) -> Any:
        yield None

    measured = {"a": plans.Measurement(rows), "b": plans.Measurement(nothing)}
    turns = [what for what, _ in plans.run(roster, measured, options)]
    assert turns == ["a", "b", "a", "b", "a", "a"]
    roster.until = math.inf
    made = list(plans.run(roster, measured, options))
    assert [what for what, _ in made] == ["a", "a", "a", "a", "b", "b"]
    assert made[2:5] == [("a", {"row": "adamw 0"}), ("a", {"row": "adamw 1"}), ("b", None)]
