"""Half precision beside Chainer's: the bits of its float32 masters; its faults, and ours gone."""

from __future__ import annotations

import copy
import io
import warnings
from typing import Any

import numpy as np
import pytest

import fastadam

chainer = pytest.importorskip("chainer", reason="needs Chainer 7.8.1 on NumPy 1.26")

HYPER = {"alpha": 0.02, "beta1": 0.8, "beta2": 0.95, "eps": 1e-3, "eta": 0.7}
BOUNDS = {"final_lr": 0.02, "gamma": 0.05}
KINDS = {
    "Adam": {**HYPER, "weight_decay_rate": 0.02},
    "AdamW": {**HYPER, "weight_decay_rate": 0.01},
    "AMSGrad": HYPER,
    "AdaBound": {**HYPER, **BOUNDS},
    "AMSBound": {**HYPER, **BOUNDS},
}
LIBRARIES = {"fastadam": fastadam, "chainer": chainer}


def a_link(module: Any, *arrays: np.ndarray) -> Any:
    """A link of either library with parameters a, b, ..."""
    link = module.Link()
    with link.init_scope():
        for name, array in zip("abcd", arrays, strict=False):
            setattr(link, name, module.Parameter(array.copy()))
    return link


def bits(array: np.ndarray) -> list[int]:
    """The pattern of every element."""
    return np.ascontiguousarray(array).view(f"u{array.itemsize}").ravel().tolist()


def set_gradients(link: Any, gradients: list[np.ndarray], scale: float | None) -> None:
    """Leave gradients as a backward pass with a loss scale does, in the parameter's dtype."""
    for param, gradient in zip(link.params(), gradients, strict=True):
        param.cleargrad()
        param.grad = (gradient * (scale or 1)).astype(param.dtype)
        param._loss_scale = scale


@pytest.mark.parametrize("scale", [None, 8.0, 1000.0, "dynamic"])
@pytest.mark.parametrize("ours", ["links", "chainer's links"])
@pytest.mark.parametrize("kind", KINDS)
def test_masters_have_chainers_bits(kind: str, ours: str, scale: Any) -> None:
    random = np.random.RandomState(1)
    arrays = [random.normal(size=(3, 4)).astype("f2"), random.normal(size=5).astype("f2")]
    links = [a_link(fastadam if ours == "links" else chainer, *arrays), a_link(chainer, *arrays)]
    optimizers = []
    for module, link in zip(LIBRARIES.values(), links, strict=True):
        opt = getattr(module.optimizers, kind)(**KINDS[kind]).setup(link)
        opt.use_fp32_update()
        if scale == "dynamic":
            opt.loss_scaling(interval=5)
        elif scale:
            opt.set_loss_scale(scale)
        optimizers.append(opt)
    for _ in range(40):
        gradients = [random.normal(size=array.shape) for array in arrays]
        with np.errstate(over="ignore"):  # of the dynamic scale
            for opt, link in zip(optimizers, links, strict=True):
                set_gradients(link, gradients, opt._loss_scale)
        overflow = any(not np.all(np.isfinite(param.grad)) for param in links[1].params())
        for opt in optimizers:
            if overflow:
                with pytest.warns(UserWarning, match="scale"):
                    opt.update()
            else:
                opt.update()
        assert optimizers[0]._loss_scale == optimizers[1]._loss_scale
        for mine, theirs in zip(links[0].params(), links[1].params(), strict=True):
            assert bits(mine.array) == bits(theirs.array)
            rules = mine.update_rule, theirs.update_rule
            assert rules[0].t == rules[1].t
            masters = [rule._fp32_param for rule in rules]
            assert bits(masters[0].array) == bits(masters[1].array)
            for key in rules[1].state:
                assert bits(rules[0].state[key]) == bits(rules[1].state[key])
    if scale == "dynamic":
        assert optimizers[0].t > links[0].a.update_rule.t


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_steps_are_chainers_float32_steps_rounded(kind: str, dtype: str) -> None:
    """Without masters: Chainer's float32 step of the half-precision parameter, rounded once."""
    half = np.dtype(dtype) if dtype == "float16" else np.dtype(_bfloat16())
    random = np.random.RandomState(2)
    w = random.normal(size=(3, 5)).astype(half)
    opt = getattr(fastadam, kind)(**KINDS[kind]).setup({"w": w})
    link = a_link(chainer, w.astype("f4"))
    theirs = getattr(chainer.optimizers, kind)(**KINDS[kind]).setup(link)
    for _ in range(40):
        gradient = random.normal(size=w.shape).astype(half)
        link.a.array[...] = w.astype("f4")
        set_gradients(link, [gradient.astype("f4")], None)
        theirs.update()
        opt.apply_gradients({"w": gradient})
        assert bits(w) == bits(link.a.array.astype(half))
        rule = opt.parameters["w"].update_rule
        assert set(rule.state) == set(link.a.update_rule.state)
        for key, value in rule.state.items():
            assert bits(value) == bits(link.a.update_rule.state[key])


