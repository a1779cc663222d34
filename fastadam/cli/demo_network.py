"""The demo's data, handwritten digits, and its network: 64 pixels, 32 tanh units, 10 classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastadam.cli.extras import load

__all__ = [
    "Digits",
    "accuracy",
    "autograd_gradients",
    "hand_gradients",
    "initial_parameters",
    "load_digits",
    "loss",
]

Array = npt.NDArray[Any]
Params = dict[str, Array]
# From parameters, images and one-hot labels to the loss and its gradients.
LossAndGradients = Callable[[Params, Array, Array], tuple[float, Params]]

_HIDDEN = 32
_CLASSES = 10
_TRAIN = 1437


class Digits(NamedTuple):
    """Images as rows of 64 pixels in [0, 1] and one-hot labels, float32, split in two."""

    x_train: Array
    y_train: Array
    x_test: Array
    y_test: Array


def load_digits() -> Digits:
    """Return the 1797 digits that scikit-learn brings along, four fifths of them for training.

    The split is the same in every run.
    """
    x, labels = load("demo", "sklearn.datasets").load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x = (x[order] / 16).astype(np.float32)
    y = np.eye(_CLASSES, dtype=np.float32)[labels[order]]
    return Digits(x[:_TRAIN], y[:_TRAIN], x[_TRAIN:], y[_TRAIN:])


def initial_parameters(seed: int) -> Params:
    """Return random weights, of variance 1 over the number of inputs, and biases of 0."""
    random = np.random.default_rng(seed)
    params: Params = {}
    for layer, n_in, n_out in ((1, 64, _HIDDEN), (2, _HIDDEN, _CLASSES)):
        weights = random.standard_normal((n_in, n_out), dtype=np.float32)
        params[f"W{layer}"] = weights / np.float32(np.sqrt(n_in))
        params[f"b{layer}"] = np.zeros(n_out, np.float32)
    return params


def loss(params: Params, x: Array, y: Array, xp: Any = np) -> Any:
    """Return the mean cross-entropy of the softmax; `xp` is NumPy, or autograd's."""
    hidden = xp.tanh(xp.dot(x, params["W1"]) + params["b1"])
    scores = xp.dot(hidden, params["W2"]) + params["b2"]
    shifted = scores - xp.max(scores, axis=1, keepdims=True)
    log_softmax = shifted - xp.log(xp.sum(xp.exp(shifted), axis=1, keepdims=True))
    return -xp.sum(y * log_softmax) / len(x)


def hand_gradients(params: Params, x: Array, y: Array) -> tuple[float, Params]:
    """Return the loss and its gradients, derived by hand."""
    hidden = np.tanh(x @ params["W1"] + params["b1"])
    scores = hidden @ params["W2"] + params["b2"]
    shifted = scores - scores.max(axis=1, keepdims=True)
    exp = np.exp(shifted)
    total = exp.sum(axis=1, keepdims=True)
    value = -np.sum(y * (shifted - np.log(total))) / len(x)
    d_scores = (exp / total - y) / np.float32(len(x))
    d_hidden = (d_scores @ params["W2"].T) * (1 - hidden * hidden)
    return float(value), {
        "W1": x.T @ d_hidden,
        "b1": d_hidden.sum(axis=0),
        "W2": hidden.T @ d_scores,
        "b2": d_scores.sum(axis=0),
    }


def autograd_gradients() -> LossAndGradients:
    """Return the function that HIPS autograd makes of `loss`."""
    xp = load("demo", "autograd.numpy")
    differentiated: LossAndGradients = load("demo", "autograd").value_and_grad(
        lambda params, x, y: loss(params, x, y, xp)
    )
    return differentiated


def accuracy(params: Params, x: Array, y: Array) -> float:
    """Return the fraction of images that get the highest score for their label."""
    scores = np.tanh(x @ params["W1"] + params["b1"]) @ params["W2"] + params["b2"]
    return float(np.mean(scores.argmax(axis=1) == y.argmax(axis=1)))
