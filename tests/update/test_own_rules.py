"""A user's own SGD, alone and beside Adam's rules: everything around a rule works for it, too."""

from __future__ import annotations

import copy
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastadam
from fastadam import GradientMethod, UpdateRule, serializers
from fastadam.optimizer_hooks import GradientClipping, WeightDecay

HYPER = {"alpha": 0.05, "beta1": 0.8, "beta2": 0.95, "eps": 1e-3, "eta": 0.7}


class SGDRule(fastadam.UpdateRule):
    """Gradient descent with momentum, as a user writes it."""

    def __init__(self, parent: Any = None, lr: float | None = None) -> None:
        super().__init__(parent)
        if lr is not None:
            self.hyperparam.lr = lr

    def init_state(self, param: Any) -> None:
        self.state["velocity"] = np.zeros_like(param.array)

    def update_core_cpu(self, param: Any) -> None:
        velocity = self.state["velocity"]
        velocity *= self.hyperparam.momentum
        velocity -= self.hyperparam.lr * param.grad
        param.array += velocity


class SGD(fastadam.GradientMethod):
    """Its optimizer."""

    lr = fastadam.HyperparameterProxy("lr")

    def __init__(self, lr: float = 0.1, momentum: float = 0.5) -> None:
        super().__init__()
        self.hyperparam.lr, self.hyperparam.momentum = lr, momentum

    def create_update_rule(self) -> SGDRule:
        return SGDRule(self.hyperparam)


def descend(p: float, gradients: list[float], lr: float = 0.1, momentum: float = 0.5) -> float:
    """The formula for one number."""
    velocity = 0.0
    for g in gradients:
        velocity = velocity * momentum - lr * g
        p += velocity
    return p


GRADIENTS = [0.5, -2.0, 1.25, 3.0]
EXPECTED = descend(1.0, GRADIENTS)


def test_an_array() -> None:
    w = np.ones(3)
    opt = SGD().setup(w)
    for g in GRADIENTS:
        opt.apply_gradients(np.full(3, g))
    assert w.tolist() == [EXPECTED] * 3
    assert opt.last_update.applied == ("param",)
    assert opt.parameters["param"].update_rule.t == opt.t == 4


def test_a_dict_with_a_loss_function() -> None:
    params = {"w": np.ones((2, 2)), "inner": {"b": np.ones(())}}
    opt = SGD().setup(params)
    for g in GRADIENTS:
        loss = opt.update(lambda p, g=g: (g, {"w": p["w"] * 0 + g, "inner": {"b": g}}), params)
        assert loss == g
    assert params["w"].tolist() == [[EXPECTED] * 2] * 2
    assert params["inner"]["b"] == EXPECTED
    # one rate for one of them
    assert opt.set_hyperparam("inner/*", lr=0.0) == ["inner/b"]
    opt.lr = 0.5
    before = params["w"].copy(), float(params["inner"]["b"])
    velocities = [param.update_rule.state["velocity"].copy() for param in opt.parameters.values()]
    opt.apply_gradients({"w": np.ones((2, 2)), "inner": {"b": 1.0}})
    np.testing.assert_array_equal(params["w"], before[0] + (velocities[0] * 0.5 - 0.5))
    assert params["inner"]["b"] == before[1] + velocities[1] * 0.5


def a_link(dtype: Any = np.float64) -> fastadam.Link:
    """A link with three parameters."""
    link = fastadam.Link()
    with link.init_scope():
        for name in "abc":
            setattr(link, name, fastadam.Parameter(np.ones(2, dtype)))
    return link


def backward(link: fastadam.Link, g: float, scale: float | None = None) -> None:
    """Leave gradients as a backward pass with a loss scale does."""
    for param in link.params():
        param.grad = np.full(2, g * (scale or 1), param.dtype)
        param._loss_scale = scale


