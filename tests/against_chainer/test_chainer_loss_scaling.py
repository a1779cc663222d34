"""Loss scaling beside Chainer's: the same scales, counts and bits; its faults, and ours gone."""

from __future__ import annotations

import copy
import io
import math
import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastadam

chainer = pytest.importorskip("chainer", reason="needs Chainer 7.8.1 on NumPy 1.26")

HYPER = {"alpha": 0.02, "beta1": 0.8, "beta2": 0.95, "eps": 1e-3, "eta": 0.7}
LIBRARIES = {"fastadam": fastadam, "chainer": chainer}


def a_chain(dtype: str = "float32", names: str = "ab", n: int = 3) -> Any:
    """One of Chainer's own chains."""
    chain = chainer.Chain()
    with chain.init_scope():
        for i, name in enumerate(names):
            array = np.linspace(-1, 1 + i, n).astype(dtype)
            setattr(chain, name, chainer.Parameter(array))
    return chain


def loss_of(chain: Any, gradients: dict[str, np.ndarray]) -> Any:
    """A loss whose gradients are the given arrays."""
    parts = [chainer.functions.sum(getattr(chain, k) * g) for k, g in gradients.items()]
    return sum(parts[1:], parts[0])


def pair(kind: str = "AdamW", dtype: str = "float32", names: str = "ab", **more: Any) -> list[Any]:
    """An optimizer of each library on a chain of its own."""
    arguments = {**HYPER, **({"weight_decay_rate": 0.01} if kind == "AdamW" else {}), **more}
    optimizers = (module.optimizers for module in LIBRARIES.values())
    return [getattr(o, kind)(**arguments).setup(a_chain(dtype, names)) for o in optimizers]


def step(opt: Any, gradients: dict[str, np.ndarray]) -> list[str]:
    """Make an update; return the warnings' messages."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        opt.update(loss_of, opt.target, gradients)
    return [str(w.message) for w in caught]


def same(ours: Any, theirs: Any) -> None:
    """Compare every bit and count of two optimizers."""
    assert (ours.t, ours._loss_scale) == (theirs.t, theirs._loss_scale)
    pairs = zip(ours.target.params(), theirs.target.params(), strict=True)
    for mine, param in pairs:
        assert mine.array.tobytes() == param.array.tobytes()
        assert mine.update_rule.t == param.update_rule.t
        states = mine.update_rule.state, param.update_rule.state
        assert (states[0] is None) == (states[1] is None)
        for key in states[1] or {}:
            assert states[0][key].tobytes() == states[1][key].tobytes()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_documented_trace(dtype: str) -> None:
    ours, theirs = pair(dtype=dtype)
    scales, counts = [], []
    for opt in (ours, theirs):
        opt.loss_scaling(interval=10)
    for call in range(1, 21):
        bad = math.nan if call == 18 else 0.5
        gradients = {"a": np.array([0.25, bad, 2], dtype), "b": np.array([1, 0.1, -3], dtype)}
        counts.append([len(step(opt, gradients)) for opt in (ours, theirs)])
        same(ours, theirs)
        scales.append(ours.loss_scale)
    powers = [2.0**k for k in range(1, 16)]
    assert scales[:18] == [*powers, 65504, 65504, 32752]
    assert [round(scale, 2) for scale in scales[18:]] == [35102.72, 37622.17]
    assert counts == [[0, 0]] * 17 + [[1, 1]] + [[0, 0]] * 2
    assert (ours.t, ours.target.a.update_rule.t) == (20, 19)


@pytest.mark.parametrize("interval", [1, 7, 100])
@pytest.mark.parametrize("kind", ["Adam", "AMSGrad", "AdaBound"])
def test_random_steps(kind: str, interval: int) -> None:
    """NaN and infinities at random; Chainer's parameters and states, bit for bit."""
    dice = random.Random(interval)
    ours, theirs = pair(kind, names="abc")
    for opt in (ours, theirs):
        opt.loss_scaling(interval=interval)
    skipped = 0
    for i in range(400):
        gradients = {}
        for name in "abc":
            values = [dice.gauss(0, 1) for _ in range(3)]
            if dice.random() < (0.1 if i % 100 < 50 else 0.005):
                values[dice.randrange(3)] = dice.choice([math.nan, math.inf, -math.inf])
            gradients[name] = np.array(values, np.float32)
        messages = [step(opt, gradients) for opt in (ours, theirs)]
        assert len(messages[0]) == len(messages[1])
        skipped += bool(messages[0])
        assert ours.last_update.skipped == bool(messages[0])
        assert ours.is_safe_to_update() == theirs.is_safe_to_update()
        same(ours, theirs)
    assert 20 < skipped < 200
    assert ours.target.a.update_rule.t == 400 - skipped


