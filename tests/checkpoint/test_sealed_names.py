"""Files whose digests are right, with names and values that nothing here has."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastadam
from fastadam import CheckpointError
from fastadam.optimizer_hooks import WeightDecay

sys.path.insert(0, str(Path(__file__).parent))
from sealing import sealed

# What objects have, and no hyperparameters.
NAMES = ["_parent", "parent", "version", "_version", "get_dict", "nope", "Alpha", ""]
NAMES += ["__class__", "__dict__", "__eq__", "__slots__", "__init__", "alpha/x", "a\nb", "lr"]


def made(alpha: float = 0.1) -> Any:
    opt = fastadam.Adam(alpha=alpha).setup({"w": np.full(3, alpha, np.float32)})
    opt.loss_scaling(interval=3)
    opt.set_hyperparam("w", eta=0.5)
    opt.add_hook(WeightDecay(0.1))
    opt.apply_gradients({"w": np.ones(3, np.float32)})
    return opt


def state(opt: Any) -> list[Any]:
    rule = opt.parameters["w"].update_rule
    return [
        *(opt.t, opt.epoch, opt.loss_scale, opt._loss_scaling_multiplier, opt.monitor),
        *(opt.on_nonfinite, vars(opt.hyperparam).copy(), sorted(vars(opt))),
        *(rule.t, rule.enabled, vars(rule.hyperparam).copy(), sorted(vars(rule))),
        *(sorted(rule.state), rule.state["m"].tolist(), opt.target["w"].tolist()),
        *(opt.hyperparam.parent, rule.hyperparam.parent is opt.hyperparam),
        *(type(opt.hyperparam), type(rule.hyperparam)),
    ]


def refused(path: Path, changes: dict[str, Any], opt: Any, **how: Any) -> str:
    fastadam.save(path, made())
    sealed(path, changes)
    before = state(opt)
    with pytest.raises(CheckpointError) as raised:
        fastadam.load(path, opt, **how)
    assert state(opt) == before, changes
    opt.apply_gradients({"w": np.ones(3, np.float32)})
    return str(raised.value)


def test_unknown_names(tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    keys = [f"fastadam/hyperparam/{name}" for name in NAMES]
    keys += [f"fastadam/rule/w/hyperparam/{name}" for name in NAMES]
    keys += ["fastadam/settings/nope", "fastadam/settings/__class__", "fastadam/nope"]
    keys += ["fastadam/rule/w/nope", "fastadam/rule/w/_state", "fastadam/rule/nope/enabled"]
    keys += ["optimizer/nope", "optimizer/w/nope", "optimizer/w/_state", "optimizer/w/vhat"]
    keys += ["optimizer/fastadam/nope", "target/nope", "target/w/nope", "optimizer/hyperparam"]
    for key in keys:
        if key == "optimizer/w/vhat":
            continue
        error = refused(path, {key: np.array(0.5)}, made(0.2))
        assert repr(key.rpartition("/")[2])[1:-1] in error, (key, error)


def test_unknown_names_that_are_left(tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    fastadam.save(path, made())
    keys = [f"fastadam/hyperparam/{name}" for name in ("_parent", "nope")]
    keys += ["fastadam/rule/w/hyperparam/get_dict", "fastadam/settings/nope", "optimizer/w/nope"]
    sealed(path, dict.fromkeys(keys, np.array(0.5)))
    opt = made(0.2)
    report = fastadam.load(path, opt, strict=False)
    assert set(keys) <= set(report.left) | set(report.read)
    assert opt == made()
    assert not hasattr(opt.hyperparam, "nope")
    # values without a place are no error where their section is not asked for
    sealed(path, dict.fromkeys(keys[3:], ...))
    fastadam.load(path, made(0.2), hyperparam=False)


def test_values_that_cannot_be(tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    odd: dict[str, list[Any]] = {
        "optimizer/t": [-1, 2**60, 2**63, 1.5, "x", [1, 2]],
        "optimizer/epoch": [-3, 2**62, 0.5],
        "optimizer/w/t": [-1, 2**63, 2.5, "3"],
        "optimizer/fastadam/loss_scale": [0.0, -1.0, np.inf, np.nan, "8", [1.0, 2.0]],
        "optimizer/fastadam/loss_scale_dynamic": [3, -1, np.nan, 0.5],
        "optimizer/fastadam/loss_scale_nonfinite_ever": [2, np.nan],
        "optimizer/fastadam/loss_scale_multiplier": [0.5, 3.0, -1.0, np.inf],
        "fastadam/settings/monitor": [3, "yes", 1.0, [True]],
        "fastadam/settings/use_fp32_update": [2, "no", 0],
        "fastadam/settings/on_nonfinite": ["later", 3, ["skip", "skip"]],
        "fastadam/rule/w/enabled": [2, "no", 1, [True, True]],
        "fastadam/rule/w/use_fp32_update": [2, "no"],
        "fastadam/rule/w/initial_alpha": [np.nan, np.inf, "x", [0.1, 0.2], True],
        "fastadam/rule/w/hyperparam/eta": ["x", [1.0, 2.0], np.array(None, object)],
        "fastadam/hyperparam/alpha": ["x", np.zeros(2), np.array(None, object)],
        "fastadam/hyperparam/eps_mode": ["nope", 3],
        "fastadam/hooks": ["", "{", "3", '["a", 3]', "[" * 100_000, 5],
    }
    for key, values in odd.items():
        for value in values:
            words = refused(path, {key: value}, made(0.2))
            name = key.rpartition("/")[2]
            assert name.partition("_")[0] in words or "loss scale" in words, (key, value, words)


def test_what_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    for key in ("optimizer/t", "optimizer/epoch", "optimizer/w/t", "optimizer/w/v", "target/w"):
        words = refused(path, {key: ...}, made(0.2))
        assert repr(key) in words or "saved with parameters=False" in words


def test_a_classs_own_hyperparameters(tmp_path: Path) -> None:
    class Mine(fastadam.Adam):
        def __init__(self, **arguments: Any) -> None:
            super().__init__(**arguments)
            self.hyperparam.warmup = 7

    path = tmp_path / "run.npz"
    opt = Mine().setup({"w": np.ones(3)})
    opt.hyperparam.warmup = 9
    opt.parameters["w"].update_rule.hyperparam.warmup = 11
    fastadam.save(path, opt)
    other = Mine().setup({"w": np.ones(3)})
    fastadam.load(path, other)
    assert other.hyperparam.warmup == 9
    assert other.parameters["w"].update_rule.hyperparam.warmup == 11
    plain = fastadam.Adam().setup({"w": np.ones(3)})
    with pytest.raises(CheckpointError, match="no hyperparameters for: 'warmup'"):
        fastadam.load(path, plain)


def test_names_in_rename(tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    opt = fastadam.Adam().setup({"l1": {"w": np.ones(3)}, "b": np.ones(2)})
    fastadam.save(path, opt)
    target = {"l2": {"w": np.zeros(3)}, "b": np.zeros(2)}
    other = fastadam.Adam().setup(target)
    for rename in (
        {"l1": "typo"},
        {"l1/w": "l2/typo"},
        {"l1": "l2/w/x"},
        {"b": "typo", "l1": "l2"},
    ):
        with pytest.raises(CheckpointError, match=r"rename: .* in the target"):
            fastadam.load(path, other, rename=rename)
        with pytest.raises(CheckpointError, match=r"rename: .* in the target"):
            fastadam.load(path, other, rename=rename, strict=False)
        assert target["b"].tolist() == [0, 0]
    with pytest.raises(CheckpointError, match="two names become one"):
        fastadam.load(path, other, rename={"l1": "l2", "b": "/l2/"})
    fastadam.load(path, other, rename={"l1": "l2"})
    assert target["l2"]["w"].tolist() == [1, 1, 1]


def test_functions_in_rename(tmp_path: Path) -> None:
    path, alone = tmp_path / "run.npz", tmp_path / "alone.npz"
    target = {"l1": {"w": np.ones(3), "b": np.ones(2)}, "c": np.ones(1)}
    opt = fastadam.Adam().setup(target)
    opt.apply_gradients({"l1": {"w": np.ones(3), "b": np.ones(2)}, "c": np.ones(1)})
    fastadam.save(path, opt)
    fastadam.serializers.save_npz(alone, opt)
    new = {"l2": {"w": np.zeros(3), "b": np.zeros(2)}, "c": np.zeros(1)}
    seen: list[str] = []

    def renamed(name: str) -> str:
        seen.append(name)
        return name.replace("l1", "l2")

    for file, own in ((path, True), (alone, False)):
        other = fastadam.Adam().setup(new)
        report = fastadam.load(file, other, rename=renamed, parameters=own)
        assert report.missing == report.left == ()
        assert new["l2"]["b"].tolist() == target["l1"]["b"].tolist()
        for name, param in other.parameters.items():
            old = opt.parameters[name.replace("l2", "l1")]
            assert param.update_rule.state["m"].tolist() == old.update_rule.state["m"].tolist()
        assert seen == ["c", "l1/b", "l1/w"]
        seen.clear()
    # swapped, and with what there is not in the target
    fewer = fastadam.Adam().setup({"l1": {"w": np.zeros(2)}})
    swap = {"l1/w": "l1/b", "l1/b": "l1/w", "c": "d"}
    with pytest.raises(CheckpointError, match="no place for: 'fastadam/rule/c/"):
        fastadam.load(path, fewer, rename=lambda name: swap[name])
    fastadam.load(path, fewer, rename=lambda name: swap[name], strict=False)
    assert fewer.target["l1"]["w"].tolist() == target["l1"]["b"].tolist()


@pytest.mark.parametrize(
    "rename",
    [{"a": "c"}, lambda name: "c" if name == "a" else name],
    ids=["mapping", "function"],
)
def test_what_is_renamed_is_there_no_more(tmp_path: Path, rename: Any) -> None:
    """A parameter of its old name does not get its values, too."""
    opt = fastadam.Adam().setup({"a": np.zeros(3), "b": np.zeros(3)})
    opt.apply_gradients({"a": np.ones(3), "b": np.full(3, 2.0)})
    opt.parameters["a"].update_rule.hyperparam.alpha = 0.5
    fastadam.save(tmp_path / "own.npz", opt)
    fastadam.serializers.save_npz(tmp_path / "plain.npz", opt)
    for file in ("own.npz", "plain.npz"):
        other = fastadam.Adam().setup({key: np.full(3, 5.0) for key in "abc"})
        with pytest.raises((CheckpointError, KeyError), match="`rename` makes 'c' of what"):
            fastadam.load(tmp_path / file, other, rename=rename, parameters=file == "own.npz")
        report = fastadam.load(
            tmp_path / file, other, rename=rename, parameters=file == "own.npz", strict=False
        )
        assert any("a" in name for name in report.missing)
        assert other.parameters["a"].update_rule.state is None
        assert "alpha" not in vars(other.parameters["a"].update_rule.hyperparam)
        assert other.parameters["a"].array.tolist() == [5.0] * 3
        for old, new in (("a", "c"), ("b", "b")):
            mine, there = opt.parameters[old], other.parameters[new]
            assert np.array_equal(mine.update_rule.state["m"], there.update_rule.state["m"])
            assert file != "own.npz" or np.array_equal(mine.array, there.array)


def test_what_is_no_name_in_rename(tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    opt = fastadam.Adam().setup({"a": np.ones(3), "b": np.ones(3)})
    fastadam.save(path, opt)
    wrong: list[tuple[Any, type[Exception], str]] = [
        (lambda name: "a", CheckpointError, "two names become one: 'a' and 'b' become 'a'"),
        ({"a": "b", "b": "/b"}, CheckpointError, "two names become one: 'a' and 'b' become '/b'"),
        (lambda name: None, TypeError, "names are str, and 'a' would become None"),
        ({"a": 1}, TypeError, "names are str, and 'a' would become 1"),
        ({1: "a"}, TypeError, "names are str, and 1 would become 'a'"),
        ([("a", "b")], TypeError, "mapping, .* or a function from the one to the other, not list"),
        (lambda name: {}[name], KeyError, "a"),
    ]
    before = opt.target["a"].copy()
    opt.target["a"] += 1
    for rename, error, words in wrong:
        with pytest.raises(error, match=words):
            fastadam.load(path, opt, rename=rename)
        with pytest.raises(error, match=words):
            fastadam.load(path, opt, rename=rename, strict=False)
    assert (opt.target["a"] == before + 1).all()