def test_a_link_with_hooks() -> None:
    link = a_link()
    opt = SGD(momentum=0.0).setup(link)
    opt.add_hook(WeightDecay(0.25))
    opt.add_hook(GradientClipping(math.sqrt(6) / 2))
    calls = []
    link.b.update_rule.add_hook(lambda rule, param: calls.append(param.name), "post", "post")
    backward(link, 1.75)
    opt.update()
    # 1.75 + 0.25 * 1 clipped to 0.5
    for param in link.params():
        assert param.array.tolist() == pytest.approx([1 - 0.1 * 0.5] * 2, rel=1e-15)
    assert calls == ["b"]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_loss_scaling(dtype: str) -> None:
    """The rule's core and hooks see true gradients; a bad one skips them."""
    link, plain = a_link(dtype), a_link(dtype)
    opt, other = SGD().setup(link), SGD().setup(plain)
    opt.loss_scaling(interval=10)
    seen = []
    link.a.update_rule.add_hook(lambda rule, param: seen.append(param.grad.tolist()), "look")
    for i, g in enumerate(GRADIENTS):
        backward(link, g, opt.loss_scale)
        if i == 2:
            link.c.grad[0] = np.inf
            with pytest.warns(UserWarning, match="'c'"):
                opt.update()
            assert opt.last_update.nonfinite == ("c",)
            continue
        opt.update()
        backward(plain, g)
        other.update()
    for mine, theirs in zip(link.params(), plain.params(), strict=True):
        assert mine.array.astype(float) == pytest.approx(theirs.array.astype(float), rel=2e-3)
        assert (mine.update_rule.t, theirs.update_rule.t) == (3, 3)
        if dtype != "float16":  # whose scaled gradients are used in float32 here
            assert mine.array.tolist() == theirs.array.tolist()
    assert seen == [[g, g] for g in (0.5, -2.0, 3.0)]
    assert opt.t == 4


def test_fp32_update() -> None:
    link, full = a_link(np.float16), a_link(np.float32)
    opt, other = SGD(lr=1e-5, momentum=0.9).setup(link), SGD(lr=1e-5, momentum=0.9).setup(full)
    opt.use_fp32_update()
    for i in range(300):
        for one in (link, full):
            backward(one, 0.25 * (i % 4))
        opt.update()
        other.update()
    for mine, theirs in zip(link.params(), full.params(), strict=True):
        assert mine.array.dtype == np.float16
        assert mine.update_rule._fp32_param.array.tolist() == theirs.array.tolist()
        assert mine.array.tolist() == theirs.array.astype(np.float16).tolist()
        assert mine.update_rule.state["velocity"].dtype == np.float32
        assert mine.array[0] < 1


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("format_", ["npz", "hdf5"])
def test_saved_and_resumed(format_: str, dtype: str, tmp_path: Path) -> None:
    if format_ == "hdf5":
        pytest.importorskip("h5py", reason="needs h5py")
    save = getattr(fastadam.serializers, f"save_{format_}")
    load = getattr(fastadam.serializers, f"load_{format_}")
    link = a_link(dtype)
    opt = SGD(lr=1e-3).setup(link)
    opt.use_fp32_update()
    opt.loss_scaling(interval=5)
    for g in GRADIENTS:
        backward(link, g, opt.loss_scale)
        opt.update()
    save(tmp_path / "link", link)
    save(tmp_path / "opt", opt)
    again = a_link(dtype)
    other = SGD(lr=1e-3).setup(again)
    other.use_fp32_update()
    load(tmp_path / "link", again)
    load(tmp_path / "opt", other)
    assert other == opt
    for one, target in ((opt, link), (other, again)):
        backward(target, 0.75, one.loss_scale)
        one.update()
    for mine, theirs in zip(link.params(), again.params(), strict=True):
        ours, others = mine.update_rule, theirs.update_rule
        assert (ours._fp32_param is None) == (dtype != "float16")
        if ours._fp32_param is not None:
            assert ours._fp32_param.array.tolist() == others._fp32_param.array.tolist()
        assert mine.array.tolist() == theirs.array.tolist()
        assert ours.state["velocity"].tolist() == others.state["velocity"].tolist()
    assert other.loss_scale == opt.loss_scale == 32


def mixed(params: dict[str, np.ndarray], **attributes: Any) -> Any:
    """Adam with the user's rule for 'b' and 'd'."""
    opt = fastadam.AdamW(**HYPER, weight_decay_rate=0.01).setup(params)
    for path in ("b", "d"):
        rule = SGDRule(opt.hyperparam, lr=0.1)
        # Adam's own hyperparameters know no other names
        rule.hyperparam.momentum = 0.5
        opt.parameters[path].update_rule = rule
    for name, value in attributes.items():
        setattr(opt, name, value)
    return opt


