"""The moments of an Adam rule: made, kept for the next step, and named for the kernels."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastadam.algorithms.adam import ADAM, Coefficients
from fastadam.kernels.backend import is_array
from fastadam.kernels.dtypes import computing_dtype, is_half, state_like
from fastadam.kernels.table import Step
from fastadam.update.overrides import overrides
from fastadam.update.rule import UpdateRule
from fastadam.update.state_loading import StateLike

__all__ = ["AdamState", "widened"]


class AdamState(UpdateRule):
    """The part of :class:`fastadam.AdamRule` that keeps the moments."""

    _late_names = ADAM.late

    def init_state(self, param: Any) -> None:
        """Make the moments: zeros of the parameter's shape and dtype, float32 for half types.

        Parameters
        ----------
        param : Parameter
            The parameter.
        """
        if self._state is None:
            # called from outside, before the first update
            self._state = {}
        state = self._state
        for key in ADAM.needed(self.hyperparam):
            state[key] = state_like(param.array)

    def _ready_state(
        self, param: Any, coefficients: Coefficients, trial: bool = False
    ) -> dict[str, Any]:
        """Return the state for the next step: the rule's own, or one that has what is missing."""
        state = self._state
        if state is None:
            state = (
                {key: state_like(param.array) for key in ADAM.state}
                if trial
                else self._new_state(param)
            )
        lacking = [key for key in ADAM.needed(coefficients) if key not in state]
        late = self._late_state(param, state) if lacking else {}
        return {**state, **late} if late else state

    def _state_template(self, param: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return what the moments would be like, unless a subclass makes its own state."""
        if overrides(self, "init_state", AdamState):
            return self._initial_state(param)
        array = np.zeros(1, np.float32) if param is None or param.array is None else param.array
        like = StateLike(array, computing_dtype(array.dtype) or array.dtype)
        return dict.fromkeys(ADAM.needed(self.hyperparam), like), {}

    def _initial_state(self, param: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return a new state, in float32 for half types whatever a subclass makes."""
        state, gained = super()._initial_state(param)
        return {key: widened(value) for key, value in state.items()}, gained

    def _new_state(self, param: Any) -> dict[str, Any]:
        """Return a fresh state, in float32 for half types whatever a subclass makes."""
        return {key: widened(value) for key, value in super()._new_state(param).items()}

    def _late_state(self, param: Any, state: dict[str, Any]) -> dict[str, Any]:
        """Return the streams whose flag was switched on later, as zeros."""
        if param is None or param.array is None:
            return {}
        needed = ADAM.needed(self.hyperparam)
        lacking = [key for key in ADAM.late if key in needed and key not in state]
        return {key: state_like(param.array) for key in lacking}

    def _step(
        self, param: Any, grad: Any, state: dict[str, Any], coefficients: Coefficients
    ) -> Step:
        """Name the arrays of one step."""
        name = self.path or param.name or "param"
        needed = ADAM.needed(coefficients)
        lacking = [key for key in needed if key not in state]
        if lacking:
            raise ValueError(
                f"parameter {name!r}: its rule's state lacks {', '.join(map(repr, lacking))}; put "
                "the arrays back, or begin anew with rule.init_state(param) and rule.t = 0"
            )
        arrays = tuple([state[key] if key in needed else None for key in ADAM.state])
        return Step(name, param.array, grad, arrays, coefficients)

    def _written(self, param: Any) -> list[tuple[str, Any]]:
        """Return what a step writes: the parameter, its master, and the moments."""
        state = self._state or {}
        moments = [(key, state[key]) for key in ADAM.state if key in state]
        return [*super()._written(param), *moments]


def widened(value: Any) -> Any:
    """Return state in float32 that a subclass has made in its parameter's half type."""
    if is_array(value) and is_half(value.dtype):
        return value.astype(np.float32)
    return value
