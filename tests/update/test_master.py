"""Float32 masters: small steps add up, outside writes go over, files and switches lose nothing."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastadam
from fastadam.serializers import load_npz, save_npz
from fastadam.update.master import follow

HYPER = {"alpha": 1e-3, "beta1": 0.8, "beta2": 0.95, "eps": 1e-5, "eta": 0.7}
HALF = ("float16", "bfloat16")
VARIANTS = ("Adam", "AdamW", "AMSGrad", "AdaBound", "AMSBound")


def dtype_of(name: str) -> np.dtype:
    """The dtype of a name, or a skip where bfloat16 is not to be had."""
    if name == "bfloat16":
        reason = "needs ml_dtypes, which has bfloat16"
        return np.dtype(pytest.importorskip("ml_dtypes", reason=reason).bfloat16)
    return np.dtype(name)


def bits(array: np.ndarray) -> list[int]:
    """The pattern of every element, so that NaN and -0.0 count."""
    return np.ascontiguousarray(array).view(f"u{array.itemsize}").ravel().tolist()


def nothing(rule: Any, param: Any) -> None:
    """A hook that makes a rule update by itself, outside of the batch."""


def optimizer(kind: str = "AdamW", **more: Any) -> Any:
    """An optimizer with hyperparameters of its own."""
    decay = {"weight_decay_rate": 0.01, "decay_mode": "eta"} if kind in ("Adam", "AdamW") else {}
    arguments = {**HYPER, **decay}
    return getattr(fastadam, kind)(**{**arguments, **more})


def rule_of(opt: Any, path: str = "w") -> Any:
    """The rule of one parameter."""
    return opt.parameters[path].update_rule


def gradients(n: int, seed: int = 0) -> list[np.ndarray]:
    """Some float32 gradients of five elements."""
    random = np.random.default_rng(seed)
    return list(random.normal(size=(n, 5)).astype(np.float32))


@pytest.mark.parametrize("by_itself", [False, True])
@pytest.mark.parametrize("kind", VARIANTS)
@pytest.mark.parametrize("dtype", HALF)
def test_the_master_is_what_float32_gives(dtype: str, kind: str, by_itself: bool) -> None:
    """Bit for bit, in every variant, in the batch and alone; the parameter is it, rounded."""
    half = np.linspace(-2, 2, 5).astype(dtype_of(dtype))
    full = half.astype(np.float32)
    opt, other = optimizer(kind).setup({"w": half}), optimizer(kind).setup({"w": full})
    opt.use_fp32_update()
    other.use_fp32_update()  # without any effect
    if by_itself:
        rule_of(opt).add_hook(nothing)
    for gradient in gradients(50):
        given = gradient.astype(half.dtype)
        opt.apply_gradients({"w": given})
        other.apply_gradients({"w": given.astype(np.float32)})
        master = rule_of(opt)._fp32_param.array
        assert master.dtype == np.float32
        assert bits(master) == bits(full)
        assert bits(half) == bits(full.astype(half.dtype))
    for key, value in rule_of(other).state.items():
        assert bits(rule_of(opt).state[key]) == bits(value)
        assert rule_of(opt).state[key].dtype == np.float32
    assert rule_of(other)._fp32_param is None
    assert opt.target["w"] is half


@pytest.mark.parametrize("dtype", HALF)
def test_small_steps_add_up(dtype: str) -> None:
    """A step of 1e-5 is below half of the last digit of 1; a thousand of them are not."""
    for fp32, expected in ((False, 1.0), (True, 0.99)):
        w = np.ones(3, dtype_of(dtype))
        opt = fastadam.Adam(alpha=1e-5).setup({"w": w})
        opt.use_fp32_update(fp32)
        for _ in range(1000):
            opt.apply_gradients({"w": np.ones(3, np.float32)})
        assert w.astype(float) == pytest.approx([expected] * 3, abs=2e-3 if fp32 else 0)


def test_what_is_written_is_told_by_its_bits() -> None:
    """A zero of the other sign is another number than the master's, which rounds to zero."""
    master = fastadam.Parameter(np.array([1e-9, 1e-9, -1e-9, np.nan], np.float32))
    half = np.array([0.0, -0.0, 0.0, np.nan], np.float16)
    followed = follow(master, fastadam.Parameter(half)).array
    assert bits(followed[:3]) == bits(np.array([1e-9, -0.0, 0.0], np.float32))
    assert np.isnan(followed[3])