def test_beside_adam_each_rule_does_its_own() -> None:
    params = {name: np.ones(2) for name in "abcd"}
    alone = {name: np.ones(2) for name in "ac"}
    opt, adam = mixed(params), fastadam.AdamW(**HYPER, weight_decay_rate=0.01).setup(alone)
    for g in GRADIENTS:
        opt.apply_gradients({name: np.full(2, g) for name in "abcd"})
        adam.apply_gradients({name: np.full(2, g) for name in "ac"})
        assert opt.last_update.applied == ("a", "b", "c", "d")
    for name in "ac":
        assert params[name].tolist() == alone[name].tolist()
        assert set(opt.parameters[name].update_rule.state) == {"m", "v"}
    for name in "bd":
        assert params[name].tolist() == [EXPECTED] * 2
        assert set(opt.parameters[name].update_rule.state) == {"velocity"}


def test_beside_adam_with_scaling_hooks_and_a_disabled_rule() -> None:
    params = {name: np.ones(2, np.float16) for name in "abcd"}
    opt = mixed(params, on_nonfinite="skip")
    opt.use_fp32_update()
    opt.add_hook(WeightDecay(1.0))
    opt.parameters["d"].update_rule.enabled = False
    scaled = {name: np.full(2, 2.0 * 1024, np.float16) for name in "abcd"}
    opt.apply_gradients(scaled, loss_scale=1024)
    # 3 is 2 + 1 * 1, not multiplied by the scale, for either kind of rule
    assert opt.parameters["b"].update_rule._fp32_param.array.tolist() == pytest.approx([0.7] * 2)
    m = opt.parameters["a"].update_rule.state["m"]
    assert m.tolist() == pytest.approx([(1 - 0.8) * 3] * 2, rel=1e-6)
    assert params["d"].tolist() == [1, 1]
    before = copy.deepcopy(params)
    opt.apply_gradients({**scaled, "b": np.full(2, np.inf)}, loss_scale=1024)
    for name in "abcd":
        assert params[name].tolist() == before[name].tolist()
    assert [param.update_rule.t for param in opt.parameters.values()] == [1, 1, 1, 0]


def test_beside_adam_saved_and_resumed(tmp_path: Path) -> None:
    params = {name: np.ones(2) for name in "abcd"}
    opt = mixed(params)
    for g in GRADIENTS:
        opt.apply_gradients({name: np.full(2, g) for name in "abcd"})
    fastadam.serializers.save_npz(tmp_path / "opt.npz", opt)
    with np.load(tmp_path / "opt.npz") as stored:
        assert {"a/m", "a/v", "b/velocity", "b/t", "t"} <= set(stored)
        assert "b/m" not in stored
    other = mixed(copy.deepcopy(params))
    fastadam.serializers.load_npz(tmp_path / "opt.npz", other)
    for one in (opt, other):
        one.apply_gradients({name: np.full(2, 0.1) for name in "abcd"})
    for name in "abcd":
        assert other.target[name].tolist() == params[name].tolist()
    assert other == opt


def test_a_refusal_of_adam_stops_the_users_rule_and_the_other_way_round() -> None:
    params = {name: np.ones(2) for name in "abcd"}
    opt = mixed(params)
    opt.parameters["c"].update_rule.hyperparam.eps = 1e-400 + 5e-324
    params["c"].flags.writeable = False
    with pytest.raises(ValueError, match="'c'"):
        opt.apply_gradients({name: np.ones(2) for name in "abcd"})
    assert [params[name].tolist() for name in "abcd"] == [[1, 1]] * 4
    assert [param.update_rule.t for param in opt.parameters.values()] == [0] * 4
    params["c"].flags.writeable = True
    del opt.parameters["c"].update_rule.hyperparam.eps
    # the user's rule has no check: Adam's batch has been made when it raises
    opt.parameters["b"].update_rule.hyperparam.momentum = "much"
    with pytest.raises(TypeError):
        opt.apply_gradients({name: np.ones(2) for name in "abcd"})
    assert opt.last_update.applied == ("a", "c")
    assert [param.update_rule.t for param in opt.parameters.values()] == [1, 0, 1, 0]
    assert params["b"].tolist() == [1, 1]


