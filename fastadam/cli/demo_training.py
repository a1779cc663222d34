"""The demo's training: every variant from the same start, each step beside plain NumPy's."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fastadam.cli import demo_network as network
from fastadam.cli.plain_numpy import PlainNumpyAdam
from fastadam.optimizers import AdaBound, Adam, AdamW, AMSBound, AMSGrad

__all__ = ["LARGE", "VARIANTS", "SideBySide", "Times", "time_large_step", "train"]

_BATCH = 64

# Elements of the array on which the step of a larger model is measured.
LARGE = 1_000_000
_LARGE_STEPS = 15

# Class and hyperparameters: they suit this network, and no two curves lie on each other.
VARIANTS: tuple[tuple[type[Adam], dict[str, Any]], ...] = (
    (Adam, {"alpha": 0.005}),
    (AdamW, {"alpha": 0.005, "weight_decay_rate": 0.0005}),
    (AMSGrad, {"alpha": 0.01}),
    (AdaBound, {"alpha": 0.01, "final_lr": 0.5}),
    (AMSBound, {"alpha": 0.02, "final_lr": 0.2}),
)


class Times(NamedTuple):
    """Median times of a step in microseconds."""

    fastadam: float
    numpy: float


class SideBySide:
    """An optimizer, and the same in plain NumPy on copies of the parameters."""

    def __init__(
        self, kind: type[Adam], hyperparameters: dict[str, Any], params: network.Params
    ) -> None:
        copies = {name: p.copy() for name, p in params.items()}
        optimizer = kind(**hyperparameters).setup(params)
        plain = PlainNumpyAdam(copies, optimizer.hyperparam.get_dict())
        self._both = (params, copies)
        self._steps = (optimizer.apply_gradients, plain.step)
        self._times_ns: tuple[list[int], list[int]] = ([], [])

    def step(self, grads: network.Params) -> None:
        """Make a step with both, which take turns in going first."""
        order = (0, 1) if len(self._times_ns[0]) % 2 else (1, 0)
        for which in order:
            started = time.perf_counter_ns()
            self._steps[which](grads)
            self._times_ns[which].append(time.perf_counter_ns() - started)

    @property
    def times(self) -> Times:
        """The median times of all steps so far."""
        return Times(*(statistics.median(times) / 1000 for times in self._times_ns))

    @property
    def difference(self) -> float:
        """The largest difference between the parameters that the two have arrived at."""
        ours, copies = self._both
        return max(float(np.abs(p - copies[name]).max()) for name, p in ours.items())


def time_large_step(kind: type[Adam], hyperparameters: dict[str, Any]) -> Times:
    """Time the step of a variant on one float32 array of `LARGE` elements."""
    random = np.random.default_rng(0)
    params = {"w": random.standard_normal(LARGE, dtype=np.float32)}
    grads = {"w": random.standard_normal(LARGE, dtype=np.float32)}
    both = SideBySide(kind, hyperparameters, params)
    for _ in range(_LARGE_STEPS):
        both.step(grads)
    return both.times


def train(
    kind: type[Adam],
    hyperparameters: dict[str, Any],
    digits: network.Digits,
    gradients: network.LossAndGradients,
    epochs: int,
    seed: int,
    after_epoch: Callable[[float], Any],
) -> dict[str, Any]:
    """Train a network with one variant, and call something with the loss after each epoch.

    Returns
    -------
    dict
        Ready for JSON: what was trained and how well, the loss over all training images before the
        first epoch and after each, the times, and how far from the trained parameters plain
        NumPy's steps have led.
    """
    params = network.initial_parameters(seed)
    both = SideBySide(kind, hyperparameters, params)
    random = np.random.default_rng(seed)
    losses = [float(network.loss(params, digits.x_train, digits.y_train))]
    for _ in range(epochs):
        order = random.permutation(len(digits.x_train))
        for begin in range(0, len(order) - _BATCH + 1, _BATCH):
            batch = order[begin : begin + _BATCH]
            _, grads = gradients(params, digits.x_train[batch], digits.y_train[batch])
            both.step(grads)
        losses.append(float(network.loss(params, digits.x_train, digits.y_train)))
        after_epoch(losses[-1])
    return {
        "variant": kind.__name__,
        "hyperparameters": hyperparameters,
        "final_loss": losses[-1],
        "test_accuracy": network.accuracy(params, digits.x_test, digits.y_test),
        "step_us": both.times._asdict(),
        "large_step_us": time_large_step(kind, hyperparameters)._asdict(),
        "difference_to_numpy": both.difference,
        "losses": losses,
    }