def test_another_master_is_stepped_from_then_on() -> None:
    """Also between two updates that nothing else has changed for."""
    halves, opts = [], []
    for _ in range(2):
        halves.append({"w": np.ones(5, np.float16)})
        opts.append(started(halves[-1]))
    for i, opt in enumerate(opts):
        master = rule_of(opt)._fp32_param
        rule_of(opt)._fp32_param = copy.deepcopy(master)
        # what the plan was made with is not looked at any more
        master.array[...] = 7
        if i:
            # nothing is kept
            opt._plan = None
    for gradient in gradients(3, 2):
        for opt in opts:
            opt.apply_gradients({"w": gradient})
    assert not fastadam.compare(*opts)
    assert bits(halves[0]["w"]) == bits(halves[1]["w"])
    assert np.all(halves[0]["w"] < 2)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_float32_and_float64_are_unaffected(dtype: str) -> None:
    arrays = [np.ones(3, dtype), np.ones(3, dtype)]
    optimizers = [optimizer().setup({"w": array}) for array in arrays]
    optimizers[0].use_fp32_update()
    for opt in optimizers:
        for gradient in gradients(3):
            opt.apply_gradients({"w": gradient[:3]})
    assert bits(arrays[0]) == bits(arrays[1])
    assert rule_of(optimizers[0])._fp32_param is None
    assert rule_of(optimizers[0]).state["m"].dtype == dtype


def started(target: Any, n: int = 40, **more: Any) -> Any:
    """An optimizer with masters that have digits which the parameters lack."""
    opt = optimizer(**more).setup(target)
    opt.use_fp32_update()
    for gradient in gradients(n):
        opt.apply_gradients({"w": gradient})
    return opt


# Each writes 3.0, 4.0 to the elements 1 and 3 of a link's parameter w, from outside.
def in_place(link: fastadam.Link) -> None:
    link.w.array[1::2] = [3, 4]


def another_array(link: fastadam.Link) -> None:
    array = link.w.array.copy()
    array[1::2] = [3, 4]
    link.w.array = array


def by_data(link: fastadam.Link) -> None:
    array = link.w.data.copy()
    array[1::2] = [3, 4]
    link.w.data = array


def by_copyparams(link: fastadam.Link) -> None:
    other = copy.deepcopy(link)
    in_place(other)
    link.copyparams(other)


def by_copydata(link: fastadam.Link) -> None:
    other = copy.deepcopy(link.w)
    other.array[1::2] = [3, 4]
    link.w.copydata(other)


def by_loading(link: fastadam.Link, path: Path = Path("model.npz")) -> None:
    other = copy.deepcopy(link)
    in_place(other)
    save_npz(path, other)
    load_npz(path, link)


WRITERS = [in_place, another_array, by_data, by_copyparams, by_copydata, by_loading]


