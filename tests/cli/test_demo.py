"""The demo: a short run, its pieces, and the quality of a full one."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

import fastadam
from fastadam.__main__ import main
from fastadam.cli import demo, demo_network, demo_training
from fastadam.cli.demo_training import SideBySide
from fastadam.cli.plain_numpy import PlainNumpyAdam

pytest.importorskip("sklearn", reason="needs scikit-learn, of the extra 'demo'")
pytest.importorskip("matplotlib", reason="needs matplotlib, of the extra 'demo'")
pytest.importorskip("tqdm", reason="needs tqdm, of the extra 'demo'")

VARIANTS = ["Adam", "AdamW", "AMSGrad", "AdaBound", "AMSBound"]


@pytest.fixture
def small_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure the larger model's step on an array that takes no time."""
    monkeypatch.setattr(demo_training, "LARGE", 1000)


@pytest.mark.usefixtures("small_timing")
@pytest.mark.parametrize("gradients", ["hand", "autograd"])
def test_short_run_as_json(
    gradients: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if gradients == "autograd":
        pytest.importorskip("autograd", reason="needs autograd, of the extra 'demo'")
    out = tmp_path / "curves.png"
    options = ["--epochs", "2", "--seed", "3", "--threads", "2", "--gradients", gradients]
    assert main(["demo", "--json", "--out", str(out), *options]) == 0
    stdout, stderr = capsys.readouterr()
    result = json.loads(stdout)
    assert [row["variant"] for row in result["variants"]] == VARIANTS
    for row in result["variants"]:
        assert len(row["losses"]) == 3
        assert row["losses"][0] == result["variants"][0]["losses"][0]
        assert row["final_loss"] == row["losses"][-1] < row["losses"][0] / 2
        assert 0.5 < row["test_accuracy"] <= 1
        assert row["difference_to_numpy"] < 1e-5
        for key in ("step_us", "large_step_us"):
            assert row[key]["fastadam"] > 0
            assert row[key]["numpy"] > 0
    assert result["elements"] == 64 * 32 + 32 + 32 * 10 + 10
    assert (result["train_images"], result["test_images"]) == (1437, 360)
    assert (result["epochs"], result["seed"], result["threads"]) == (2, 3, 2)
    assert result["gradients"] == gradients
    assert result["picture"] == str(out)
    assert out.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert stderr == ""  # no bar where it would fill a log
    assert fastadam.get_config()["threads"]["set_by_hand"] is None


@pytest.mark.usefixtures("small_timing")
def test_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "--epochs", "1"]) == 0
    out = capsys.readouterr().out
    assert os.listdir(tmp_path) == ["fastadam-demo.png"]
    for kind, hyperparameters in demo_training.VARIANTS:
        (line,) = (line for line in out.splitlines() if line.startswith(f"{kind.__name__}("))
        assert f"alpha={hyperparameters['alpha']}" in line
        assert line.count("µs") == line.count("ms") == 2
        assert "%" in line
    assert "Loss curves: fastadam-demo.png" in out
    assert out.endswith(demo.EXAMPLE)


def test_the_lines_to_copy_run_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(demo.EXAMPLE.splitlines()) == 10
    exec(compile(demo.EXAMPLE, "the example", "exec"), {})
    words = capsys.readouterr().out.split()
    assert words[0] == "right:"
    assert float(words[1]) > 0.95


@pytest.mark.slow
@pytest.mark.parametrize("seed", ["0", "1"])
def test_every_variant_is_above_95_percent(
    seed: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "curves.png"
    assert main(["demo", "--json", "--seed", seed, "--out", str(out)]) == 0
    result = json.loads(capsys.readouterr().out)
    assert {row["variant"]: row["test_accuracy"] > 0.95 for row in result["variants"]} == (
        dict.fromkeys(VARIANTS, True)
    )
    assert result["seconds"] < 60
    assert out.stat().st_size < 100_000


def test_the_split_is_fixed_and_without_overlap() -> None:
    first, second = demo_network.load_digits(), demo_network.load_digits()
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == np.float32
    assert first.x_train.shape == (1437, 64)
    assert first.x_test.shape == (360, 64)
    assert first.x_train.min() == 0
    assert first.x_train.max() == 1
    assert not {x.tobytes() for x in first.x_train} & {x.tobytes() for x in first.x_test}
    assert np.all(first.y_test.sum(axis=1) == 1)
    assert np.all(first.y_test.sum(axis=0) > 20)


def test_gradients_by_hand_are_those_of_differences() -> None:
    random = np.random.default_rng(5)
    params = {
        name: p + 0.1 * random.standard_normal(p.shape)
        for name, p in demo_network.initial_parameters(1).items()
    }
    x, y = random.uniform(size=(6, 64)), np.eye(10)[random.integers(10, size=6)]
    value, grads = demo_network.hand_gradients(params, x, y)
    assert value == pytest.approx(demo_network.loss(params, x, y), rel=1e-12)
    h = 1e-5
    for name, p in params.items():
        for i in range(0, p.size, 1 + p.size // 40):
            at = np.unravel_index(i, p.shape)
            losses = []
            for sign in (1, -1):
                moved = {**params, name: p.copy()}
                moved[name][at] += sign * h
                losses.append(demo_network.loss(moved, x, y))
            assert grads[name][at] == pytest.approx(
                (losses[0] - losses[1]) / (2 * h), rel=1e-6, abs=1e-9
            )


def test_gradients_of_autograd_are_those_by_hand() -> None:
    pytest.importorskip("autograd", reason="needs autograd, of the extra 'demo'")
    digits = demo_network.load_digits()
    params = demo_network.initial_parameters(2)
    batch = digits.x_train[:50], digits.y_train[:50]
    value, grads = demo_network.autograd_gradients()(params, *batch)
    by_hand, expected = demo_network.hand_gradients(params, *batch)
    assert float(value) == pytest.approx(by_hand, rel=1e-5)
    assert grads.keys() == expected.keys()
    for name, grad in grads.items():
        np.testing.assert_allclose(grad, expected[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("kind", "hyperparameters"),
    [
        *demo_training.VARIANTS,
        (fastadam.Adam, {"alpha": 0.03, "beta1": 0.7, "eps": 1e-3, "eta": 0.6}),
        (fastadam.AdaBound, {"alpha": 0.003, "final_lr": 0.01, "gamma": 0.1, "eta": 0.6}),
    ],
)
def test_the_plain_step_is_the_same_step(
    kind: type[fastadam.Adam], hyperparameters: dict[str, float], dtype: type
) -> None:
    random = np.random.default_rng(4)
    params = {"w": random.standard_normal((5, 4)).astype(dtype), "b": np.ones(4, dtype)}
    both = SideBySide(kind, hyperparameters, params)
    for _ in range(50):
        both.step(
            {name: random.standard_normal(p.shape).astype(dtype) for name, p in params.items()}
        )
    assert both.difference < 100 * np.finfo(dtype).eps
    assert both.times.fastadam > 0
    params["b"][2] += 1
    assert both.difference == pytest.approx(1)


def test_the_plain_step_keeps_float32() -> None:
    params = {"w": np.ones(3, np.float32)}
    opt = fastadam.AMSBound().setup({"w": np.ones(3, np.float32)})
    plain = PlainNumpyAdam(params, opt.hyperparam.get_dict())
    plain.step({"w": np.ones(3, np.float32)})
    for arrays in (plain.params, plain.m, plain.v, plain.largest_v):
        assert arrays["w"].dtype == np.float32
