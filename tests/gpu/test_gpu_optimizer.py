"""Whole optimizers on a GPU beside the same on the CPU: all bits of arrays, and all reports."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cases import assert_same_bits, dtype_of

import fastadam
from fastadam import Chain, GradientMethod, Link, Parameter, UpdateRule
from fastadam.optimizer_hooks import GradientClipping

MAKERS: dict[str, Callable[[], Any]] = {
    "Adam": lambda: fastadam.Adam(alpha=0.02, beta1=0.8, beta2=0.97, eps=1e-5),
    "AdamW": lambda: fastadam.AdamW(alpha=0.02, eta=0.7, weight_decay_rate=0.05, decay_mode="eta"),
    "AMSGrad": lambda: fastadam.AMSGrad(alpha=0.02, beta2=0.9),
    "AdaBound": lambda: fastadam.AdaBound(alpha=0.02, final_lr=0.3, gamma=0.02),
    "AMSBound": lambda: fastadam.AMSBound(alpha=0.02, final_lr=0.3, gamma=0.01),
    "paper": lambda: fastadam.AdamW(eps_mode="paper", decay_mode="alpha", weight_decay_rate=0.1),
}
SHAPES = {"w": (33, 20), "b": (20,), "s": (), "none": (0, 4)}
DTYPES = ("float32", "float64", "float16", "bfloat16")


@pytest.fixture(params=DTYPES)
def dtype(request: pytest.FixtureRequest) -> Any:
    if request.param == "bfloat16":
        pytest.importorskip("ml_dtypes")
    return dtype_of(request.param)


def arrays(seed: int, dtype: Any, shapes: dict[str, tuple[int, ...]] = SHAPES) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    return {k: np.asarray(random.normal(size=s)).astype(dtype) for k, s in shapes.items()}


def sent(cupy: Any, tree: dict[str, Any]) -> dict[str, Any]:
    return {key: cupy.asarray(array) for key, array in tree.items()}


def on_cpu(value: Any) -> Any:
    return value.get() if hasattr(value, "get") and hasattr(value, "data") else value


def assert_same(there: Any, here: Any) -> None:
    """Compare two optimizers: arrays, states, masters, counts, reports."""
    assert (there.t, there.epoch, there.loss_scale) == (here.t, here.epoch, here.loss_scale)
    ours, theirs = there.last_update, here.last_update
    assert repr(ours) == repr(theirs)
    assert list(there.parameters) == list(here.parameters)
    for path, param in here.parameters.items():
        other = there.parameters[path]
        assert_same_bits(on_cpu(other.array), param.array, path)
        one, two = other.update_rule, param.update_rule
        assert one.t == two.t
        assert (one.state is None) == (two.state is None)
        for key, value in (two.state or {}).items():
            if isinstance(value, np.ndarray):
                assert_same_bits(on_cpu(one.state[key]), value, f"{path} {key}")
        masters = one._fp32_param, two._fp32_param
        assert (masters[0] is None) == (masters[1] is None)
        if masters[1] is not None and masters[1].array is not None:
            assert_same_bits(on_cpu(masters[0].array), masters[1].array, f"{path} master")


def pair(cupy: Any, make: Callable[[], Any], dtype: Any, **shapes: Any) -> tuple[Any, Any]:
    """Return the same optimizer on a GPU and on the CPU."""
    start = arrays(0, dtype, shapes or SHAPES)
    return make().setup(sent(cupy, start)), make().setup({k: a.copy() for k, a in start.items()})


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("fp32", ["no", "early", "late"])
def test_every_optimizer(cupy: Any, maker: str, dtype: Any, fp32: str) -> None:
    there, here = pair(cupy, MAKERS[maker], dtype)
    for step in range(6):
        for opt in (there, here):
            if fp32 == "early" and step == 0:
                opt.use_fp32_update()
            if fp32 == "late" and step == 3:
                opt.use_fp32_update()
            # a schedule
            opt.hyperparam.alpha = 0.02 / (1 + step)
        gradients = arrays(step + 1, dtype)
        there.apply_gradients(sent(cupy, gradients))
        here.apply_gradients(gradients)
        assert_same(there, here)


def test_masters_follow_what_is_written_from_outside(cupy: Any) -> None:
    there, here = pair(cupy, MAKERS["AdamW"], np.float16)
    for opt in (there, here):
        opt.use_fp32_update()
    for step in range(5):
        for opt in (there, here):
            if step in (2, 3):
                opt.parameters["w"].array[3:5] *= 0.5
        gradients = arrays(step + 1, np.float16)
        there.apply_gradients(sent(cupy, gradients))
        here.apply_gradients(gradients)
        assert_same(there, here)


@pytest.mark.parametrize("scaling", [None, 128.0, "dynamic"])
@pytest.mark.parametrize("mode", ["propagate", "skip"])
@pytest.mark.parametrize("clip", [False, True])
def test_scaling_and_what_is_not_finite(
    cupy: Any, dtype: Any, scaling: Any, mode: str, clip: bool
) -> None:
    there, here = pair(cupy, MAKERS["AMSBound"], dtype)
    for opt in (there, here):
        opt.on_nonfinite = mode
        opt.monitor = True
        if scaling == "dynamic":
            opt.loss_scaling(interval=3)
        elif scaling:
            opt.loss_scaling(scale=scaling)
        if clip:
            opt.add_hook(GradientClipping(0.7))
    for step in range(9):
        gradients = arrays(step + 1, np.float32)
        if step in (4, 5):
            gradients["b"][3] = [np.nan, np.inf][step % 2]
        scale = here.loss_scale
        with np.errstate(over="ignore"):
            gradients = {k: (g * (scale or 1)).astype(dtype) for k, g in gradients.items()}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            there.apply_gradients(sent(cupy, gradients), loss_scale=scale)
            here.apply_gradients(gradients, loss_scale=scale)
        assert_same(there, here)


def test_nonfinite_gradients_raise_before_anything_changes(cupy: Any) -> None:
    there, _ = pair(cupy, MAKERS["Adam"], np.float32)
    there.on_nonfinite = "raise"
    there.apply_gradients(sent(cupy, arrays(1, np.float32)))
    before = {path: param.array.get() for path, param in there.parameters.items()}
    gradients = arrays(2, np.float32)
    gradients["w"][0, 0] = np.inf
    with pytest.raises(FloatingPointError, match="'w'"):
        there.apply_gradients(sent(cupy, gradients))
    assert there.t == 1
    for path, param in there.parameters.items():
        assert_same_bits(param.array, before[path])


def test_overrides_disabled_rules_and_missing_gradients(cupy: Any) -> None:
    there, here = pair(cupy, MAKERS["AMSGrad"], np.float32)
    for opt in (there, here):
        opt.set_hyperparam("w", alpha=0.5, beta1=0.5)
        opt.parameters["b"].update_rule.enabled = False
    for step in range(6):
        gradients: dict[str, Any] = arrays(step, np.float32)
        if step % 2:
            gradients["s"] = None
        for opt in (there, here):
            opt.parameters["b"].update_rule.enabled = step >= 3
        there.apply_gradients(
            {k: None if g is None else cupy.asarray(g) for k, g in gradients.items()}
        )
        here.apply_gradients(gradients)
        assert_same(there, here)


def test_links_and_loss_functions(cupy: Any) -> None:
    def model(xp: Any) -> Any:
        random = np.random.default_rng(3)
        links = [Link(), Link()]
        for link in links:
            with link.init_scope():
                link.W = Parameter(xp.asarray(random.normal(size=(7, 5)).astype(np.float32)))
                link.b = Parameter(xp.asarray(random.normal(size=5).astype(np.float32)))
        return Chain(l1=links[0], l2=links[1])

    there, here = (MAKERS["AdaBound"]().setup(model(xp)) for xp in (cupy, np))

    def loss(opt: Any) -> tuple[float, dict[str, Any]]:
        # the gradient of sum(x ** 2)
        return 0.5, {path: 2 * param.array for path, param in opt.parameters.items()}

    for step in range(5):
        for opt in (there, here):
            assert opt.update(loss, opt) == 0.5
            for param in opt.target.params():
                param.grad = param.array * (0.1 * step)
            opt.update()
        assert_same(there, here)
        for one, two in zip(there.target.params(), here.target.params(), strict=True):
            assert_same_bits(one.grad, two.grad)


def test_parameters_on_the_cpu_and_on_gpus(cupy: Any) -> None:
    start = arrays(0, np.float32)
    last = cupy.cuda.runtime.getDeviceCount() - 1

    def placed(tree: dict[str, Any]) -> dict[str, Any]:
        places = {"w": 0, "b": None, "s": last, "none": last}
        made = {}
        for key, array in tree.items():
            if places[key] is None:
                made[key] = array.copy()
            else:
                with cupy.cuda.Device(places[key]):
                    made[key] = cupy.asarray(array)
        return made

    there = MAKERS["AMSBound"]().setup(placed(start))
    here = MAKERS["AMSBound"]().setup({k: a.copy() for k, a in start.items()})
    for opt in (there, here):
        opt.add_hook(GradientClipping(1.5))
        opt.monitor = True
    for step in range(4):
        gradients = arrays(step + 1, np.float32)
        there.apply_gradients(placed(gradients))
        here.apply_gradients(gradients)
        assert_same(there, here)


LAYOUTS = {
    "F": lambda xp, a: xp.asfortranarray(a),
    "transposed": lambda xp, a: xp.ascontiguousarray(a.T).T,
    "reversed": lambda xp, a: xp.ascontiguousarray(a[::-1])[::-1],
}


@pytest.mark.parametrize("gradient", LAYOUTS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(cupy: Any, layout: str, gradient: str) -> None:
    start = arrays(0, np.float32)["w"]
    there = MAKERS["AMSGrad"]().setup({"w": LAYOUTS[layout](cupy, cupy.asarray(start))})
    here = MAKERS["AMSGrad"]().setup({"w": LAYOUTS[layout](np, start)})
    for step in range(4):
        g = arrays(step + 1, np.float32)["w"]
        there.apply_gradients({"w": LAYOUTS[gradient](cupy, cupy.asarray(g))})
        here.apply_gradients({"w": LAYOUTS[gradient](np, g)})
        assert_same_bits(there.parameters["w"].array, here.parameters["w"].array)


def test_many_sets_of_hyperparameters(cupy: Any) -> None:
    shapes = {f"p{i}": (3, i) for i in range(80)}
    there, here = pair(cupy, MAKERS["AdamW"], np.float32, **shapes)
    for opt in (there, here):
        for i in range(70):
            opt.set_hyperparam(f"p{i}", alpha=0.01 * i)
    for step in range(3):
        gradients = arrays(step + 1, np.float32, shapes)
        there.apply_gradients(sent(cupy, gradients))
        here.apply_gradients(gradients)
        assert_same(there, here)


def test_arrays_that_are_rebound_or_replaced_between_updates(cupy: Any) -> None:
    there, here = pair(cupy, MAKERS["AMSGrad"], np.float32)
    for step in range(6):
        for opt in (there, here):
            if step == 2:
                opt.parameters["w"].array = opt.parameters["w"].array.copy()
            if step == 3:
                state = opt.parameters["w"].update_rule.state
                state["v"] = state["v"].copy()
            if step == 4:
                opt.parameters["b"].update_rule.t = 1
        gradients = arrays(step + 1, np.float32)
        there.apply_gradients(sent(cupy, gradients))
        here.apply_gradients(gradients)
        assert_same(there, here)


class SGDRule(UpdateRule):
    """A user's rule, for both libraries."""

    def init_state(self, param: Any) -> None:
        self.state["sum"] = param.array * 0

    def update_core(self, param: Any) -> None:
        self.state["sum"] += param.grad
        param.array -= self.hyperparam.lr * self.state["sum"]


