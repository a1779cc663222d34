"""Random sequences of what one does with an optimizer, beside a model of a few lines of Python."""

from __future__ import annotations

import copy
import math
import os
import pickle
import tempfile
import time
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import fastadam
from fastadam.optimizer_hooks import GradientClipping, WeightDecay

NAMES = ("a", "b", "c")
SIZES = {"a": 1, "b": 3, "c": 2}
HYPERPARAM = {"alpha": 0.5, "beta1": 0.75, "beta2": 0.875, "eps": 2**-20, "eta": 1.0}
HOOKS = {
    "WeightDecay": lambda: WeightDecay(0.25),
    "GradientClipping": lambda: GradientClipping(2.0),
}


class Model:
    """What an optimizer is to do, one number after the other."""

    def __init__(self, amsgrad: bool) -> None:
        self.amsgrad = amsgrad
        self.t = 0
        self.hyperparam = dict(HYPERPARAM)
        self.hooks: list[str] = []
        self.p = {name: [1.0 + i for i in range(SIZES[name])] for name in NAMES}
        self.state: dict[str, Any] = dict.fromkeys(NAMES)
        self.ts = dict.fromkeys(NAMES, 0)
        self.enabled = dict.fromkeys(NAMES, True)
        self.own: dict[str, dict[str, float]] = {name: {} for name in NAMES}

    def update(self, gradients: dict[str, Any]) -> None:
        """Make one update; a missing gradient counts as zeros."""
        g = {n: list(x) if x is not None else [0.0] * SIZES[n] for n, x in gradients.items()}
        moved = [name for name in NAMES if self.enabled[name]]
        for hook in self.hooks:
            if hook == "WeightDecay":
                for n in moved:
                    g[n] = [x + 0.25 * p for x, p in zip(g[n], self.p[n], strict=True)]
            else:
                # sums within a parameter, then of all
                norm = math.sqrt(_of_neighbours([_sum_of_squares(g[n]) for n in moved]))
                if norm > 2.0:
                    for n in moved:
                        g[n] = [x * (2.0 / norm) for x in g[n]]
        self.t += 1
        for n in moved:
            self._step(n, g[n])

    def _step(self, n: str, g: list[float]) -> None:
        h = {**self.hyperparam, **self.own[n]}
        self.ts[n] += 1
        t = self.ts[n]
        m, v, vhat = self.state[n] or ([0.0] * len(g) for _ in range(3))
        alpha_t = h["alpha"] * math.sqrt(1 - h["beta2"] ** t) / (1 - h["beta1"] ** t)
        for i, x in enumerate(g):
            m[i] = m[i] + (1 - h["beta1"]) * (x - m[i])
            v[i] = v[i] + (1 - h["beta2"]) * (x * x - v[i])
            vhat[i] = max(vhat[i], v[i])
            denominator = math.sqrt(vhat[i] if self.amsgrad else v[i]) + h["eps"]
            self.p[n][i] = self.p[n][i] - h["eta"] * (alpha_t / denominator * m[i])
        self.state[n] = m, v, vhat


def _of_neighbours(sums: list[float]) -> float:
    """Neighbours are added until one is left; a last one without a neighbour is left as it is."""
    while len(sums) > 1:
        sums = [sum(sums[i : i + 2]) for i in range(0, len(sums), 2)]
    return sums[0] if sums else 0.0


def _sum_of_squares(numbers: list[float]) -> float:
    """Of at most 256 numbers: lanes that fold by halves."""
    lanes = [x * x for x in numbers] + [0.0] * (256 - len(numbers))
    while len(lanes) > 1:
        half = len(lanes) // 2
        lanes = [lanes[i] + lanes[i + half] for i in range(half)]
    return lanes[0]


numbers = st.sampled_from([0.0, 0.5, -0.25, 1.0, -3.0, 0.1, 1e-3, 7.0])
names = st.sampled_from(NAMES)


