"""The demo's training: every variant from the same start, on the same images in the same order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fastadam.cli import demo_network as network
from fastadam.cli.demo_timing import SideBySide, Times
from fastadam.optimizers import AdaBound, Adam, AdamW, AMSBound, AMSGrad

__all__ = ["VARIANTS", "Trained", "train"]

_BATCH = 64

# Class and hyperparameters: they suit this network, and no two curves lie on each other.
VARIANTS: tuple[tuple[type[Adam], dict[str, Any]], ...] = (
    (Adam, {"alpha": 0.005}),
    (AdamW, {"alpha": 0.005, "weight_decay_rate": 0.0005}),
    (AMSGrad, {"alpha": 0.01}),
    (AdaBound, {"alpha": 0.01, "final_lr": 0.5}),
    (AMSBound, {"alpha": 0.02, "final_lr": 0.2}),
)


class Trained(NamedTuple):
    """What came out of training with one variant.

    ``losses`` is the loss over all training images, before the first epoch and after each;
    ``numpy_difference`` how far from the trained parameters plain NumPy's steps have led.
    """

    losses: list[float]
    test_accuracy: float
    times: Times
    numpy_difference: float


def train(
    kind: type[Adam],
    hyperparameters: dict[str, Any],
    digits: network.Digits,
    gradients: network.LossAndGradients,
    epochs: int,
    seed: int,
    after_epoch: Callable[[float], Any],
) -> Trained:
    """Train a network with one variant, each step beside the same in plain NumPy.

    Parameters
    ----------
    kind : type
        The optimizer's class.
    hyperparameters : dict
        What to give to it.
    digits : Digits
        The data.
    gradients : callable
        From parameters, images and labels to the loss and its gradients.
    epochs : int
        How often to go through the training images.
    seed : int
        Of the initial weights and of the order of the images.
    after_epoch : callable
        Called with the training loss after each epoch.

    Returns
    -------
    Trained
        The loss curve, the accuracy and the times.
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
    return Trained(
        losses=losses,
        test_accuracy=network.accuracy(params, digits.x_test, digits.y_test),
        times=both.times,
        numpy_difference=both.difference,
    )