class SGD(GradientMethod):
    """A user's optimizer."""

    def __init__(self) -> None:
        super().__init__()
        self.hyperparam.lr = 0.25

    def create_update_rule(self) -> Any:
        return SGDRule(self.hyperparam)


def test_a_users_rule(cupy: Any) -> None:
    there, here = pair(cupy, SGD, np.float32)
    for opt in (there, here):
        opt.use_fp32_update()
        opt.add_hook(GradientClipping(1.0))
    for step in range(3):
        gradients = arrays(step + 1, np.float32)
        there.apply_gradients(sent(cupy, gradients))
        here.apply_gradients(gradients)
        assert_same(there, here)


def test_rules_with_a_core_for_each_library(cupy: Any) -> None:
    called: list[str] = []

    class Rule(UpdateRule):
        def update_core_cpu(self, param: Any) -> None:
            called.append("cpu")

        def update_core_gpu(self, param: Any) -> None:
            called.append("gpu")

    for xp in (np, cupy):
        param = Parameter(xp.ones(3, np.float32))
        param.grad = xp.ones(3, np.float32)
        Rule().update(param)
    assert called == ["cpu", "gpu"]


def test_a_gradient_on_another_device_is_refused(cupy: Any) -> None:
    there, _ = pair(cupy, MAKERS["Adam"], np.float32)
    there.apply_gradients(sent(cupy, arrays(1, np.float32)))
    before = there.parameters["w"].array.get()
    gradients: dict[str, Any] = sent(cupy, arrays(2, np.float32))
    with pytest.raises(TypeError, match="'w' is on @numpy, the parameter on @cupy:0"):
        there.apply_gradients({**gradients, "w": arrays(2, np.float32)["w"]})
    if cupy.cuda.runtime.getDeviceCount() > 1:
        with cupy.cuda.Device(1):
            elsewhere = cupy.asarray(arrays(2, np.float32)["w"])
        with pytest.raises(TypeError, match="'w' is on @cupy:1, the parameter on @cupy:0"):
            there.apply_gradients({**gradients, "w": elsewhere})
    here = fastadam.Adam().setup({"w": np.ones(3, np.float32)})
    with pytest.raises(TypeError, match="'w' is on @cupy:0, the parameter on @numpy"):
        here.apply_gradients({"w": cupy.ones(3, np.float32)})
    assert (there.t, here.t) == (1, 0)
    assert_same_bits(there.parameters["w"].array, before)