@pytest.mark.parametrize("scale", [1, 8.0, 3.7, 1000, 65504.0, 0.3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_static_scales(dtype: str, scale: float) -> None:
    ours, theirs = pair(dtype=dtype)
    for opt in (ours, theirs):
        opt.set_loss_scale(scale)
    dice = np.random.RandomState(0)
    for _ in range(30):
        gradients = {name: dice.normal(size=3).astype(dtype) for name in "ab"}
        for opt in (ours, theirs):
            assert step(opt, gradients) == []
        same(ours, theirs)


@pytest.mark.parametrize("library", LIBRARIES)
def test_refused_arguments(library: str) -> None:
    """The same types of exceptions in both libraries."""
    opt = LIBRARIES[library].optimizers.Adam()
    for arguments in ({"interval": 0}, {"interval": -1}, {"scale": 0}, {"scale": -1.0}):
        with pytest.raises(ValueError, match=r"interval|scale"):
            opt.loss_scaling(**arguments)
    with pytest.raises(ValueError, match="scale"):
        opt.set_loss_scale(0)


# What follows are Chainer's faults: each test shows both sides.


@pytest.mark.parametrize("library", LIBRARIES)
def test_static_after_dynamic(library: str) -> None:
    opt = LIBRARIES[library].optimizers.Adam(**HYPER).setup(a_chain())
    opt.loss_scaling()
    opt.loss_scaling(scale=128)
    gradients = {name: np.ones(3, "float32") for name in "ab"}
    step(opt, gradients)
    # Chainer's goes on doubling
    assert opt._loss_scale == (128 if library == "fastadam" else 256)
    assert opt._loss_scaling_is_dynamic is (library != "fastadam")


@pytest.mark.parametrize("library", LIBRARIES)
def test_is_safe_to_update_before_the_first_update(library: str) -> None:
    opt = LIBRARIES[library].optimizers.Adam().setup(a_chain())
    if library == "chainer":
        with pytest.raises(AttributeError):
            opt.is_safe_to_update()
    else:
        assert opt.is_safe_to_update() is True


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_second_update_without_a_backward_pass(library: str) -> None:
    chain = a_chain(names="a")
    opt = LIBRARIES[library].optimizers.Adam(**HYPER).setup(chain)
    opt.set_loss_scale(10)
    step(opt, {"a": np.full(3, 10, "float32")})
    seen = [chain.a.grad.tolist()]
    for _ in range(2):
        opt.update()
        seen.append(chain.a.grad.tolist())
    expected = [10, 10, 10] if library == "fastadam" else [10, 1, 0.1]
    assert [values[0] for values in seen] == pytest.approx(expected)
    assert chain.a._loss_scale == (None if library == "fastadam" else 10)


HOOKS: dict[str, tuple[Any, float, float]] = {
    "WeightDecay": ((1.0,), 3.0, 3.0),
    "Lasso": ((1.0,), 3.0, 2 + 1 / 1024),
    "GradientHardClipping": ((-1.0, 1.0), 1.0, 1 / 1024),
    "GradientClipping": ((1.0,), 0.57735, 0.57735 / 1024),
}


@pytest.mark.parametrize("hooks", LIBRARIES)
@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("name", HOOKS)
def test_hooks_of_an_optimizer_see_true_gradients(name: str, library: str, hooks: str) -> None:
    """With either library's hooks on fastadam's optimizer; Chainer's sees them times 1024."""
    if (library, hooks) == ("chainer", "fastadam"):
        expected = HOOKS[name][1]  # fastadam's hooks divide where Chainer's optimizer has not
    else:
        expected = HOOKS[name][1 if library == "fastadam" else 2]
    chain = a_chain(names="a")
    chain.a.array[...] = 1
    opt = LIBRARIES[library].optimizers.Adam(**HYPER).setup(chain)
    opt.set_loss_scale(1024)
    opt.add_hook(getattr(LIBRARIES[hooks].optimizer_hooks, name)(*HOOKS[name][0]))
    step(opt, {"a": np.full(3, 2, "float32")})
    assert chain.a.grad.tolist() == pytest.approx([expected] * 3, rel=1e-5)


@pytest.mark.parametrize("library", LIBRARIES)
def test_weight_decay_of_a_rule_at_scale_1024(library: str) -> None:
    """Chainer's hook multiplies its rate by a scale that has been divided out: 1026, not 3."""
    chain = a_chain(names="a")
    chain.a.array[...] = 1
    opt = LIBRARIES[library].optimizers.Adam(**HYPER).setup(chain)
    opt.set_loss_scale(1024)
    chain.a.update_rule.add_hook(chainer.optimizer_hooks.WeightDecay(1.0))
    step(opt, {"a": np.full(3, 2, "float32")})
    assert chain.a.grad.tolist() == [3 if library == "fastadam" else 1026] * 3


@pytest.mark.parametrize("library", LIBRARIES)
def test_dynamic_scaling_with_uninitialised_parameters(library: str) -> None:
    chain = a_chain(names="a")
    with chain.init_scope():
        chain.lazy = chainer.Parameter(0.0)
    opt = LIBRARIES[library].optimizers.Adam(**HYPER).setup(chain)
    opt.loss_scaling()
    if library == "chainer":
        with pytest.raises(TypeError):
            step(opt, {"a": np.ones(3, "float32")})
    else:
        assert step(opt, {"a": np.ones(3, "float32")}) == []
        assert (opt.loss_scale, chain.a.update_rule.t) == (2, 1)


@pytest.mark.parametrize("library", LIBRARIES)
def test_dynamic_scaling_with_disabled_parameters(library: str) -> None:
    chain = a_chain()
    opt = LIBRARIES[library].optimizers.Adam(**HYPER).setup(chain)
    opt.loss_scaling()
    chain.b.update_rule.enabled = False
    messages = step(opt, {"a": np.ones(3, "float32"), "b": np.full(3, np.nan, "float32")})
    assert chain.a.update_rule.t == (1 if library == "fastadam" else 0)
    assert len(messages) == (0 if library == "fastadam" else 1)


# Files


def trained(kind: str = "AdamW", calls: int = 12) -> Any:
    """fastadam's optimizer of one of Chainer's chains, with a dynamic scale that has grown."""
    opt, _ = pair(kind)
    opt.loss_scaling(interval=10)
    train(opt, range(calls))
    return opt


def train(opt: Any, calls: range) -> None:
    """Make updates with gradients that are NaN in call 7."""
    for call in calls:
        dice = np.random.RandomState(call)
        gradients = {name: dice.normal(size=3).astype("float32") for name in "ab"}
        if call == 7:
            gradients["b"][1] = np.nan
        step(opt, gradients)


@pytest.mark.parametrize("format_", ["npz", "hdf5"])
@pytest.mark.parametrize("saver", LIBRARIES)
@pytest.mark.parametrize("loader", LIBRARIES)
def test_resumed_equals_uninterrupted(
    loader: str, saver: str, format_: str, tmp_path: Path
) -> None:
    """By either library's functions; the file has what Chainer's optimizers do not save."""
    if format_ == "hdf5":
        pytest.importorskip("h5py", reason="needs h5py")
    save = getattr(LIBRARIES[saver].serializers, f"save_{format_}")
    load = getattr(LIBRARIES[loader].serializers, f"load_{format_}")
    opt = trained()
    assert opt.loss_scale == pytest.approx(2.0**6 * 2**0.4)
    save(str(tmp_path / "opt"), opt)
    save(str(tmp_path / "model"), opt.target)
    chain = a_chain()
    again = fastadam.AdamW(**HYPER, weight_decay_rate=0.01).setup(chain)
    again.loss_scaling(interval=77)
    load(str(tmp_path / "opt"), again)
    load(str(tmp_path / "model"), chain)
    assert (again.loss_scale, again.t) == (opt.loss_scale, 12)
    for one in (opt, again):
        train(one, range(12, 30))
    same(again, opt)
    assert again._loss_scaling_isnan_ever is True
    assert again == opt


def test_chainer_reads_the_file_and_passes_over_the_scale() -> None:
    opt = trained()
    file = io.BytesIO()
    fastadam.serializers.save_npz(file, opt)
    file.seek(0)
    theirs = chainer.optimizers.AdamW(**HYPER, weight_decay_rate=0.01)
    theirs.setup(copy.deepcopy(opt.target))
    file.seek(0)
    chainer.serializers.load_npz(file, theirs)
    assert (theirs.t, theirs._loss_scale) == (12, None)
    theirs.target.copyparams(opt.target)
    opt.loss_scale = None
    for one in (opt, theirs):
        train(one, range(20, 25))
    same(opt, theirs)


@pytest.mark.parametrize("loader", LIBRARIES)
def test_a_file_without_a_scale_leaves_the_scale(loader: str) -> None:
    _, theirs = pair()
    theirs.loss_scaling(interval=10)
    train(theirs, range(12))
    file = io.BytesIO()
    chainer.serializers.save_npz(file, theirs)
    file.seek(0)
    opt = fastadam.AdamW(**HYPER, weight_decay_rate=0.01).setup(copy.deepcopy(theirs.target))
    opt.loss_scaling(interval=10)
    opt._loss_scale = theirs._loss_scale
    opt._loss_scaling_isnan_ever = True
    LIBRARIES[loader].serializers.load_npz(file, opt)
    same(opt, theirs)
    for one in (opt, theirs):
        train(one, range(12, 30))
    same(opt, theirs)