def test_a_rule_without_a_core() -> None:
    class Empty(fastadam.GradientMethod):
        def create_update_rule(self) -> fastadam.UpdateRule:
            return fastadam.UpdateRule(self.hyperparam)

    w = np.ones(2)
    opt = Empty().setup(w)
    with pytest.raises(NotImplementedError, match="update_core"):
        opt.apply_gradients(np.ones(2))
    assert (opt.t, opt.parameters["param"].update_rule.t) == (0, 0)
    with pytest.raises(NotImplementedError, match="create_update_rule"):
        fastadam.GradientMethod().setup(np.ones(2))


class RebindingRule(UpdateRule):
    """Plain gradient descent by a rule that makes a new array in every step."""

    def update_core(self, param: Any) -> None:
        param.array = param.array - param.array.dtype.type(0.5) * param.grad


class Rebinding(GradientMethod):
    def create_update_rule(self) -> RebindingRule:
        return RebindingRule(self.hyperparam)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(), (2,), (0,), (2, 3)])
def test_a_rule_that_rebinds_trains_the_callers_array(dtype: Any, shape: tuple[int, ...]) -> None:
    w = np.ones(shape, dtype)
    params = {"w": w}
    opt = Rebinding().setup(params)
    for _ in range(2):
        opt.apply_gradients({"w": np.full(shape, 0.25, dtype)})
    assert params["w"] is w
    assert opt.parameters["w"].array is w
    np.testing.assert_array_equal(w, np.full(shape, 0.75))


def test_an_array_given_to_a_parameter_goes_into_the_callers() -> None:
    w = np.ones(2)
    opt = Rebinding().setup({"w": w})
    opt.parameters["w"].array = np.array([5.0, 6.0])
    opt.apply_gradients({"w": np.ones(2)})
    np.testing.assert_array_equal(w, [4.5, 5.5])
    opt.parameters["w"].array = np.ones(3)
    with pytest.raises(ValueError, match=r"'w'.*\(3,\).*\(2,\)"):
        opt.apply_gradients({"w": np.ones(2)})


class WideningRule(UpdateRule):
    """Keeps what arithmetic makes of a half-precision state: float32."""

    def init_state(self, param: Any) -> None:
        assert self.state is not None
        self.state["mean"] = np.zeros_like(param.array)

    def update_core(self, param: Any) -> None:
        assert self.state is not None
        self.state["mean"] = self.state["mean"] * np.float32(0.9) + param.grad
        param.array -= (0.01 * self.state["mean"]).astype(param.array.dtype)


class Widening(GradientMethod):
    def create_update_rule(self) -> WideningRule:
        return WideningRule(self.hyperparam)


def test_state_that_has_become_float32_is_resumed_as_it_was() -> None:
    def run(opt: Any, steps: range) -> None:
        for step in steps:
            opt.apply_gradients(np.full(3, 0.1 + step, np.float32))

    whole, first, second = (np.ones(3, np.float16) for _ in range(3))
    straight, before = Widening().setup(whole), Widening().setup(first)
    run(straight, range(6))
    run(before, range(3))
    file = io.BytesIO()
    serializers.save_npz(file, before)
    file.seek(0)
    second[...] = first
    after = Widening().setup(second)
    serializers.load_npz(file, after)
    run(after, range(3, 6))
    assert second.tobytes() == whole.tobytes()
    state = [opt.parameters["param"].update_rule.state["mean"] for opt in (after, straight)]
    assert state[0].dtype == np.float32
    assert state[0].tobytes() == state[1].tobytes()


def test_complex_gradients_are_refused_where_real_ones_are_needed() -> None:
    w = np.ones(2, np.complex128)
    opt = Rebinding().setup(w)
    opt.on_nonfinite = "raise"
    with pytest.raises(TypeError, match=r"complex128.*real"):
        opt.update(lambda params: (0.0, np.full(2, 1j)), w)
    np.testing.assert_array_equal(w, [1, 1])