def _bfloat16() -> Any:
    """bfloat16's type, or a skip."""
    return pytest.importorskip("ml_dtypes", reason="needs ml_dtypes, which has bfloat16").bfloat16


# What follows are Chainer's faults: each test shows both sides.


def one_update(library: str, gradient: float) -> Any:
    """A float16 parameter of 1 after one update with the defaults."""
    link = a_link(chainer, np.ones(3, "f2"))
    opt = LIBRARIES[library].optimizers.Adam().setup(link)
    set_gradients(link, [np.full(3, gradient)], None)
    with np.errstate(all="ignore"):
        opt.update()
    return link.a


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_small_float16_gradient(library: str) -> None:
    """v = 1e-9 is 0 in float16: the step is alpha_t / eps times m."""
    param = one_update(library, 1e-3)
    expected = 0.999 if library == "fastadam" else -2.162
    assert param.array.astype(float) == pytest.approx([expected] * 3, abs=1e-3)


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_large_float16_gradient(library: str) -> None:
    """v = 4e5 is infinite in float16, and the step is 0."""
    param = one_update(library, 2e4)
    expected = 0.999 if library == "fastadam" else 1
    assert param.array.astype(float) == pytest.approx([expected] * 3, abs=1e-4)
    assert bool(np.isinf(param.update_rule.state["v"][0])) is (library == "chainer")


def write_in_place(link: Any) -> None:
    link.a.array[...] = 3


def write_another_array(link: Any) -> None:
    link.a.array = np.full(3, 3, "f2")


def write_by_copyparams(link: Any) -> None:
    other = copy.deepcopy(link)
    other.a.array[...] = 3
    link.copyparams(other)


def write_by_load(link: Any) -> None:
    other, file = copy.deepcopy(link), io.BytesIO()
    other.a.array[...] = 3
    chainer.serializers.save_npz(file, other)
    file.seek(0)
    chainer.serializers.load_npz(file, link)


WRITERS = [write_in_place, write_another_array, write_by_copyparams, write_by_load]


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("library", LIBRARIES)
def test_masters_and_outside_writes(library: str, write: Any) -> None:
    """Chainer's next update is made on the old master, and undoes the write."""
    link = a_link(chainer, np.ones(3, "f2"))
    opt = LIBRARIES[library].optimizers.Adam(alpha=1e-4).setup(link)
    opt.use_fp32_update()
    for i in range(4):
        if i == 2:
            write(link)
        set_gradients(link, [np.ones(3)], None)
        opt.update()
    expected = 3 if library == "fastadam" else 1
    assert link.a.array.astype(float) == pytest.approx([expected] * 3, abs=2e-3)


@pytest.mark.parametrize("library", LIBRARIES)
def test_resumed_masters(library: str) -> None:
    """Chainer's file has no masters: a resumed run starts from the rounded parameters."""
    module = LIBRARIES[library]

    def train(opt: Any, n: int) -> None:
        for _ in range(n):
            set_gradients(opt.target, [np.ones(3)], None)
            opt.update()

    def new() -> Any:
        opt = module.optimizers.Adam(alpha=1e-4).setup(a_link(chainer, np.ones(3, "f2")))
        opt.use_fp32_update()
        return opt

    def copied(source: Any, target: Any) -> None:
        file = io.BytesIO()
        chainer.serializers.save_npz(file, source)
        file.seek(0)
        chainer.serializers.load_npz(file, target)

    opt = new()
    train(opt, 8)
    again = new()
    copied(opt.target, again.target)
    copied(opt, again)
    for one in (opt, again):
        train(one, 3)
    masters = [one.target.a.update_rule._fp32_param.array for one in (opt, again)]
    assert (bits(masters[0]) == bits(masters[1])) is (library == "fastadam")
    assert masters[1].dtype == np.float32


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_lazy_parameter_that_was_updated_before_it_had_an_array(library: str) -> None:
    link = a_link(chainer, np.ones(2, "f2"))
    with link.init_scope():
        link.lazy = chainer.Parameter(chainer.initializers.Constant(1, "f2"))
    opt = LIBRARIES[library].optimizers.Adam().setup(link)
    opt.use_fp32_update()
    link.cleargrads()

    def update_before_and_after() -> None:
        opt.update()
        link.lazy.initialize(3)
        link.lazy.grad = np.ones(3, "f2")
        opt.update()

    if library == "chainer":
        with pytest.raises(RuntimeError):
            update_before_and_after()
        return
    update_before_and_after()
    assert link.lazy.update_rule._fp32_param.array.dtype == np.float32
    assert type(link.lazy.update_rule._fp32_param) is chainer.Parameter
    assert link.lazy.array.dtype == np.float16
    assert link.lazy.update_rule.t == 1


