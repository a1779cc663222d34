"""Random programs run on both libraries: every bit of every array, and every count, agrees."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastadam

chainer = pytest.importorskip("chainer", reason="needs Chainer 7.8.1 on NumPy 1.26")

CLASSES = ("Adam", "AdamW", "AMSGrad", "AdaBound", "AMSBound")


def random_arguments(random: np.random.RandomState, name: str) -> dict[str, Any]:
    """Hyperparameters of all magnitudes that the class takes."""
    arguments = {
        "alpha": 10.0 ** random.uniform(-5, 0),
        "beta1": random.choice([0.0, random.uniform(0, 1), 0.9]),
        "beta2": random.choice([0.0, random.uniform(0, 1), 0.999]),
        "eps": 10.0 ** random.uniform(-12, -1),
        "eta": random.choice([1.0, random.uniform(0, 2)]),
    }
    if name in ("Adam", "AdamW"):
        arguments["weight_decay_rate"] = random.choice([0.0, 10.0 ** random.uniform(-6, -1)])
    if name == "Adam":
        arguments["amsgrad"] = bool(random.randint(2))
        arguments["adabound"] = bool(random.randint(2))
    if name in ("AdaBound", "AMSBound") or arguments.get("adabound"):
        arguments["final_lr"] = 10.0 ** random.uniform(-3, 0)
        arguments["gamma"] = 10.0 ** random.uniform(-4, 0)
    return {k: v if isinstance(v, bool) else float(v) for k, v in arguments.items()}


def chain_of(module: Any, arrays: list[np.ndarray]) -> Any:
    """A chain with a child list, of either library."""
    chain, inner = module.Chain(), module.ChainList()
    with chain.init_scope():
        chain.own = module.Parameter(arrays[0].copy())
        chain.inner = inner
    for array in arrays[1:]:
        link = module.Link()
        with link.init_scope():
            link.W = module.Parameter(array.copy())
        inner.append(link)
    return chain


class Scale:
    """A hook that scales gradients in place."""

    call_for_each_param = True

    def __init__(self, name: str, factor: float, timing: str) -> None:
        self.name, self.factor, self.timing = name, factor, timing

    def __call__(self, rule: Any, param: Any) -> None:
        if param.grad is not None:
            param.grad *= self.factor


class Record:
    """A hook that writes down the counts that it sees."""

    def __init__(self, name: str, timing: str) -> None:
        self.name, self.timing, self.seen = name, timing, []

    def __call__(self, optimizer: Any) -> None:
        rules = [param.update_rule for param in optimizer.target.params()]
        self.seen.append((optimizer.t, optimizer.epoch, [rule.t for rule in rules]))


def compare(ours: Any, theirs: Any) -> None:
    """Every bit of the targets and states, and the counts."""
    assert (ours.t, ours.epoch) == (theirs.t, theirs.epoch)
    pairs = list(zip(ours.target.namedparams(), theirs.target.namedparams(), strict=True))
    for (name, mine), (their_name, param) in pairs:
        assert name == their_name
        np.testing.assert_array_equal(mine.array, param.array)
        my_rule, rule = mine.update_rule, param.update_rule
        assert my_rule.t == rule.t
        assert (my_rule.state is None) == (rule.state is None)
        for key, expected in (rule.state or {}).items():
            np.testing.assert_array_equal(my_rule.state[key], expected)
            assert my_rule.state[key].dtype == expected.dtype


@pytest.mark.parametrize("seed", range(60))
def test_random_program(seed: int) -> None:
    random = np.random.RandomState(seed)
    name = CLASSES[seed % len(CLASSES)]
    dtype = ["float32", "float64"][random.randint(2)]
    shapes = [
        tuple(random.randint(1, 40, random.randint(1, 4))) for _ in range(random.randint(1, 6))
    ]
    arrays = [random.standard_normal(shape).astype(dtype) for shape in shapes]
    arguments = random_arguments(random, name)
    runs = []
    for module, optimizers in ((fastadam, fastadam.optimizers), (chainer, chainer.optimizers)):
        # Chainer's way of decay is said, or there is a warning
        mode = {"decay_mode": "eta"} if (module, name) == (fastadam, "AdamW") else {}
        optimizer = getattr(optimizers, name)(**arguments, **mode)
        runs.append(optimizer.setup(chain_of(module, arrays)))
    ours, theirs = runs
    recorders = [(Record("pre", "pre"), Record("post", "post")) for _ in runs]
    for optimizer, hooks in zip(runs, recorders, strict=True):
        for hook in hooks:
            optimizer.add_hook(hook)

    for step in range(random.randint(5, 60)):
        action = random.randint(12)
        which, number = random.randint(len(arrays)), float(random.uniform(0.1, 2))
        for optimizer in runs:
            params = [param for _, param in sorted(optimizer.target.namedparams())]
            rule = params[which].update_rule
            if action == 0:
                optimizer.alpha *= number
            elif action == 1:
                optimizer.eta = number
            elif action == 2:
                rule.hyperparam.beta1 = number / 3
            elif action == 3:
                rule.enabled = not rule.enabled
            elif action == 4:
                optimizer.new_epoch()
            elif action == 5:
                rule.hyperparam.weight_decay_rate = number / 100
            elif action == 6:
                rule.add_hook(Scale(f"rule {step}", number, "pre"))
            elif action == 7:
                optimizer.add_hook(Scale(f"all {step}", number, "pre"))
            elif action == 8:
                params[which].array[...] = number
        grads = [random.standard_normal(shape) * 10.0 ** random.uniform(-3, 2) for shape in shapes]
        missing = random.uniform(size=len(grads)) < 0.1
        for optimizer in runs:
            params = [param for _, param in sorted(optimizer.target.namedparams())]
            for param in params:
                k = next(k for k, grad in enumerate(grads) if grad.shape == param.shape)
                param.grad = None if missing[k] else grads[k].astype(dtype)
            optimizer.update()
        compare(ours, theirs)
    for mine, their in zip(*recorders, strict=True):
        assert mine.seen == their.seen
        assert mine.seen
