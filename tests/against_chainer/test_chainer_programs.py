"""Random programs that change links between updates, with looks at ours: the bits of Chainer."""

from __future__ import annotations

import copy
import io
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastadam

chainer = pytest.importorskip("chainer", reason="needs Chainer 7.8.1 on NumPy 1.26")

SHAPES = [(3, 2), (5,), (2, 3, 2), (300,), (1,), (6,)]
LOOKS: list[Callable[[Any], Any]] = [
    lambda opt: repr(opt.parameters),
    fastadam.snapshot,
    copy.deepcopy,
    lambda opt: fastadam.compare(opt, opt),
    lambda opt: opt == fastadam.Adam(),
    lambda opt: fastadam.serializers.save_npz(io.BytesIO(), opt),
]


def register(link: Any, name: str, param: Any) -> None:
    with link.init_scope():
        setattr(link, name, param)


def change(opt: Any, module: Any, seed: int) -> None:
    """Delete, rename, add, exchange or rebind a parameter, freeze it, or write a hyperparameter."""
    chosen, rng = random.Random(seed), np.random.default_rng(seed)
    links = [opt.target, opt.target.l1, opt.target.l2]
    link, other = chosen.sample(links, 2)
    name, what = chosen.choice("abc"), chosen.randrange(7)
    param, second = getattr(link, name, None), getattr(other, name, None)
    if what == 0 and param is not None:
        delattr(link, name)
    elif what == 1 and param is not None:
        delattr(link, name)
        register(link, "z" + name, param)
    elif what == 2 and param is None:
        new = module.Parameter(rng.standard_normal(SHAPES[seed % 6]).astype("f4"))
        register(link, name, new)
        new.update_rule = opt.create_update_rule()
    elif what == 3 and param is not None and second is not None:
        register(link, name, second)
        register(other, name, param)
    elif what == 4 and param is not None:
        param.array = param.array.copy()
    elif what == 5 and param is not None:
        param.update_rule.enabled = not param.update_rule.enabled
    elif what == 6 and param is not None:
        param.update_rule.hyperparam.alpha = chosen.choice([0.1, 0.3])


def made(module: Any, optimizers: Any, seed: int) -> Any:
    rng = np.random.default_rng(seed)
    chain = module.Chain()
    with chain.init_scope():
        chain.l1, chain.l2 = module.Link(), module.Link()
    for link in (chain, chain.l1, chain.l2):
        for name in "abc":
            array = rng.standard_normal(SHAPES[rng.integers(6)]).astype("f4")
            register(link, name, module.Parameter(array))
    opt = optimizers.Adam(alpha=0.05, beta1=0.8, eps=1e-3, eta=0.7, weight_decay_rate=0.01)
    opt.amsgrad = bool(seed % 2)
    return opt.setup(chain)


def numbers(opt: Any) -> list[Any]:
    found: list[Any] = [opt.t]
    for path, param in sorted(opt.target.namedparams()):
        rule = param.update_rule
        state = sorted((rule.state or {}).items())
        found.append((path, param.array.tobytes(), rule.t, [(k, a.tobytes()) for k, a in state]))
    return found


def test_programs() -> None:
    for seed in range(80):
        runs = [made(m, m.optimizers, seed) for m in (fastadam, chainer)]
        chosen = random.Random(seed)
        for step in range(16):
            if chosen.random() < 0.4:
                at = chosen.randrange(10**6)
                for opt, module in zip(runs, (fastadam, chainer), strict=True):
                    change(opt, module, at)
            if chosen.random() < 0.4:
                chosen.choice(LOOKS)(runs[0])
            if chosen.random() < 0.1:
                for opt, module in zip(runs, (fastadam, chainer), strict=True):
                    opt.add_hook(module.optimizer_hooks.WeightDecay(0.1), f"decay {step}")
            for opt in runs:
                rng = np.random.default_rng([seed, step])
                for _, param in sorted(opt.target.namedparams()):
                    missing = rng.random() < 0.1
                    grad = rng.standard_normal(param.shape).astype("f4")
                    param.grad = None if missing else grad
                opt.update()
            assert numbers(runs[0]) == numbers(runs[1]), (seed, step)