@pytest.mark.parametrize("library", LIBRARIES)
def test_switched_on_late_and_off_again(library: str) -> None:
    ours = library == "fastadam"
    link = a_link(chainer, np.ones(3, "f2"), np.ones(3, "f2"))
    opt = LIBRARIES[library].optimizers.Adam(**HYPER).setup(link)
    for _ in range(2):
        set_gradients(link, [np.full(3, 0.3)] * 2, None)
        opt.update()
        opt.use_fp32_update()
    assert link.a.update_rule.state["v"].dtype == ("f4" if ours else "f2")
    opt.use_fp32_update(False)
    assert link.a.update_rule._use_fp32_update is (not ours)  # Chainer's False switches it on
    link.b.update_rule = None
    if ours:
        opt.use_fp32_update()
    else:
        with pytest.raises(AttributeError):
            opt.use_fp32_update()


@pytest.mark.parametrize("loader", LIBRARIES)
def test_float16_state_of_chainers_files(loader: str) -> None:
    """It is read by either library's loader, and becomes float32."""
    link = a_link(chainer, np.ones(3, "f2"))
    theirs = chainer.optimizers.Adam(**HYPER).setup(link)
    for _ in range(3):
        set_gradients(link, [np.array([0.5, 1, -2])], None)
        theirs.update()
    file = io.BytesIO()
    chainer.serializers.save_npz(file, theirs)
    file.seek(0)
    target = copy.deepcopy(link)
    opt = fastadam.Adam(**HYPER).setup(target)
    opt.use_fp32_update()
    LIBRARIES[loader].serializers.load_npz(file, opt)
    for key, value in link.a.update_rule.state.items():
        assert value.dtype == np.float16
        mine = target.a.update_rule.state[key]
        np.testing.assert_array_equal(mine, value.astype("f4"))
        assert mine.dtype == np.float32
    set_gradients(target, [np.ones(3)], None)
    opt.update()
    assert target.a.update_rule.t == 4


def test_float32_state_is_read_by_chainer() -> None:
    """With its own float32 masters, Chainer goes on from fastadam's file with the same bits."""
    optimizers = []
    for module in LIBRARIES.values():
        opt = module.optimizers.Adam(**HYPER).setup(a_link(chainer, np.ones(3, "f2")))
        opt.use_fp32_update()
        optimizers.append(opt)
    ours, theirs = optimizers
    for _ in range(5):
        set_gradients(ours.target, [np.array([0.5, 1, -2])], None)
        ours.update()
    file = io.BytesIO()
    fastadam.serializers.save_npz(file, ours)
    file.seek(0)
    chainer.serializers.load_npz(file, theirs)
    theirs.target.copyparams(ours.target)
    ours.use_fp32_update(False)  # whose new master begins with the rounded parameter, as theirs
    ours.use_fp32_update()
    for _ in range(3):
        for opt in optimizers:
            set_gradients(opt.target, [np.array([1, -0.5, 0.1])], None)
            opt.update()
        for key in "mv":
            rules = [opt.target.a.update_rule for opt in optimizers]
            assert bits(rules[0].state[key]) == bits(rules[1].state[key])
        assert bits(ours.target.a.array) == bits(theirs.target.a.array)


def test_hooks_of_rules_see_the_master() -> None:
    """Chainer's hooks work on it, since it is one of Chainer's parameters."""
    links = [a_link(chainer, np.full(3, 1.25, "f2")) for _ in LIBRARIES]
    seen: list[Any] = []

    def look(rule: Any, param: Any) -> None:
        seen.append((type(param), param.array.tolist(), param.grad.tolist(), param.grad.dtype))

    for module, link in zip(LIBRARIES.values(), links, strict=True):
        opt = module.optimizers.Adam(**HYPER).setup(link)
        opt.use_fp32_update()
        link.a.update_rule.add_hook(chainer.optimizer_hooks.Lasso(0.25))
        link.a.update_rule.add_hook(look, "look")
        for _ in range(3):
            set_gradients(link, [np.full(3, 0.5)], 64.0)
            opt.update()
    assert seen[:3] == seen[3:]
    assert seen[0] == (chainer.Parameter, [1.25] * 3, [0.75] * 3, np.dtype("f4"))
    assert bits(links[0].a.array) == bits(links[1].a.array)


@pytest.mark.parametrize("clear", ["cleargrads", "zerograds"])
def test_gradients_of_chainers_float16_parameters_are_float16_again(clear: str) -> None:
    """They are float32 in the update alone: Chainer's next backward pass adds to what it finds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with chainer.using_config("dtype", np.float16):
            model = chainer.links.Linear(3, 2)
        opt = fastadam.Adam(alpha=0.01).setup(model)
        opt.set_loss_scale(128.0)
        x = np.ones((4, 3), np.float16)
        for _ in range(3):
            getattr(model, clear)()
            chainer.functions.mean(model(x) ** 2).backward(loss_scale=opt.loss_scale)
            opt.update()
            assert [param.grad.dtype for param in model.params()] == [np.float16] * 2
            assert [param._loss_scale for param in model.params()] == [None] * 2
        other = model.copy("copy")
        other.addgrads(model)
    assert opt.t == 3
