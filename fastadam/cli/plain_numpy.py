"""The step as one writes it in plain NumPy, for the demo to measure against."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["PlainNumpyAdam"]

Array = npt.NDArray[Any]


class PlainNumpyAdam:
    """The Adam family in a dozen lines of array operations, parameter by parameter.

    Parameters
    ----------
    params : dict of numpy.ndarray
        Updated in place.
    hyperparam : dict
        Of a :class:`fastadam.Adam`, all of them.

    Examples
    --------
    >>> import numpy as np
    >>> import fastadam
    >>> plain, fast = {'w': np.ones(3)}, {'w': np.ones(3)}
    >>> opt = fastadam.Adam(alpha=0.1).setup(fast)
    >>> optimizer = PlainNumpyAdam(plain, opt.hyperparam.get_dict())
    >>> for _ in range(10):
    ...     opt.apply_gradients({'w': 2 * fast['w']})
    ...     optimizer.step({'w': 2 * plain['w']})
    >>> np.allclose(plain['w'], fast['w'], rtol=1e-12)
    True
    """

    def __init__(self, params: dict[str, Array], hyperparam: dict[str, Any]) -> None:
        self.params = params
        self.hyperparam = hyperparam
        self.t = 0
        self.m = {name: np.zeros_like(p) for name, p in params.items()}
        self.v = {name: np.zeros_like(p) for name, p in params.items()}
        self.largest_v = {name: np.zeros_like(p) for name, p in params.items()}

    def step(self, grads: dict[str, Array]) -> None:
        """Make one step."""
        hp = self.hyperparam
        self.t += 1
        alpha, beta1, beta2, t = hp["alpha"], hp["beta1"], hp["beta2"], self.t
        alpha_t = alpha * math.sqrt(1 - beta2**t) / (1 - beta1**t)
        for name, p in self.params.items():
            g, m, v = grads[name], self.m[name], self.v[name]
            m += (1 - beta1) * (g - m)
            v += (1 - beta2) * (g * g - v)
            if hp["amsgrad"]:
                v = np.maximum(self.largest_v[name], v, out=self.largest_v[name])
            step = alpha_t / (np.sqrt(v) + hp["eps"])
            if hp["adabound"]:
                lower = hp["final_lr"] * (1 - 1 / (hp["gamma"] * t + 1))
                upper = hp["final_lr"] * (1 + 1 / (hp["gamma"] * t))
                step = np.clip(step, lower, upper)
            if hp["weight_decay_rate"]:
                p *= 1 - hp["eta"] * hp["weight_decay_rate"]
            p -= hp["eta"] * step * m
