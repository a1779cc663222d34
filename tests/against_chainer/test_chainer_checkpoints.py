"""Checkpoints of Chainer's own models, and files that Chainer's optimizers have saved."""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastadam
from fastadam import CheckpointError


@pytest.fixture
def chainer() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Chainer's own
            return importlib.import_module("chainer")
    except (ImportError, AttributeError):  # not there, or not on this NumPy
        pytest.skip("Chainer cannot be imported here")


def model(chainer: Any, seed: int = 0, size: int | None = 4) -> Any:
    np.random.seed(seed)
    links = chainer.links
    return chainer.Sequential(
        links.Linear(size, 3), links.BatchNormalization(3), links.Linear(3, 2)
    )


def step(chainer: Any, opt: Any, n: int = 1) -> None:
    for _ in range(n):
        random = np.random.default_rng(opt.t)
        x = random.normal(size=(5, 4)).astype(np.float32)
        opt.update(lambda x=x: chainer.functions.sum(opt.target(x) ** 2))


def values(net: Any) -> dict[str, Any]:
    found = dict(fastadam.serializers.serialize(net))
    return {key: np.array(value) for key, value in found.items()}


def assert_same(one: Any, other: Any) -> None:
    mine, theirs = values(one.target), values(other.target)
    assert mine.keys() == theirs.keys()
    for key, value in mine.items():
        assert value.tobytes() == theirs[key].tobytes(), key
    assert one.t == other.t
    for path, param in one.parameters.items():
        for key, value in param.update_rule.state.items():
            assert value.tobytes() == other.parameters[path].update_rule.state[key].tobytes()


@pytest.mark.parametrize("size", [4, None])
def test_a_run_goes_on(chainer: Any, path: Path, size: int | None) -> None:
    """With the persistent values of batch normalization, and lazily initialised parameters."""
    whole = fastadam.AMSGrad(alpha=0.01).setup(model(chainer, 0, size))
    step(chainer, whole, 3)
    fastadam.save(path, whole)
    step(chainer, whole, 3)
    resumed = fastadam.AMSGrad().setup(model(chainer, 1, 4))
    assert fastadam.load(path, resumed).verified
    step(chainer, resumed, 3)
    assert_same(resumed, whole)


def test_another_shape_changes_nothing(chainer: Any, path: Path) -> None:
    opt = fastadam.Adam().setup(model(chainer))
    step(chainer, opt)
    fastadam.save(path, opt)
    other = fastadam.Adam().setup(model(chainer, 1, 5))
    before = values(other.target)
    with pytest.raises(CheckpointError, match=r"target/0/W.*\(3, 4\).*\(3, 5\)"):
        fastadam.load(path, other)
    after = values(other.target)
    assert all(np.array_equal(after[key], value) for key, value in before.items())
    assert other.t == 0


@pytest.mark.parametrize("steps", [0, 2])
def test_files_of_chainers_optimizers(chainer: Any, tmp_path: Path, steps: int) -> None:
    """Saved before the first update and after some, and loaded without parameters."""
    theirs = chainer.optimizers.AMSGrad(alpha=0.01).setup(model(chainer))
    step(chainer, theirs, steps)
    path = tmp_path / "optimizer.npz"
    chainer.serializers.save_npz(str(path), theirs)
    ours = fastadam.AMSGrad(alpha=0.01).setup(theirs.target.copy(mode="copy"))
    with pytest.raises(CheckpointError, match="parameters=False"):
        fastadam.load(path, ours)
    report = fastadam.load(path, ours, parameters=False)
    assert not report.verified
    assert ours.t == steps
    step(chainer, theirs, 2)
    step(chainer, ours, 2)
    for path_, param in theirs.target.namedparams():
        assert param.array.tobytes() == ours.parameters[path_.strip("/")].array.tobytes()


def test_chainer_reads_the_sections(chainer: Any, tmp_path: Path) -> None:
    ours = fastadam.Adam(alpha=0.01).setup(model(chainer))
    step(chainer, ours, 2)
    path = tmp_path / "run.npz"
    fastadam.save(path, ours)
    net = model(chainer, 1)
    theirs = chainer.optimizers.Adam(alpha=0.01).setup(net)
    chainer.serializers.load_npz(str(path), net, path="target/")
    chainer.serializers.load_npz(str(path), theirs, path="optimizer/")
    assert theirs.t == 2
    assert all(np.array_equal(v, values(net)[k]) for k, v in values(ours.target).items())
