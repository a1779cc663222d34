"""``bench --cuda`` without a GPU: what it refuses, what it would measure, and what is wanted."""

from __future__ import annotations

import json
import sys
from types import ModuleType
from typing import Any

import pytest

from fastadam.__main__ import main
from fastadam.bench import arrays, cuda_plans, plans
from fastadam.bench.cases import CASES, Case, Tensor
from fastadam.bench.contender import NotComparable, Unavailable, check
from fastadam.bench.cuda import Cuda
from fastadam.bench.cuda_picture import panels
from fastadam.bench.cuda_steps import Apex
from fastadam.bench.floor import bytes_moved
from fastadam.bench.libraries import FastadamTensors, TorchFused
from fastadam.bench.settings import VARIANTS
from fastadam.bench.targets import judge

GIB = 1 << 30


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        (["--torch"], "--torch is for tensors on the CPU: leave out --cuda"),
        (["--threads", "2"], "--threads is for steps on the CPU: leave out --cuda"),
        (
            ["--what", "ratios,clip"],
            "with --cuda there is no --what clip; there are ceilings, host, ratios, norm, amsgrad",
        ),
        (["--contenders", "optax"], "with --cuda there is no --contenders optax; there are "),
    ],
)
def test_what_does_not_go_together(
    argv: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "--cuda", *argv]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(why)


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        (["--what", "ceilings"], "--what ceilings; there are ratios, host"),
        (["--contenders", "fastadam-graph"], "--contenders fastadam-graph; there are fastadam, "),
    ],
)
def test_what_there_is_on_a_gpu_alone(
    argv: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "--quick", *argv]) == 1
    assert capsys.readouterr().err.startswith(f"without --torch and --cuda there is no {why}")