@pytest.mark.parametrize("by_itself", [False, True])
@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("write", WRITERS)
def test_outside_writes_go_over_to_the_master(
    write: Any, dtype: str, by_itself: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chainer's masters are made once, and undo at the next update what was written since."""
    monkeypatch.chdir(tmp_path)
    link = fastadam.Link()
    with link.init_scope():
        link.w = fastadam.Parameter(np.full(5, 1.25, dtype_of(dtype)))
    opt = started(link)
    if by_itself:
        rule_of(opt).add_hook(nothing)
    write(link)
    assert link.w.array.astype(float)[1::2].tolist() == [3, 4]
    # what the next step is made on: the new values, and the old master between them
    expected = rule_of(opt)._fp32_param.array.copy()
    lost = expected - expected.astype(dtype_of(dtype)).astype(np.float32)
    assert np.all(lost[::2] != 0)
    expected[1::2] = [3, 4]
    other = optimizer().setup({"w": expected})
    rule, mine = rule_of(other), rule_of(opt)
    rule.t, other.t = mine.t, opt.t
    rule._state = copy.deepcopy(mine.state)
    opt.apply_gradients({"w": np.full(5, 0.25)})
    other.apply_gradients({"w": np.full(5, 0.25)})
    assert bits(mine._fp32_param.array) == bits(expected)
    assert bits(link.w.array) == bits(expected.astype(dtype_of(dtype)))


@pytest.mark.parametrize("dtype", HALF)
def test_rebinding_an_array_of_a_dict(dtype: str) -> None:
    params = {"w": np.ones(5, dtype_of(dtype))}
    opt = started(params)
    params["w"] = np.full(5, 3, dtype_of(dtype))
    opt.apply_gradients({"w": np.full(5, 0.25)})
    assert params["w"].astype(float) == pytest.approx([3] * 5, abs=0.05)
    assert rule_of(opt)._fp32_param.array == pytest.approx(params["w"].astype(float), rel=5e-3)


def test_writes_of_every_kind_of_number() -> None:
    """A write is told by its bits: NaN, zeros of the other sign, infinities, and none at all."""
    params = {"w": np.array([1, 1, 1, 1, 0], np.float16)}
    opt = started(params, 3)
    master = rule_of(opt)._fp32_param.array
    master[4] = 1e-9  # rounds to 0.0
    params["w"][:] = [np.nan, np.inf, 65504, params["w"][3], 0.0]
    kept = master[3:].copy()
    rule = rule_of(opt)
    rule.hyperparam.alpha = 0
    rule.hyperparam.weight_decay_rate = 0
    opt.apply_gradients({"w": np.zeros(5)})
    assert rule._fp32_param.array.tolist()[1:3] == [np.inf, 65504]
    assert np.isnan(rule._fp32_param.array[0])
    assert rule._fp32_param.array[3:].tolist() == kept.tolist()
    params["w"][4] = -0.0
    rule.state["m"][4] = 1  # the step subtracts +0.0, which leaves -0.0 as it is
    opt.apply_gradients({"w": np.zeros(5)})
    assert bits(rule._fp32_param.array)[4] == bits(np.array([-0.0], np.float32))[0]


def test_a_master_beyond_the_largest_float16() -> None:
    """The parameter is infinite then, and the master goes on."""
    w = np.full(1, 65504, np.float16)
    opt = fastadam.Adam(alpha=100.0).setup({"w": w})
    opt.use_fp32_update()
    opt.apply_gradients({"w": -np.ones(1)})
    assert rule_of(opt)._fp32_param.array[0] == pytest.approx(65604)
    assert w[0] == np.inf
    for _ in range(20):
        opt.apply_gradients({"w": np.ones(1)})
    assert w[0] < 65504


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("format_", ["npz", "hdf5"])
def test_resumed_equals_uninterrupted(dtype: str, format_: str, tmp_path: Path) -> None:
    """Bit for bit: the file has the master, whose digits the model's file lacks."""
    if format_ == "hdf5":
        pytest.importorskip("h5py", reason="needs h5py")
    save = getattr(fastadam.serializers, f"save_{format_}")
    load = getattr(fastadam.serializers, f"load_{format_}")

    def model() -> fastadam.Link:
        link = fastadam.Link()
        with link.init_scope():
            link.w = fastadam.Parameter(np.ones(5, dtype_of(dtype)))
            link.full = fastadam.Parameter(np.ones(2, np.float32))
        return link

    def train(opt: Any, steps: list[np.ndarray]) -> None:
        for gradient in steps:
            opt.apply_gradients({"w": gradient, "full": gradient[:2]})

    link = model()
    opt = optimizer(alpha=1e-4).setup(link)
    opt.use_fp32_update()
    train(opt, gradients(20))
    save(tmp_path / "model", link)
    save(tmp_path / "opt", opt)
    train(opt, gradients(20, 1))
    for order in ((0, 1), (1, 0)):
        other = model()
        resumed = optimizer(alpha=1e-4).setup(other)
        resumed.use_fp32_update()
        loads = [(tmp_path / "model", other), (tmp_path / "opt", resumed)]
        for i in order:
            load(*loads[i])
        train(resumed, gradients(20, 1))
        assert bits(other.w.array) == bits(link.w.array)
        assert resumed == opt
        ours, theirs = link.w.update_rule, other.w.update_rule
        assert bits(ours._fp32_param.array) == bits(theirs._fp32_param.array)
        for key in "mv":
            assert bits(ours.state[key]) == bits(theirs.state[key])
    # a file without masters is read, too: the step goes on from the rounded parameter
    other = model()
    resumed = optimizer(alpha=1e-4).setup(other)
    train(resumed, gradients(1))
    save(tmp_path / "without", resumed)
    resumed.use_fp32_update()
    train(resumed, gradients(1))
    load(tmp_path / "without", resumed)
    train(resumed, gradients(1))
    assert resumed.t == 2


def test_a_master_of_another_shape_is_refused(tmp_path: Path) -> None:
    opt = started({"w": np.ones(5, np.float16)})
    stored = fastadam.serializers.DictionarySerializer()
    stored.save(opt)
    stored.target["w/fp32_param"] = np.ones(4, np.float32)
    before = rule_of(opt)._fp32_param.array.copy()
    with pytest.raises(ValueError, match="w/fp32_param"):
        fastadam.serializers.NpzDeserializer(stored.target).load(opt)
    assert bits(rule_of(opt)._fp32_param.array) == bits(before)


@pytest.mark.parametrize("by_itself", [False, True])
@pytest.mark.parametrize("dtype", HALF)
def test_switching_on_and_off_later(dtype: str, by_itself: bool) -> None:
    """Float32 state throughout, and every step is made on what the parameter was before."""
    w = np.ones(5, dtype_of(dtype))
    opt = optimizer(alpha=1e-2).setup({"w": w})
    if by_itself:
        rule_of(opt).add_hook(nothing)
    full, other = np.ones(5, np.float32), optimizer(alpha=1e-2)
    other.setup({"w": full})
    for i, gradient in enumerate(gradients(30)):
        if i % 10 == 5:
            opt.use_fp32_update()
        elif i % 10 == 0:
            opt.use_fp32_update(False)
            assert rule_of(opt)._fp32_param is None
        if not opt._use_fp32_update or i % 10 == 5:
            full[...] = w  # without a master, digits are lost at every step
        opt.apply_gradients({"w": gradient})
        other.apply_gradients({"w": gradient})
        assert bits(w) == bits(full.astype(w.dtype))
        for key in "mv":
            assert rule_of(opt).state[key].dtype == np.float32
            assert bits(rule_of(opt).state[key]) == bits(rule_of(other).state[key])


def test_false_switches_it_off() -> None:
    """Chainer's use_fp32_update(False) switches it on."""
    link = fastadam.Link()
    with link.init_scope():
        link.w, link.x = (fastadam.Parameter(np.ones(5, np.float16)) for _ in "wx")
    opt = optimizer().setup(link)
    link.x.update_rule = None  # nor is this an error
    for flag in (False, True, False):
        opt.use_fp32_update(flag)
        assert link.w.update_rule._use_fp32_update is flag
        opt.apply_gradients({"w": np.ones(5), "x": None})
        assert (link.w.update_rule._fp32_param is not None) is flag
    opt.use_fp32_update()
    opt.use_fp32_update(flag=False)
    opt.setup(link)
    assert link.w.update_rule._use_fp32_update is False


def test_before_setup_and_for_parameters_that_come_late() -> None:
    params = {"w": np.ones(5, np.float16)}
    opt = optimizer()
    opt.use_fp32_update()
    opt.setup(params)
    params["x"] = np.ones(2, np.float16)
    opt.apply_gradients({"w": np.ones(5), "x": np.ones(2)})
    for path in "wx":
        assert rule_of(opt, path)._fp32_param.array.dtype == np.float32


@pytest.mark.parametrize("dtype", HALF)
def test_one_rule_alone(dtype: str) -> None:
    arrays = {path: np.ones(5, dtype_of(dtype)) for path in ("w", "x")}
    opt = fastadam.Adam(alpha=1e-5).setup(arrays)
    rule_of(opt).use_fp32_update()
    for _ in range(1000):
        opt.apply_gradients({path: np.ones(5) for path in arrays})
    assert rule_of(opt, "x")._fp32_param is None
    assert arrays["x"].astype(float).tolist() == [1] * 5
    assert arrays["w"].astype(float) == pytest.approx([0.99] * 5, abs=2e-3)


def test_a_lazy_parameter_that_was_updated_before_it_had_an_array() -> None:
    """Chainer's master stays uninitialised then, and the next update raises RuntimeError."""
    link = fastadam.Link()
    with link.init_scope():
        link.lazy = fastadam.Parameter()
        link.w = fastadam.Parameter(np.ones(2, np.float16))
    opt = optimizer().setup(link)
    opt.use_fp32_update()
    link.cleargrads()
    opt.update()
    link.lazy.initialize_with(np.ones(3, np.float16))
    link.lazy.grad = np.ones(3, np.float16)
    opt.update()
    assert link.lazy.update_rule.t == 1
    assert link.lazy.update_rule._fp32_param.array.shape == (3,)
    np.testing.assert_array_less(link.lazy.array, 1)


@pytest.mark.parametrize("dtype", HALF)
def test_hooks_of_rules_see_the_master(dtype: str) -> None:
    w = np.full(2, 1.25, dtype_of(dtype))
    opt = started({"w": np.full(5, 1.25, dtype_of(dtype))}, 7)
    seen = []

    def look(rule: Any, param: Any) -> None:
        seen.append((param.array.copy(), param.grad.copy(), param._loss_scale, param.name))
        param.grad += 1

    def after(rule: Any, param: Any) -> None:
        seen.append((param.array.copy(), param.grad.copy(), param._loss_scale, param.name))

    rule = rule_of(opt)
    rule.add_hook(look)
    rule.add_hook(after, timing="post")
    master = rule._fp32_param.array.copy()
    before = rule.state["m"].copy()
    given = np.full(5, 8, w.dtype)
    opt.apply_gradients({"w": given}, loss_scale=16)
    [(p0, g0, s0, n0), (p1, g1, s1, n1)] = seen
    assert (p0.dtype, g0.dtype, p1.dtype, g1.dtype) == (np.float32,) * 4
    assert bits(p0) == bits(master)
    assert bits(p1) == bits(rule._fp32_param.array)
    assert (g0.tolist(), g1.tolist()) == ([0.5] * 5, [1.5] * 5)
    assert (s0, s1) == (None, None)
    assert n0 == n1 == opt.parameters["w"].name
    # the step was made with what the hook left
    expected = before + np.float32(1 - 0.8) * (np.float32(1.5) - before)
    assert bits(rule.state["m"]) == bits(expected)
    assert given.astype(float).tolist() == [8] * 5
    # and the master's gradient is not kept
    assert rule._fp32_param.grad is None


class Interrupt(Exception):
    """What hooks of the next tests raise."""


def interrupt(*_: Any) -> None:
    """A hook that raises."""
    raise Interrupt


@pytest.mark.parametrize("timing", ["pre", "post"])
def test_a_hook_that_raises_leaves_master_and_parameter_together(timing: str) -> None:
    params = {"w": np.full(5, 1.25, np.float16)}
    opt = started(params)
    rule = rule_of(opt)
    before = rule._fp32_param.array.copy(), params["w"].copy(), rule.t
    rule.add_hook(interrupt, timing=timing)
    with pytest.raises(Interrupt):
        opt.apply_gradients({"w": np.ones(5)})
    master = rule._fp32_param.array
    assert bits(params["w"]) == bits(master.astype(np.float16))
    assert rule._fp32_param.grad is None
    done = timing == "post"
    assert rule.t == before[2] + done
    assert (bits(master) != bits(before[0])) is done
    assert done or bits(params["w"]) == bits(before[1])
    assert opt.last_update.t == opt.t == before[2] + done


@pytest.mark.parametrize("how", ["read-only", "hook"])
def test_a_refused_first_update_leaves_no_master(how: str) -> None:
    params = {"w": np.full(5, 1.25, np.float16), "z": np.ones(2, np.float16)}
    opt = optimizer().setup(params)
    opt.use_fp32_update()
    if how == "hook":
        rule_of(opt).add_hook(interrupt)
        rule_of(opt, "z").add_hook(nothing)
    before = copy.deepcopy(opt)
    params["z"].flags.writeable = how == "hook"
    with pytest.raises((ValueError, Interrupt)):
        opt.apply_gradients({"w": np.ones(5), "z": np.ones(2)})
    assert opt == before
    assert rule_of(opt)._fp32_param is None


def test_a_refused_update_leaves_a_master_as_it_was() -> None:
    """Also where the parameter has been written since, which the next update notices."""
    params = {"w": np.full(5, 1.25, np.float16)}
    opt = started(params)
    params["w"][1] = 3
    before = copy.deepcopy(opt)
    rule_of(opt).hyperparam.eps = 1e-50
    with pytest.raises(ValueError, match="'w'"):
        opt.apply_gradients({"w": np.ones(5)})
    del rule_of(opt).hyperparam.eps
    assert opt == before
    opt.apply_gradients({"w": np.ones(5)})
    assert params["w"][1] == pytest.approx(3, abs=0.05)


@pytest.mark.parametrize("how", ["read-only", "shape", "eps"])
def test_a_refused_update_changes_no_master(how: str) -> None:
    params = {"w": np.full(5, 1.25, np.float16), "z": np.ones(2, np.float16)}
    opt = optimizer().setup(params)
    opt.use_fp32_update()
    for gradient in gradients(9):
        opt.apply_gradients({"w": gradient, "z": gradient[:2]})
    before = copy.deepcopy([(vars(rule_of(opt, path)), params[path]) for path in params])
    if how == "read-only":
        params["z"].flags.writeable = False
    elif how == "shape":
        rule_of(opt, "z").state["m"] = np.zeros(3, np.float32)
    else:
        rule_of(opt, "z").hyperparam.eps = 1e-50
    with pytest.raises(ValueError, match="'z'"):
        opt.apply_gradients({"w": np.ones(5), "z": np.ones(2)})
    for path, (attributes, array) in zip(params, before, strict=True):
        rule = rule_of(opt, path)
        assert bits(params[path]) == bits(array)
        assert bits(rule._fp32_param.array) == bits(attributes["_fp32_param"].array)
        assert rule.t == attributes["t"] == 9
        assert bits(rule.state["v"]) == bits(attributes["_state"]["v"])


@pytest.mark.parametrize("layout", ["0-dim", "empty", "F", "strided", "shared"])
def test_layouts(layout: str) -> None:
    """Of any layout, and a parameter that two names share has one master."""
    base = np.linspace(1, 2, 60).astype(np.float16)
    target: Any = {
        "0-dim": {"w": base[:1].reshape(())},
        "empty": {"w": base[:0].reshape(0, 3)},
        "F": {"w": np.asfortranarray(base.reshape(6, 10))},
        "strided": {"w": base.reshape(6, 10)[::2, ::3]},
        "shared": {"w": base, "x": base},
    }[layout]
    array = target["w"]
    full = {"w": array.astype(np.float32, order="C")}
    opt, other = optimizer().setup(target), optimizer().setup(full)
    opt.use_fp32_update()
    for i in range(30):
        gradient = np.full(array.shape, 0.5 + i % 3)
        zero = np.zeros(array.shape)
        opt.apply_gradients({"w": gradient} | ({"x": zero} if layout == "shared" else {}))
        other.apply_gradients({"w": gradient})
    assert bits(array) == bits(full["w"].astype(np.float16))
    assert target["w"] is array
    assert bits(rule_of(opt)._fp32_param.array) == bits(full["w"])


def test_copies_have_masters_of_their_own() -> None:
    opt = started({"w": np.full(5, 1.25, np.float16)})
    again = copy.deepcopy(opt)
    assert again == opt
    for one in (opt, again):
        one.apply_gradients({"w": np.ones(5)})
    assert rule_of(again)._fp32_param is not rule_of(opt)._fp32_param
    assert bits(rule_of(again)._fp32_param.array) == bits(rule_of(opt)._fp32_param.array)
    assert bits(again.target["w"]) == bits(opt.target["w"])


@pytest.mark.parametrize("by_itself", [False, True])
def test_a_parameter_keeps_its_array(by_itself: bool) -> None:
    link = fastadam.Link()
    with link.init_scope():
        link.w = fastadam.Parameter(np.ones(5, np.float16))
    opt = optimizer().setup(link)
    opt.use_fp32_update()
    if by_itself:
        rule_of(opt).add_hook(nothing)
    array = link.w.array
    for gradient in gradients(3):
        link.w.grad = gradient.astype(np.float16)
        opt.update()
        assert link.w.array is array
    assert bits(array) == bits(rule_of(opt)._fp32_param.array.astype(np.float16))
    assert (array != 1).all()
