"""The states of parameters: made, completed, and loaded."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch.optim import optimizer as torch_optimizer

from fastadam.torch.tensors import computing, is_dense, refuse_freed, zeros_like

__all__ = ["MASTER", "STREAMS", "StateChanges", "is_half", "refuse_state", "restored"]

# What PyTorch calls the streams in a state.
STREAMS = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")

# The float32 master of a half-precision parameter.
MASTER = "master_param"


def is_half(param: torch.Tensor) -> bool:
    """Tell whether a parameter is stored in half precision."""
    return param.dtype in (torch.float16, torch.bfloat16)


class StateChanges:
    """What is to be put into an optimizer's states before a step, and may be taken back.

    Parameters
    ----------
    states : dict
        The optimizer's ``state``.
    masters : bool
        Whether half-precision parameters have float32 masters.
    """

    def __init__(self, states: Any, masters: bool) -> None:
        self._states = states
        self._masters = masters
        self._new: list[tuple[torch.Tensor, dict[str, Any]]] = []
        # dict, key, what it becomes
        self._entries: list[tuple[dict[str, Any], str, Any]] = []
        self._before: list[tuple[dict[str, Any], str, bool, Any]] = []

    def state_of(self, name: str, param: torch.Tensor, amsgrad: bool) -> dict[str, Any]:
        """Return the state of a parameter as it will be once `make` is called.

        Parameters
        ----------
        name : str
            The parameter's, for messages.
        param : torch.Tensor
            The parameter.
        amsgrad : bool
            Whether it needs the running maximum.

        Raises
        ------
        TypeError, ValueError
            If what is there is none of Adam's.
        """
        state: dict[str, Any] | None = self._states.get(param)
        needs_master = self._masters and is_half(param)
        if not state:
            # one that somebody has looked at is there, and empty
            state = {} if state is None else state
            self._new.append((param, state))
            self._entries.append((state, "step", count(0.0)))
            self._entries += [(state, key, zeros_like(param)) for key in STREAMS[: 2 + amsgrad]]
        else:
            refuse_state(name, param, state)
            self._complete(param, state, amsgrad)
        if needs_master and MASTER not in state:
            self._entries.append((state, MASTER, fitting(param.detach(), param)))
        return state

    def _complete(self, param: torch.Tensor, state: dict[str, Any], amsgrad: bool) -> None:
        """Note what is missing in a state, and what has another type or layout than is stepped."""
        step = state["step"]
        if (
            not isinstance(step, torch.Tensor)
            or step.device.type != "cpu"
            or step.dtype not in (torch.float32, torch.float64)
        ):
            self._entries.append((state, "step", count(float(step))))
        if amsgrad and STREAMS[2] not in state:
            self._entries.append((state, STREAMS[2], zeros_like(param)))
        for key in (*STREAMS, MASTER):
            if key in state and not fits(state[key], param):
                self._entries.append((state, key, fitting(state[key], param)))

    def make(self) -> None:
        """Put everything into the states."""
        self._before = [
            (state, key, key in state, state.get(key)) for state, key, _ in self._entries
        ]
        for state, key, value in self._entries:
            state[key] = value
        for param, state in self._new:
            self._states[param] = state

    def take_back(self) -> None:
        """Leave the states as they were."""
        for state, key, there, value in self._before:
            if there:
                state[key] = value
            else:
                state.pop(key, None)
        for param, state in self._new:
            if not state:
                self._states.pop(param, None)


def count(t: float) -> torch.Tensor:
    """Return a count of steps as PyTorch keeps it."""
    return torch.tensor(t, dtype=torch_optimizer._get_scalar_dtype(), device="cpu")


def refuse_state(name: str, param: torch.Tensor, state: Any) -> None:
    """Refuse a state that is none of Adam's, or not this parameter's.

    Parameters
    ----------
    name : str
        The parameter's, for messages.
    param : torch.Tensor
        The parameter.
    state : dict
        Its state.

    Raises
    ------
    TypeError, ValueError, RuntimeError
        With the name and what is wrong.
    """
    if not isinstance(state, dict):
        raise TypeError(f"the state of parameter {name!r} is a {type(state).__name__}, no dict")
    missing = [key for key in ("step", *STREAMS[:2]) if key not in state]
    if missing:
        raise ValueError(
            f"the state of parameter {name!r} has no {' and no '.join(missing)}: it is none of "
            f"Adam's. Its keys are {', '.join(map(repr, state)) or 'none'}"
        )
    for key in ("step", *STREAMS, MASTER):
        if isinstance(state.get(key), torch.Tensor):
            refuse_freed(f"{key} of parameter {name!r}", state[key])
    step = state["step"]
    if isinstance(step, torch.Tensor):
        step = step.item() if step.numel() == 1 else math.nan
    if not isinstance(step, int | float) or not 0 <= step < math.inf:
        raise ValueError(
            f"step in the state of parameter {name!r} must be a number of steps, at least 0, not "
            f"{state['step']!r}"
        )
    for key in (*STREAMS, MASTER):
        if key not in state:
            continue
        tensor = state[key]
        if not isinstance(tensor, torch.Tensor):
            raise TypeError(
                f"{key} of parameter {name!r} must be a tensor, not of type {type(tensor).__name__}"
            )
        if tensor.shape != param.shape:
            raise ValueError(
                f"{key} of parameter {name!r} has the shape {tuple(tensor.shape)}, and the "
                f"parameter {tuple(param.shape)}"
            )
        if tensor.layout is not torch.strided or tensor.is_complex() != param.is_complex():
            raise ValueError(
                f"{key} of parameter {name!r}, of {param.dtype}, is a tensor of {tensor.dtype} and "
                f"{tensor.layout}"
            )


def fits(tensor: torch.Tensor, param: torch.Tensor) -> bool:
    """Tell whether a moment has the type and the layout of its parameter's step."""
    if (
        tensor.dtype != computing(param.dtype)
        or tensor.device != param.device
        or tensor.is_conj()
        or tensor.is_neg()
    ):
        return False
    if tensor.stride() == param.stride() and is_dense(param):
        return True
    return tensor.stride() == torch.empty_like(param).stride()


def fitting(tensor: torch.Tensor, param: torch.Tensor) -> torch.Tensor:
    """Return a moment in the type and the layout of its parameter's step, in memory of its own."""
    return zeros_like(param).copy_(tensor.detach())


def restored(name: str, param: torch.Tensor, given: dict[str, Any]) -> dict[str, Any]:
    """Return the state that is loaded for a parameter.

    PyTorch casts moments to the parameter's dtype, and keeps what needs no cast: memory of the dict
    that was loaded. Here they are float32 for half precision, and nothing is shared.

    Parameters
    ----------
    name : str
        The parameter's, for messages.
    param : torch.Tensor
        The parameter.
    given : dict
        What was saved.

    Raises
    ------
    TypeError, ValueError
        As `refuse_state` says.
    """
    refuse_state(name, param, given)
    state: dict[str, Any] = {}
    for key, value in given.items():
        if key in (*STREAMS, MASTER):
            state[key] = fitting(value, param)
        elif key == "step":
            number = value.item() if isinstance(value, torch.Tensor) else value
            wide = isinstance(value, torch.Tensor) and value.dtype == torch.float64
            t = float(number)
            state[key] = torch.tensor(t, dtype=torch.float64, device="cpu") if wide else count(t)
        elif isinstance(value, torch.Tensor):
            state[key] = value.detach().clone()
        else:
            state[key] = copy.deepcopy(value)
    return state