def test_missing_gradients(cupy: Any) -> None:
    """Skipped, or without a step but with a count: as on the CPU."""
    sequence = ("", "b", "", "ab", "", "c", "")
    for kind in ("Adam", "AMSGrad", "AdaBound"):
        for way in ("skip", "none"):
            arrays = {name: np.ones(5, "f4") for name in "abc"}
            cls = getattr(fastadam, kind)
            if way == "none":
                cls = type(kind, (cls,), {"reallocate_cleared_grads": lambda self: None})
            here = cls(alpha=0.1).setup(arrays)
            there = cls(alpha=0.1).setup(sent(cupy, arrays))
            for opt in (here, there):
                opt.missing_gradients = "skip" if way == "skip" else "zeros"
                opt.add_hook(GradientClipping(1.0))
            for missing in sequence:
                grads = {n: None if n in missing else np.full(5, 2.0, "f4") for n in "abc"}
                here.apply_gradients(grads)
                there.apply_gradients(
                    {n: None if g is None else cupy.asarray(g) for n, g in grads.items()}
                )
                assert_same(there, here)


def test_a_gradient_that_reaches_into_a_rounded_parameter(cupy: Any) -> None:
    found = []
    for copied in (False, True):
        memory = cupy.asarray(np.linspace(-1, 1, 40).astype(np.float16))
        opt = fastadam.Adam(alpha=0.1)
        opt.use_fp32_update()
        opt.setup({"a": memory[:10], "b": memory[12:22]})
        for _ in range(4):
            gradient = memory[5:15]
            given = gradient.copy() if copied else gradient
            opt.apply_gradients({"a": cupy.ones(10, np.float16), "b": given})
        state = opt.parameters["b"].update_rule.state
        found.append([cupy.asnumpy(each) for each in (memory, state["m"], state["v"])])
    np.testing.assert_equal(*found)
