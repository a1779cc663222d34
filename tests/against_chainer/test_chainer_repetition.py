"""Updates of Chainer's own links that are made again: every change is noticed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fastadam import AdamW
from fastadam.optimizer_hooks import GradientClipping

chainer = pytest.importorskip("chainer", reason="Chainer itself is not installed")


def model() -> Any:
    rng = np.random.default_rng(2)
    chain = chainer.Chain(l1=chainer.Link(), l2=chainer.ChainList(chainer.Link(), chainer.Link()))
    for i, link in enumerate((chain, chain.l1, chain.l2[0], chain.l2[1])):
        with link.init_scope():
            link.W = chainer.Parameter(rng.standard_normal((3, 4)).astype(np.float32))
            link.b = chainer.Parameter(rng.standard_normal(4 + i).astype(np.float32))
    return chain


class Two:
    """An optimizer that repeats, and one that forgets what it has found before every update."""

    def __init__(self) -> None:
        self.models = [model(), model()]
        self.opts = [
            AdamW(alpha=0.05, beta1=0.8, eps=1e-3, weight_decay_rate=0.01).setup(each)
            for each in self.models
        ]
        self.step = 0

    def each(self, change: Callable[[Any, Any], Any]) -> None:
        for opt, target in zip(self.opts, self.models, strict=True):
            change(opt, target)

    def update(self, loss_scale: float | None = None) -> None:
        self.step += 1
        self.opts[1]._plan = None
        for opt, target in zip(self.opts, self.models, strict=True):
            rng = np.random.default_rng(self.step)
            for _, param in sorted(target.namedparams()):
                if param.array is None:
                    continue
                param.grad = rng.standard_normal(param.shape).astype(param.dtype)
                param._loss_scale = loss_scale
            opt.update()
        assert self.seen(0) == self.seen(1)

    def seen(self, i: int) -> dict[str, Any]:
        found: dict[str, Any] = {"t": self.opts[i].t, "report": repr(self.opts[i].last_update)}
        for path, param in self.models[i].namedparams():
            rule, grad = param.update_rule, param.grad
            found[path] = None if param.array is None else param.array.tobytes()
            found[f"{path} grad"] = None if grad is None else grad.tobytes()
            found[f"{path} scale"] = param._loss_scale
            if rule is not None:
                state = rule.state or {}
                found[f"{path} t"] = rule.t
                found |= {f"{path} {key}": array.tobytes() for key, array in state.items()}
        return found


def rebind(opt: Any, target: Any) -> None:
    target.l1.W.array = np.full((3, 4), 0.25, np.float32)


def write_data(opt: Any, target: Any) -> None:
    target.l1.W.data = np.full((2, 2), 0.25, np.float32)
    target.l1.W.update_rule._state = None


def add_a_parameter(opt: Any, target: Any) -> None:
    with target.l1.init_scope():
        target.l1.late = chainer.Parameter(np.ones(3, np.float32))


def add_a_lazy_parameter(opt: Any, target: Any) -> None:
    with target.l1.init_scope():
        target.l1.lazy = chainer.Parameter(chainer.initializers.One())
    target.l1.lazy.cleargrad()


def initialize_it(opt: Any, target: Any) -> None:
    target.l1.lazy.initialize((2, 3))


def replace_a_link(opt: Any, target: Any) -> None:
    target.l1 = model().l1


def append_a_link(opt: Any, target: Any) -> None:
    target.l2.append(model().l1)


def rename(opt: Any, target: Any) -> None:
    target.l2[0].W, target.l2[1].W = target.l2[1].W, target.l2[0].W


def remove_a_rule(opt: Any, target: Any) -> None:
    target.l1.W.update_rule = None


def replace_a_rule(opt: Any, target: Any) -> None:
    target.l1.W.update_rule = opt.create_update_rule()


def foreign_rule(opt: Any, target: Any) -> None:
    target.l1.W.update_rule = chainer.optimizers.SGD(lr=0.1).create_update_rule()


def freeze(opt: Any, target: Any) -> None:
    target.l1.disable_update()


def thaw(opt: Any, target: Any) -> None:
    target.l1.enable_update()


def override(opt: Any, target: Any) -> None:
    if target.l1.W.update_rule is not None:
        target.l1.W.update_rule.hyperparam.alpha = 0.5


def double_precision(opt: Any, target: Any) -> None:
    target.l1.W.array = target.l1.W.array.astype(np.float64)
    target.l1.W.update_rule._state = None


def clip(opt: Any, target: Any) -> None:
    opt.add_hook(GradientClipping(0.5))


def unclip(opt: Any, target: Any) -> None:
    opt.remove_hook("GradientClipping")


CHANGES = [
    rebind,
    write_data,
    add_a_parameter,
    replace_a_link,
    append_a_link,
    rename,
    remove_a_rule,
    replace_a_rule,
    foreign_rule,
    freeze,
    override,
    double_precision,
    clip,
]
AFTER = {freeze: thaw, clip: unclip}


def test_nothing_is_gathered_twice() -> None:
    two = Two()
    two.update()
    made = two.opts[0]._plan
    for _ in range(5):
        two.update()
    assert made is not None
    assert two.opts[0]._plan is made


def test_true_gradients_are_written_where_they_are() -> None:
    two = Two()
    for _ in range(3):
        two.update(loss_scale=8.0)
    assert two.opts[0]._plan is not None
    assert two.models[0].l1.W._loss_scale is None


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_every_change_is_noticed(change: Callable[[Any, Any], None]) -> None:
    two = Two()
    for _ in range(3):
        two.update()
    before = two.seen(0)
    two.each(change)
    for _ in range(3):
        two.update()
    if change in AFTER:
        two.each(AFTER[change])
        two.update()
        two.update()
    assert before != two.seen(0)


def test_lazy_parameters() -> None:
    two = Two()
    for change in (None, add_a_lazy_parameter, None, initialize_it, None):
        if change is not None:
            two.each(change)
        two.update()
        two.update()
    assert two.models[0].l1.lazy.update_rule.t == 4


@pytest.mark.parametrize("seed", range(5))
def test_changes_in_random_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    two = Two()
    changes = [change for change in CHANGES if change not in (write_data, double_precision, clip)]
    for _ in range(25):
        if rng.integers(2):
            two.each(changes[rng.integers(len(changes))])
        two.update(loss_scale=[None, 4.0][rng.integers(2)])
