"""An optimizer with something of everything that is loaded, and the doors it is loaded by."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

import fastadam
from fastadam import Chain, Link, Parameter
from fastadam.optimizer_hooks import GradientNoise
from fastadam.serializers import load_hdf5, load_npz, save_hdf5, save_npz


class Keeping(Link):
    """A link with persistent values, of which one has a setter."""

    def __init__(self, seed: int = 0, wide: bool = False) -> None:
        super().__init__()
        random = np.random.default_rng(seed)
        with self.init_scope():
            self.w = Parameter(random.normal(size=(3, 2)).astype(np.float16))
            self.lazy = Parameter()
        self.add_persistent("mean", random.normal(size=3))
        self.add_persistent("n", seed)
        self._rate = float(seed)
        self.register_persistent("rate")

    @property
    def rate(self) -> float:
        return self._rate

    @rate.setter
    def rate(self, value: float) -> None:
        if value == REFUSED:
            raise ZeroDivisionError("this rate is refused")
        self._rate = value


REFUSED = 77.0


class Counting:
    """A hook that keeps a count, in a `serialize` of its own; for optimizers and rules."""

    name, timing, call_for_each_param = "Counting", "pre", False

    def __init__(self, n: int = 0) -> None:
        self.n = n
        self.last = np.full(2, float(n))

    def __call__(self, *_: Any) -> None:
        self.n += 1

    def serialize(self, serializer: Any) -> None:
        self.n = serializer("n", self.n)
        self.last = serializer("last", self.last)


def make(seed: int, steps: int = 2, kind: Any = fastadam.AMSBound) -> Any:
    """An optimizer with something of everything that is loaded."""
    np.random.seed(seed)
    model = Chain(a=Keeping(seed), b=Link(W=(2,)))
    model.b.W.array[...] = seed
    if seed % 2:
        model.a.lazy.initialize(2)
        model.a.lazy.array[...] = seed
    opt = kind(alpha=0.1 * (1 + seed)).setup(model)
    opt.use_fp32_update()
    opt.loss_scaling(interval=1 + seed)
    opt.add_hook(GradientNoise(0.1))
    opt.add_hook(Counting(seed))
    opt.set_hyperparam("b/W", **{"beta1": 0.5 + seed / 100, ("eta", "gamma")[seed % 2]: 0.5})
    opt.parameters["b/W"].update_rule.enabled = bool(seed % 2)
    opt.parameters["b/W"].update_rule.add_hook(Counting(10 * seed))
    opt.on_nonfinite = ("skip", "propagate")[seed % 2]
    opt.missing_gradients = ("skip", "zeros")[seed % 2]
    for _ in range(steps):
        for param in model.params():
            if param.array is not None:
                param.grad = np.full_like(param.array, opt.loss_scale)
                param._loss_scale = opt.loss_scale
        opt.update()
        opt.new_epoch()
    return opt


def everything(opt: Any) -> list[Any]:
    """All that a load may change, in bits."""
    found: list[Any] = [opt.t, opt.epoch, vars(opt.hyperparam).copy()]
    found += [opt.on_nonfinite, opt.missing_gradients]
    found += [opt._loss_scale, opt._loss_scaling_is_dynamic, opt._loss_scaling_multiplier]
    found += [opt._use_fp32_update, opt.monitor, opt._loss_scaling_isnan_ever]
    for param in opt.parameters.values():
        rule, master = param.update_rule, param.update_rule._fp32_param
        found.append(None if param.array is None else param.array.tobytes())
        found += [rule.t, rule.enabled, rule._use_fp32_update, vars(rule.hyperparam).copy()]
        found += [vars(rule).get("initial_alpha"), master and master.array.tobytes()]
        found.append(rule.state and {k: v.tobytes() for k, v in rule.state.items()})
    link = opt.target
    if isinstance(link, Chain):
        found += [link.a.mean.tobytes(), link.a.n, link.a.rate]
    rules = [param.update_rule for param in opt.parameters.values()]
    for _, _, hook in [*opt._hooks, *(entry for rule in rules for entry in rule._hooks)]:
        found += [vars(hook).get("n"), str(vars(hook).get("last"))]
    state = np.random.get_state()
    return [*found, state[1].tobytes(), state[2:]]


def doors(tmp_path: Path) -> dict[str, tuple[Callable[[Any], object], Callable[[Any], object]]]:
    """How to save and to load, by name."""
    found: dict[str, Any] = {
        "npz": (
            lambda opt: fastadam.save(tmp_path / "a.npz", opt),
            lambda opt: fastadam.load(tmp_path / "a.npz", opt),
        ),
        "load_npz": (
            lambda opt: save_npz(tmp_path / "b.npz", opt),
            lambda opt: load_npz(tmp_path / "b.npz", opt),
        ),
        "link": (
            lambda opt: save_npz(tmp_path / "c.npz", opt.target),
            lambda opt: load_npz(tmp_path / "c.npz", opt.target),
        ),
    }
    if find_spec("h5py") is not None:
        found["h5"] = (
            lambda opt: fastadam.save(tmp_path / "a.h5", opt),
            lambda opt: fastadam.load(tmp_path / "a.h5", opt),
        )
        found["load_hdf5"] = (
            lambda opt: save_hdf5(tmp_path / "b.h5", opt),
            lambda opt: load_hdf5(tmp_path / "b.h5", opt),
        )
    return found