def test_without_cupy(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setattr(plans, "run", lambda *_: pytest.fail("it has measured"))
    assert main(["bench", "--cuda"]) == 1
    assert "pip install 'cupy-cuda12x[ctk]>=14'" in capsys.readouterr().err
    assert main(["bench", "--cuda", "--json"]) == 1
    assert "needs CuPy" in json.loads(capsys.readouterr().out)["error"]


@pytest.mark.parametrize("seconds", ["0", "some"])
def test_wrong_seconds(seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["bench", "--seconds", seconds])
    assert stopped.value.code == 2
    assert "--seconds" in capsys.readouterr().err


def test_no_time_is_left_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter(range(0, 10_000, 2))
    monkeypatch.setattr(plans.time, "perf_counter", lambda: float(next(clock)))
    argv = ["bench", "--quick", "--contenders", "fastadam", "--cases", "tiny", "--seconds", "1"]
    assert main([*argv, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["results"] == {"ratios": []}
    (left_out,) = result["left_out"]
    assert left_out["what"] == "ratios"
    assert left_out["where"][0].startswith("tiny, adamw, float32")


def test_the_cases() -> None:
    assert set(cuda_plans.QUICK_CASES) < set(cuda_plans.CASES) < set(CASES)
    for name in ("256m", "256m-bfloat16", "256m-float16"):
        case = CASES[name]()
        assert case.name == name
        assert case.elements == 256_000_000
    assert arrays.dtype_names(CASES["256m-float16"](), None) == ["float16"]
    for name, elements in (("2m", 2), ("200x50k", 10), ("128m-float64", 128), ("16x16m", 256)):
        case = CASES[name]()
        assert (case.name, case.elements) == (name, elements * 1_000_000)
    mixed = CASES["256m-bfloat16-gradients"]()
    assert mixed.name == "256m-bfloat16-gradients"
    assert arrays.label(mixed, None) == "float32, bfloat16 gradients"
    assert bytes_moved(mixed, None, VARIANTS["adamw"]) == 26 * 256_000_000
    # a run's dtype is that of both
    assert arrays.label(mixed, "float32") == "float32"


def test_the_memory_of_a_large_case() -> None:
    """The copy takes what it moves, each contender p, g, m and v."""
    case, adam = CASES["256m"](), VARIANTS["adamw"]
    roster: Any = object.__new__(Cuda)
    n = case.elements
    assert roster.needed_bytes(case, None, "adamw", 6) == 6 * 16 * n + 28 * n + 12 * n
    assert bytes_moved(case, None, adam) == 28 * n
    assert roster.needed_bytes(case, None, "adamw", 6) < 40 * GIB


def test_apex_is_given_its_own_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch", reason="needs torch")

    class FusedAdam(torch.optim.AdamW):
        def __init__(self, params: Any, adam_w_mode: bool, **given: Any) -> None:
            super().__init__(params, **given)
            assert adam_w_mode == (given["weight_decay"] > 0)

    class OnCpu(Apex):
        device = "cpu"

    module: Any = ModuleType("apex.optimizers")
    module.FusedAdam = FusedAdam
    monkeypatch.setitem(sys.modules, "apex", ModuleType("apex"))
    monkeypatch.setitem(sys.modules, "apex.optimizers", module)
    for name in ("adam", "adamw"):
        assert check(OnCpu, VARIANTS[name], "float32") < 1e-4
    for name in ("amsgrad", "adabound"):
        with pytest.raises(NotComparable, match=r"^it has no A"):
            check(OnCpu, VARIANTS[name], "float32")


def test_without_a_gpu_torch_takes_no_part() -> None:
    torch = pytest.importorskip("torch", reason="needs torch")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(Unavailable, match="finds no GPU"):
        Apex.version()


def ratio_row(case: str, ours: float, floor: float, fused: float) -> dict[str, Any]:
    return {
        **{"case": case, "variant": "adamw", "dtype": "float32", "device": "cuda"},
        **{"elements": 2_000_000, "bytes_moved": 56_000_000},
        "times_us": {"fastadam": {"median": ours}},
        "beside_floor": {"fastadam": {"median": ours / floor}},
        "beside_fastadam": {"torch-fused": {"median": fused / ours}},
        "own_bytes": {"fastadam": 56_000_000, "torch-fused": 56_000_000},
    }


def host_row(tensors: int, plain: float, new: float) -> dict[str, Any]:
    times = {"plain": {"median": plain}, "new-addresses": {"median": new}}
    return {"device": "cuda", "variant": "adamw", "tensors": tensors, "times_us": times}


def test_targets() -> None:
    rows = [ratio_row("256m", 100, 91, 99), ratio_row("16m", 100, 69, 130)]
    rows.append(ratio_row("many", 5, 1, 50))
    judged = judge({"ratios": rows, "host": [host_row(200, 1, 1), host_row(1000, 499, 501)]})
    assert [one["reached"] for one in judged] == [True, False, False, True, True, True, False]
    assert [one["wanted"] for one in judged] == [0.9, 1.0, 0.7, 1.0, 1.0, 500.0, 500.0]
    assert judge({}) == []


@pytest.mark.parametrize(("fused", "reached"), [(65, True), (63, False)])
def test_a_step_that_moves_more_bytes_is_judged_by_its_bandwidth(
    fused: float, reached: bool
) -> None:
    """PyTorch's moments of half-precision parameters are of half precision: 14 bytes beside 22."""
    row = ratio_row("256m-bfloat16", 100, 91, fused) | {
        "own_bytes": {"fastadam": 22_000_000, "torch-fused": 14_000_000}
    }
    (judged,) = judge({"ratios": [row]})
    assert judged["what"].startswith("times the bandwidth of torch-fused")
    assert judged["measured"] == pytest.approx(fused / 100 * 22 / 14)
    assert judged["reached"] == reached


@pytest.mark.parametrize(
    ("dtype", "variant", "moved"),
    [("float32", "adamw", 28), ("bfloat16", "adamw", 14), ("float64", "amsgrad", 72)],
)
def test_the_bytes_that_pytorch_moves(dtype: str, variant: str, moved: int) -> None:
    pytest.importorskip("torch", reason="needs torch")
    case = Case("small", (Tensor("a", (3, 4)), Tensor("b", ())))
    contender = TorchFused(VARIANTS[variant], arrays.parameters(case, dtype))
    contender.give(arrays.gradients(case, dtype))
    contender.step()
    assert contender.bytes_moved() == 13 * moved
    ours = FastadamTensors(VARIANTS[variant], arrays.parameters(case, dtype))
    ours.give(arrays.gradients(case, dtype))
    ours.step()
    assert ours.bytes_moved() == bytes_moved(case, dtype, VARIANTS[variant])


def test_panels_are_made_of_what_there_is() -> None:
    assert panels({"results": {}}) == []
    assert panels({"results": {"ratios": [ratio_row("256m", 1, 1, 1)]}}) == []
    results = {"host": [host_row(1, 1, 1)], "ceilings": [{}]}
    assert len(panels({"results": results})) == 2