class OptimizerMachine(RuleBasedStateMachine):
    """An optimizer and its model, to which the same is done."""

    @initialize(amsgrad=st.booleans())
    def begin(self, amsgrad: bool) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.model = Model(amsgrad)
        self.kind = fastadam.AMSGrad if amsgrad else fastadam.Adam
        self.opt = self.set_up()

    def set_up(self) -> Any:
        arrays = {name: np.array(self.model.p[name]) for name in NAMES}
        opt = self.kind(**HYPERPARAM).setup(arrays)
        for hook in self.model.hooks:
            opt.add_hook(HOOKS[hook]())
        return opt

    @rule(data=st.data())
    def update(self, data: st.DataObject) -> None:
        gradients = {
            name: data.draw(st.none() | st.lists(numbers, min_size=n, max_size=n))
            for name, n in SIZES.items()
        }
        self.opt.apply_gradients(
            {name: None if g is None else np.array(g) for name, g in gradients.items()}
        )
        self.model.update(gradients)

    @rule(alpha=st.sampled_from([0.5, 0.125, 1.0]))
    def schedule(self, alpha: float) -> None:
        self.opt.hyperparam.alpha = self.model.hyperparam["alpha"] = alpha

    @rule(name=names, beta1=st.sampled_from([0.5, 0.75, 0.25]))
    def override(self, name: str, beta1: float) -> None:
        self.opt.set_hyperparam(name, beta1=beta1)
        self.model.own[name]["beta1"] = beta1

    @rule(name=names)
    def enable_or_disable(self, name: str) -> None:
        enabled = not self.model.enabled[name]
        self.opt.parameters[name].update_rule.enabled = enabled
        self.model.enabled[name] = enabled

    @rule(name=st.sampled_from(sorted(HOOKS)))
    def hook(self, name: str) -> None:
        if name in self.model.hooks:
            self.opt.remove_hook(name)
            self.model.hooks.remove(name)
        else:
            self.opt.add_hook(HOOKS[name]())
            self.model.hooks.append(name)

    @rule(name=names, value=numbers)
    def write_a_parameter(self, name: str, value: float) -> None:
        self.opt.parameters[name].array[...] = value
        self.model.p[name] = [value] * SIZES[name]

    @rule(name=names)
    def rebind_an_array(self, name: str) -> None:
        tree = self.opt._targets.tree
        tree[name] = tree[name].copy()

    @rule()
    def set_up_again(self) -> None:
        p = self.model.p
        fresh = Model(self.model.amsgrad)
        fresh.p = p
        fresh.hyperparam = self.model.hyperparam
        self.model = fresh
        self.opt.setup({name: np.array(p[name]) for name in NAMES})

    @rule(how=st.sampled_from(["deepcopy", "pickle"]))
    def copy(self, how: str) -> None:
        if how == "deepcopy":
            self.opt = copy.deepcopy(self.opt)
        else:
            self.opt = pickle.loads(pickle.dumps(self.opt))

    @rule()
    def save_and_load(self) -> None:
        path = Path(self.folder.name, "run.npz")
        fastadam.save(path, self.opt)
        self.opt = self.set_up()
        fastadam.load(path, self.opt)

    @rule(gradients=st.sampled_from([{}, {"a": np.ones(1)}, {name: np.ones(9) for name in NAMES}]))
    def refuse(self, gradients: Any) -> None:
        try:
            self.opt.apply_gradients(gradients)
        except ValueError:
            return
        raise AssertionError("it was taken")

    @precondition(lambda self: self.model.t > 0)
    @rule()
    def forget_a_state(self) -> None:
        self.opt.parameters["c"].update_rule.init_state(self.opt.parameters["c"])
        self.model.state["c"] = ([0.0] * 2, [0.0] * 2, [0.0] * 2)

    @invariant()
    def they_are_equal(self) -> None:
        if not hasattr(self, "model"):
            return
        assert self.opt.t == self.model.t
        for name in NAMES:
            param = self.opt.parameters[name]
            rule_, state = param.update_rule, self.model.state[name]
            assert param.array.tolist() == self.model.p[name], name
            assert rule_.t == self.model.ts[name]
            assert rule_.enabled == self.model.enabled[name]
            if state is not None:
                assert rule_.state["m"].tolist() == state[0]
                assert rule_.state["v"].tolist() == state[1]

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.folder.cleanup()


TestOptimizer = OptimizerMachine.TestCase
TestOptimizer.settings = hypothesis.settings(
    max_examples=60,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)


@pytest.mark.skipif(os.environ.get("FASTADAM_CAMPAIGN") != "on", reason="tox -e campaign")
def test_for_ten_minutes() -> None:
    end = time.monotonic() + 600
    longer = hypothesis.settings(
        TestOptimizer.settings,
        max_examples=300,
        stateful_step_count=40,
        derandomize=False,
        database=None,
    )
    while time.monotonic() < end:
        run_state_machine_as_test(OptimizerMachine, settings=longer)
