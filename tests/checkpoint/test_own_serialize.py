"""Links, rules, optimizers and hooks with a `serialize` of their own; all or nothing."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastadam
from fastadam import Chain, CheckpointError, Link, Parameter

sys.path.insert(0, str(Path(__file__).parent))
from sealing import sealed


class OwnLink(Link):
    def __init__(self) -> None:
        super().__init__()
        with self.init_scope():
            self.w = Parameter(np.ones(3, np.float32))
        self.seen = 0

    def serialize(self, serializer: Any) -> None:
        super().serialize(serializer)
        self.seen = serializer("seen", self.seen)


class OwnRule(fastadam.UpdateRule):
    def init_state(self, param: Any) -> None:
        self.state["m"] = np.zeros_like(param.array)

    def update_core(self, param: Any) -> None:
        self.state["m"] += param.grad
        param.array -= self.hyperparam.lr * self.state["m"]

    def serialize(self, serializer: Any) -> None:
        super().serialize(serializer)
        serializer("kind", "own")


class OwnOptimizer(fastadam.GradientMethod):
    def __init__(self) -> None:
        super().__init__()
        self.hyperparam.lr = 0.5

    def create_update_rule(self) -> OwnRule:
        return OwnRule(self.hyperparam)


class OwnAdam(fastadam.Adam):
    note = 0

    def serialize(self, serializer: Any) -> None:
        super().serialize(serializer)
        self.note = serializer("note", self.note)


class Counter:
    """A hook that counts, and remembers the last gradients."""

    name, timing, call_for_each_param = "Counter", "pre", False

    def __init__(self, n: int = 0) -> None:
        self.n = n
        self.last: Any = None

    def __call__(self, opt: Any) -> None:
        self.n += 1
        self.last = np.full(500_000, self.n, np.float64)

    def serialize(self, serializer: Any) -> None:
        self.n = serializer("n", self.n)
        self.last = serializer("last", self.last)


def model() -> Chain:
    chain = Chain()
    with chain.init_scope():
        chain.a = OwnLink()
        chain.b = Link(W=(2,))
    chain.b.W.array[...] = 1
    return chain


def step(opt: Any, n: int = 2) -> Any:
    for _ in range(n):
        for param in opt.parameters.values():
            param.grad = np.ones_like(param.array)
        opt.update()
    return opt


def test_a_child_link(path: Path) -> None:
    opt = step(fastadam.Adam(alpha=0.1).setup(model()))
    opt.target.a.seen = 7
    fastadam.save(path, opt)
    other = fastadam.Adam().setup(model())
    report = fastadam.load(path, other)
    assert other.target.a.seen == 7
    assert other == opt
    assert np.array_equal(other.target.a.w.array, opt.target.a.w.array)
    assert report.left == ()


def test_a_child_link_is_compared_before_anything_changes(tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    opt = step(fastadam.Adam(alpha=0.1).setup(model()))
    fastadam.save(path, opt)
    sealed(path, {"target/a/w": np.zeros(3, np.float32)}, listed=False)
    other = fastadam.Adam().setup(model())
    with pytest.raises(CheckpointError, match=r"'target/a/w' in .* is damaged"):
        fastadam.load(path, other)
    assert (other.t, other.alpha) == (0, 0.001)


def test_a_rule(path: Path) -> None:
    opt = OwnOptimizer().setup({"w": np.ones(3)})
    opt.apply_gradients({"w": np.ones(3)})
    fastadam.save(path, opt)
    other = OwnOptimizer().setup({"w": np.zeros(3)})
    fastadam.load(path, other)
    assert other == opt
    assert other.parameters["w"].update_rule.state["m"].tolist() == [1, 1, 1]


def test_an_optimizer(path: Path) -> None:
    opt = OwnAdam(alpha=0.1).setup({"w": np.ones(3)})
    opt.apply_gradients({"w": np.ones(3)})
    opt.note = 3
    fastadam.save(path, opt)
    other = OwnAdam().setup({"w": np.zeros(3)})
    fastadam.load(path, other)
    assert (other == opt, other.note, other.alpha) == (True, 3, 0.1)


def test_a_hook_with_a_large_state(path: Path) -> None:
    params = {"w": np.ones(600_000)}
    opt = fastadam.Adam().setup(params)
    opt.add_hook(Counter())
    opt.apply_gradients({"w": np.ones(600_000)})
    fastadam.save(path, opt)
    other = fastadam.Adam().setup(params)
    other.add_hook(Counter())
    fastadam.load(path, other)
    (hook,) = [hook for _, _, hook in other._hooks]
    assert hook.n == 1
    assert hook.last.tolist() == [1.0] * 500_000


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"fastadam/hook/Counter/last": ...}, "'fastadam/hook/Counter/last'"),
        ({"fastadam/hook/Counter/n": "seven"}, "'fastadam/hook/Counter/n'"),
        ({"fastadam/hook/GradientNoise/position": ...}, "GradientNoise/position"),
        ({"fastadam/settings/on_nonfinite": "later"}, "'later'"),
        ({"target/w": np.full(3, 1e300)}, "beyond the range of float32"),
        ({"optimizer/w/m": np.full(3, 1e300)}, "beyond the range of float32"),
    ],
)
def test_nothing_is_half_loaded(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    path = tmp_path / "run.npz"

    def made() -> Any:
        opt = fastadam.Adam().setup({"w": np.ones(3, np.float32)})
        opt.add_hook(Counter())
        opt.add_hook(fastadam.optimizer_hooks.GradientNoise(0.1))
        return opt

    opt = made()
    opt.alpha, opt.on_nonfinite = 0.5, "skip"
    opt.apply_gradients({"w": np.ones(3, np.float32)})
    fastadam.save(path, opt)
    sealed(path, changes)
    other = made()
    random = np.random.get_state()
    with pytest.raises(CheckpointError) as raised:
        fastadam.load(path, other)
    assert words in str(raised.value)
    assert (other.t, other.alpha, other.on_nonfinite) == (0, 0.001, "propagate")
    assert other.parameters["w"].array.tolist() == [1, 1, 1]
    assert other.parameters["w"].update_rule.state is None
    assert [hook.n for _, name, hook in other._hooks if name == "Counter"] == [0]
    assert np.array_equal(np.random.get_state()[1], random[1])
    assert np.random.get_state()[2] == random[2]


def test_hooks_whose_keys_are_missing_or_ignored(tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    opt = fastadam.Adam().setup({"w": np.ones(3)})
    opt.add_hook(Counter(5))
    fastadam.save(path, opt)
    other = fastadam.Adam().setup({"w": np.ones(3)})
    other.add_hook(Counter())
    report = fastadam.load(path, other, ignore_names="fastadam/hook/Counter/last")
    assert report.ignored == ("fastadam/hook/Counter/last",)
    assert [hook.n for _, _, hook in other._hooks] == [5]
    sealed(path, {"fastadam/hook/Counter/n": ...})
    other = fastadam.Adam().setup({"w": np.ones(3)})
    other.add_hook(Counter(3))
    fastadam.load(path, other, strict=False)
    assert [hook.n for _, _, hook in other._hooks] == [3]


@pytest.mark.parametrize("key", ["m", "v"])
def test_states_of_an_uninitialised_parameter_have_its_shape(tmp_path: Path, key: str) -> None:
    path = tmp_path / "run.npz"
    fastadam.save(path, step(fastadam.Adam(alpha=0.1).setup(Link(W=(4,)))))
    lazy = fastadam.Adam().setup(Link(W=None))
    fastadam.load(path, lazy)
    assert lazy.target.W.array.shape == (4,)
    sealed(path, {f"optimizer/W/{key}": np.zeros(2, np.float32)})
    for parameters in (True, False):
        other = fastadam.Adam().setup(Link(W=None))
        with pytest.raises(CheckpointError, match=rf"'optimizer/W/{key}' has shape \(2,\)"):
            fastadam.load(path, other, parameters=parameters)
        assert (other.t, other.target.W.array) == (0, None)


def test_loss_scaling_that_was_off_is_off(path: Path) -> None:
    opt = fastadam.Adam().setup({"w": np.ones(3)})
    opt.apply_gradients({"w": np.ones(3)})
    fastadam.save(path, opt)
    opt.loss_scaling()
    fastadam.load(path, opt, ignore_names="optimizer/fastadam/loss_scale")
    assert opt.loss_scale == 1.0
    fastadam.load(path, opt)
    assert opt.loss_scale is None
    assert not opt._loss_scaling_is_dynamic


@pytest.mark.parametrize("name", ["amsgrad", "adabound"])
def test_variants_of_single_parameters(path: Path, name: str) -> None:
    opt = fastadam.Adam().setup({"w": np.ones(3), "b": np.ones(3)})
    opt.set_hyperparam("w", **{name: True})
    opt.apply_gradients({"w": np.ones(3), "b": np.ones(3)})
    fastadam.save(path, opt)
    other = fastadam.Adam().setup({"w": np.ones(3), "b": np.ones(3)})
    fastadam.load(path, other)
    assert other == opt
    assert (getattr(other.parameters["w"].update_rule.hyperparam, name)) is True
    fresh = fastadam.Adam().setup({"w": np.ones(2), "b": np.ones(3)})
    with pytest.raises(CheckpointError):
        fastadam.load(path, fresh)
    assert name not in vars(fresh.parameters["w"].update_rule.hyperparam)


def test_names_that_there_are_none_of(path: Path) -> None:
    opt = fastadam.Adam(alpha=0.1).setup({"l1": {"W": np.ones(3), "b": np.ones(1)}})
    fastadam.save(path, opt)
    with pytest.raises(CheckpointError, match=r"'alpha' in .*'fastadam/hyperparam/alpha' meant"):
        fastadam.load(path, opt, ignore_names=["alpha"])
    with pytest.raises(CheckpointError, match="rename: there is no 'l2'"):
        fastadam.load(path, opt, rename={"l2": "l1"})
    for rename in ({"l1/W": "enc/weight", "l1": "enc"}, {"l1": "enc", "l1/W": "enc/weight"}):
        other = fastadam.Adam().setup({"enc": {"weight": np.zeros(3), "b": np.zeros(1)}})
        fastadam.load(path, other, rename=rename)
        assert other.target["enc"]["weight"].tolist() == [1, 1, 1]


def test_what_is_no_optimizer(path: Path) -> None:
    for wrong in ({"w": np.ones(3)}, None, Link(W=2)):
        with pytest.raises(TypeError, match="an optimizer of fastadam's is wanted"):
            fastadam.save(path, wrong)
        with pytest.raises(TypeError, match="an optimizer of fastadam's is wanted"):
            fastadam.load(path, wrong)


@pytest.mark.parametrize(
    "value",
    [
        np.array(["a", "abc"], "U10"),
        np.empty(0, "U5"),
        np.array([b"a", b"abc"], "S10"),
        np.array(["ä", "\n"]),
        b"",
        "",
    ],
)
def test_strings(path: Path, value: Any) -> None:
    def made() -> Any:
        link = Link(W=2)
        link.W.array[...] = 1
        link.add_persistent("p", value)
        return link

    opt = fastadam.Adam().setup(made())
    fastadam.save(path, opt)
    other = made()
    fastadam.load(path, fastadam.Adam().setup(other))
    assert np.array_equal(other.p, value)


@pytest.mark.parametrize("name", ["a\udc80", "a\0b", "."])
def test_names_that_cannot_be_saved(path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="is no name for a value"):
        fastadam.Adam().setup({name: {"w": np.ones(3)}})
    link = Link(W=2)
    link.W.array[...] = 1
    link.add_persistent(name, 1)
    with pytest.raises(ValueError, match="cannot save") as raised:
        fastadam.save(path, fastadam.Adam().setup(link))
    assert repr(name).strip("'") in str(raised.value)
    assert not list(path.parent.iterdir())


def test_dtypes_that_files_do_not_know(tmp_path: Path) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    link = Link(W=2)
    link.W.array[...] = 1
    link.add_persistent("p", np.ones(3, ml_dtypes.float8_e4m3fn))
    with pytest.raises(TypeError, match="float8"):
        fastadam.save(tmp_path / "run.npz", fastadam.Adam().setup(link))
    assert not list(tmp_path.iterdir())
