"""The built-in hooks on a GPU beside themselves on the CPU, and hooks of a user's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cases import assert_same_bits, dtype_of
from cuda_on_cpu.memory import state

import fastadam
from fastadam.optimizer_hooks import (
    GradientClipping,
    GradientHardClipping,
    GradientLARS,
    GradientNoise,
    Lasso,
    WeightDecay,
)


def noise(xp: Any, shape: Any, dtype: Any, hook: Any, rule: Any) -> Any:
    """The same numbers for both libraries."""
    return xp.asarray(np.random.default_rng(rule.t).normal(size=shape).astype(dtype))


HOOKS: dict[str, Callable[[], Any]] = {
    "WeightDecay": lambda: WeightDecay(0.03),
    "Lasso": lambda: Lasso(0.03),
    "GradientClipping": lambda: GradientClipping(0.9),
    "GradientHardClipping": lambda: GradientHardClipping(-0.4, 0.6),
    "GradientNoise": lambda: GradientNoise(0.3, noise_func=noise),
    "GradientLARS": lambda: GradientLARS(0.01, weight_decay=0.02),
}
SHAPES = {"w": (300, 20), "b": (20,), "s": (), "z": (5,)}


@pytest.fixture(params=["float32", "float64", "float16", "bfloat16"])
def dtype(request: pytest.FixtureRequest) -> Any:
    if request.param == "bfloat16":
        pytest.importorskip("ml_dtypes")
    return dtype_of(request.param)


@pytest.fixture(params=["forward", "shuffled"], autouse=True)
def order(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "order", request.param)


def arrays(seed: int, dtype: Any) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    made = {k: np.asarray(random.normal(size=s)).astype(dtype) for k, s in SHAPES.items()}
    made["z"][...] = 0
    return made


def targets(cupy: Any, dtype: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    start = arrays(0, dtype)
    return {k: cupy.asarray(a) for k, a in start.items()}, start


def set_gradients(opt: Any, xp: Any, gradients: dict[str, Any]) -> None:
    for path, param in opt.parameters.items():
        param.grad = xp.asarray(gradients[path].copy())


@pytest.mark.parametrize("names", [[name] for name in HOOKS] + [list(HOOKS)], ids="+".join)
@pytest.mark.parametrize("scaled", [False, True])
def test_hooks_of_optimizers(cupy: Any, dtype: Any, names: list[str], scaled: bool) -> None:
    opts = [fastadam.AMSGrad(alpha=0.1).setup(t) for t in targets(cupy, dtype)]
    for opt in opts:
        for name in names:
            opt.add_hook(HOOKS[name]())
    for step in range(3):
        gradients = arrays(step + 1, dtype)
        for opt, xp in zip(opts, (cupy, np), strict=True):
            set_gradients(opt, xp, gradients)
            if scaled:
                for param in opt.parameters.values():
                    param._loss_scale = 4.0
            opt.update()
        for path, param in opts[1].parameters.items():
            there = opts[0].parameters[path]
            assert_same_bits(there.array, param.array, path)
            assert_same_bits(there.grad, param.grad, path)
            assert_same_bits(there.update_rule.state["v"], param.update_rule.state["v"], path)


@pytest.mark.parametrize("name", [n for n in HOOKS if n != "GradientClipping"])
def test_hooks_of_rules(cupy: Any, dtype: Any, name: str) -> None:
    opts = [fastadam.Adam(alpha=0.1).setup(t) for t in targets(cupy, dtype)]
    for opt in opts:
        for param in opt.parameters.values():
            param.update_rule.add_hook(HOOKS[name]())
    for step in range(3):
        for opt, xp in zip(opts, (cupy, np), strict=True):
            set_gradients(opt, xp, arrays(step + 1, dtype))
            opt.update()
        for path, param in opts[1].parameters.items():
            assert_same_bits(opts[0].parameters[path].array, param.array, path)


def test_noise_is_drawn_where_the_gradient_is(cupy: Any) -> None:
    opt = fastadam.Adam().setup({"w": cupy.zeros((50, 40), np.float32)})
    opt.add_hook(GradientNoise(0.01))
    opt.parameters["w"].grad = cupy.zeros((50, 40), np.float32)
    opt.update()
    drawn = opt.parameters["w"].grad.get()
    assert abs(drawn.std() - 0.1) < 0.01
    assert abs(drawn.mean()) < 0.02


def halve(opt: Any) -> None:
    """Halve gradients, with what arrays of both libraries can do."""
    for param in opt.parameters.values():
        param.grad *= 0.5


def test_hooks_of_a_users_own(cupy: Any) -> None:
    opts = [fastadam.Adam(alpha=0.1).setup(t) for t in targets(cupy, np.float32)]
    for opt, xp in zip(opts, (cupy, np), strict=True):
        opt.add_hook(halve, "halve")
        set_gradients(opt, xp, arrays(1, np.float32))
        opt.update()
    for path, param in opts[1].parameters.items():
        assert_same_bits(opts[0].parameters[path].grad, param.grad)
        assert_same_bits(opts[0].parameters[path].array, param.array)


def test_a_clipped_norm_of_parameters_everywhere(cupy: Any) -> None:
    """On several devices the host adds, in the order of one device."""
    start = arrays(0, np.float32)
    mixed = {k: cupy.asarray(a) if k != "b" else a.copy() for k, a in start.items()}
    opts = [fastadam.Adam(alpha=0.1).setup(mixed), fastadam.Adam(alpha=0.1).setup(start)]
    for opt in opts:
        opt.add_hook(GradientClipping(0.3))
        opt.add_hook(WeightDecay(0.1))
    for step in range(3):
        gradients = arrays(step + 1, np.float32)
        opts[0].apply_gradients(
            {k: cupy.asarray(a) if k != "b" else a for k, a in gradients.items()}
        )
        opts[1].apply_gradients(gradients)
    for path, param in opts[1].parameters.items():
        assert_same_bits(opts[0].parameters[path].array, param.array, path)
