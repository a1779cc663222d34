"""One optimizer step beside the same step in plain NumPy, timed in turns."""

from __future__ import annotations

import statistics
import time
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastadam.cli.plain_numpy import PlainNumpyAdam
from fastadam.optimizers import Adam

__all__ = ["LARGE", "SideBySide", "Times", "time_large_step"]

Array = npt.NDArray[Any]

# Elements of the array on which the step of a larger model is measured.
LARGE = 1_000_000
_LARGE_STEPS = 15


class Times(NamedTuple):
    """Median times of a step in microseconds."""

    fastadam: float
    numpy: float


class SideBySide:
    """An optimizer, and the same in plain NumPy on copies of the parameters.

    Parameters
    ----------
    kind : type
        The optimizer's class.
    hyperparameters : dict
        What to give to it.
    params : dict of numpy.ndarray
        What the optimizer trains.
    """

    def __init__(
        self, kind: type[Adam], hyperparameters: dict[str, Any], params: dict[str, Array]
    ) -> None:
        copies = {name: p.copy() for name, p in params.items()}
        optimizer = kind(**hyperparameters).setup(params)
        plain = PlainNumpyAdam(copies, optimizer.hyperparam.get_dict())
        self._both = (params, copies)
        self._steps = (optimizer.apply_gradients, plain.step)
        self._times_ns: tuple[list[int], list[int]] = ([], [])

    def step(self, grads: dict[str, Array]) -> None:
        """Make a step with both, which take turns in going first."""
        order = (0, 1) if len(self._times_ns[0]) % 2 else (1, 0)
        for which in order:
            started = time.perf_counter_ns()
            self._steps[which](grads)
            self._times_ns[which].append(time.perf_counter_ns() - started)

    @property
    def times(self) -> Times:
        """The median times of all steps so far."""
        ours, numpy = (statistics.median(times) / 1000 for times in self._times_ns)
        return Times(ours, numpy)

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
