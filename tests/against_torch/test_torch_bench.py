"""``python -m fastadam bench --torch``: who steps PyTorch's tensors, and what is told of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from fastadam.__main__ import main
from fastadam.bench import arrays, contender, plans, training
from fastadam.bench.cases import CASES
from fastadam.bench.settings import VARIANTS
from fastadam.bench.tensors import ClippedTensors, Tensors
from fastadam.bench.timing import Plan, Subject
from fastadam.kernels.cpu.threads import set_num_threads

SHORT = Plan(rounds=2, block_s=0.0, settle_s=0.0)
TORCHS = ["torch-fused", "torch-foreach", "torch-single"]
TINY = ["bench", "--torch", "--quick", "--cases", "tiny", "--threads", "1"]


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Measure on next to nothing; contenders set the threads of the process."""
    monkeypatch.setattr(plans, "QUICK", plans.QUICK._replace(plan=SHORT))
    yield
    set_num_threads(None)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_each_class_makes_the_steps_of_the_other_interface(variant: str, dtype: str) -> None:
    roster = Tensors(["fastadam"])
    found = roster.check(Tensors.contenders["fastadam"], variant, dtype)
    assert found < (1e-12 if dtype == "float64" else 1e-4)


@pytest.mark.parametrize("name", ["fastadam", *TORCHS])
def test_who_clips_clips(name: str) -> None:
    roster = ClippedTensors([name])
    assert roster.check(ClippedTensors.contenders[name], "adamw", "float32") < 1e-4
    with pytest.raises(contender.NotComparable, match="of their way"):
        roster.check(Tensors.contenders[name], "adamw", "float32")


@pytest.mark.parametrize("kind", [Tensors, ClippedTensors])
@pytest.mark.parametrize("name", ["fastadam", *TORCHS])
def test_fresh_gradients_lie_elsewhere(kind: Any, name: str) -> None:
    case = CASES["tiny"]()
    made = kind.contenders[name](VARIANTS["adamw"], arrays.parameters(case, "float32"))
    grads = arrays.gradients(case, "float32")
    made.give_anew(grads)
    first = [p.grad for p in made.parameters]
    made.give_anew(grads)
    for p, before, grad in zip(made.parameters, first, grads, strict=True):
        assert p.grad is not before
        assert p.grad.data_ptr() not in (before.data_ptr(), grad.ctypes.data)
        assert torch.equal(p.grad, torch.from_numpy(grad))


def test_training_steps_train(monkeypatch: pytest.MonkeyPatch) -> None:
    networks: list[Any] = []
    network = training._network

    def noted() -> Any:
        networks.append((network(), network()))
        return networks[-1][0]

    def once(subjects: list[Subject], plan: Plan) -> dict[str, list[float]]:
        for subject in subjects:
            subject.step()
        return {subject.name: [1.0] for subject in subjects}

    monkeypatch.setattr(training, "_network", noted)
    monkeypatch.setattr(training, "measure", once)
    row = training.compare_training(Tensors(["fastadam", *TORCHS]), "adamw", 1, SHORT)
    assert list(row["times_us"]) == ["fastadam", *TORCHS, "no-optimizer"]
    assert (row["tensors"], row["elements"], row["gradients"]) == (6, 17610, "fresh")
    sizes = [p.numel() for p in networks[0][0].parameters()]
    assert sizes == [tensor.size for tensor in CASES["mlp-small"]().tensors]
    for trained, _ in networks:
        assert all(p.grad is None for p in trained.parameters())
    *trained_ones, (untrained, start) = networks
    for p, q in zip(untrained.parameters(), start.parameters(), strict=True):
        assert torch.equal(p, q)
    for trained, _ in trained_ones:
        for p, q, r in zip(
            trained.parameters(), trained_ones[1][0].parameters(), start.parameters(), strict=True
        ):
            torch.testing.assert_close(p, q)
            assert not torch.equal(p, r)


@pytest.mark.slow
def test_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TINY, "--variants", "adamw,amsbound", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    rows = result["results"]
    assert {what: [row["variant"] for row in rows[what]] for what in rows} == {
        "ratios": ["adamw", "amsbound"],
        "classes": ["adam", "amsgrad", "adabound"],
        "clip": ["adamw", "amsbound"],
        "train": ["adamw", "amsbound"],
    }
    for what in ("ratios", "clip"):
        adamw, amsbound = rows[what]
        assert list(adamw["times_us"])[:5] == ["floor", "fastadam", *TORCHS]
        assert list(amsbound["times_us"]) == ["floor", "fastadam"]
        assert adamw["gradients"] == "fresh"
        assert adamw["beside_fastadam"].keys() >= set(TORCHS)
    assert "torch-fused" in rows["classes"][0]["beside_fastadam"]
    left_out = {one["what"]: one["why"] for one in result["left_out"]}
    assert left_out["torch-fused"] == "it has no AdaBound"
    assert main([*TINY, "--contenders", "torch-fused"]) == 0
    out = capsys.readouterr().out
    assert "clip and step, tiny, adamw, float32, 1 thread(s)" in out
    assert "training step of a 64-100-100-10 network, batch 32, adamw" in out
    assert "torch-single" not in out


@pytest.mark.slow
def test_each_dtype_is_a_tensors_own(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ml_dtypes", reason="needs ml_dtypes")
    argv = [*TINY, "--dtypes", "bfloat16", "--contenders", "torch-fused", "--json"]
    assert main(argv) == 0
    rows = json.loads(capsys.readouterr().out)["results"]
    assert rows["train"] == []
    for what in ("ratios", "classes", "clip"):
        assert {row["dtype"] for row in rows[what]} == {"bfloat16"}
        assert list(rows[what][0]["times_us"]) == ["floor", "fastadam", "torch-fused"]
    assert {tensor.dtype for tensor in CASES["resnet50-bfloat16"]().tensors} == {"bfloat16"}


def test_who_steps_no_tensors_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TINY, "--contenders", "optax"]) == 1
    assert "with --torch there is no --contenders optax; there are" in capsys.readouterr().err
