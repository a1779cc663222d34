"""What a rule keeps of its parameter: count, state and float32 master, and how they are loaded."""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import numpy as np

from fastadam.algorithms.number import check_truth
from fastadam.kernels.backend import device_of, is_array, loaded_cupy, move
from fastadam.kernels.dtypes import computing_dtype, is_floating, is_half
from fastadam.model.parameter import Parameter
from fastadam.serializers.prepared import PreparedLoad, stored_count, write_count
from fastadam.serializers.protocol import (
    check_stored_array,
    entry_name,
    is_deserializer,
    optional_entry,
)
from fastadam.update.master import follow, new_master, round_to
from fastadam.update.state_loading import prepare_state

__all__ = ["RuleState", "master_of", "uses_master"]


class RuleState:
    """The part of :class:`fastadam.UpdateRule` that keeps what belongs to one parameter.

    Attributes
    ----------
    t : int
        Number of updates made by this rule.
    """

    # State that is there only if a flag is on, or was: a file may have it or not.
    _late_names: ClassVar[tuple[str, ...]] = ()

    def __init__(self) -> None:
        self._state: dict[str, Any] | None = None
        self.t = 0
        self._use_fp32_update = False
        # the float32 master of a half-precision parameter, once there is one
        self._fp32_param: Any = None

    @property
    def state(self) -> dict[str, Any] | None:
        """The state by name, such as ``m`` and ``v``; None before the first update."""
        return self._state

    def use_fp32_update(self, flag: bool = True) -> None:
        """Keep a float32 master of a half-precision parameter, and update that.

        Each step is made on the master and rounded to the parameter's array, in place. What is
        written to the array between updates goes over to the master, element by element. The
        rule's hooks, `init_state` and `update_core` are given the master as their parameter.
        Float32 and float64 parameters are unaffected.

        Parameters
        ----------
        flag : bool
            False ends it: the master is dropped.
        """
        check_truth(flag, "use_fp32_update(flag): flag")
        self._use_fp32_update = bool(flag)
        if not flag:
            self._fp32_param = None

    def follow_device(self, param: Any) -> None:
        """Move the state, and the float32 master, to the device of a parameter's array.

        An update does it by itself; so does `Parameter.to_device`.

        Parameters
        ----------
        param : Parameter
            The rule's parameter; nothing happens as long as it has no array.
        """
        if loaded_cupy() is None or param.array is None:
            return
        device = device_of(param.array)
        master = self._fp32_param
        if master is not None and master.array is not None and device_of(master.array) != device:
            self._fp32_param = new_master(move(master.array, device), param)
        state = self._state
        if state and any(is_array(v) and device_of(v) != device for v in state.values()):
            self._state = {k: move(v, device) if is_array(v) else v for k, v in state.items()}

    def follow_dtype(self, param: Any) -> None:
        """Cast the state to what steps of a parameter are computed in, after its dtype has changed.

        Parameters
        ----------
        param : Parameter
            The rule's parameter; nothing happens as long as it has no array.
        """
        wanted = None if param.array is None else computing_dtype(param.array.dtype)
        state = self._state
        if wanted is None or not state:
            return
        moments = {k: v for k, v in state.items() if is_array(v) and is_floating(v.dtype)}
        with np.errstate(all="ignore"):
            cast = {key: value.astype(wanted, copy=False) for key, value in moments.items()}
        self._state = {**state, **cast}
        if not is_half(param.array.dtype):
            self._fp32_param = None

    def init_state(self, param: Parameter) -> None:
        """Fill ``self.state`` (an empty dict) before the first update; by default with nothing.

        Parameters
        ----------
        param : Parameter
            The parameter, for shape and dtype.
        """

    def serialize(self, serializer: Any) -> None:
        """Write `t` and the state to a serializer, or read them from a deserializer.

        A read that raises has changed nothing.

        Parameters
        ----------
        serializer : Serializer or Deserializer
            fastadam's or another library's, such as Chainer's.
        """
        if is_deserializer(serializer):
            self.prepare_load(serializer).commit()
            return
        write_count(serializer, "t", self.t)
        for key, value in (self._state or {}).items():
            serializer(key, value)
        if self._fp32_param is not None and self._use_fp32_update:
            serializer("fp32_param", self._fp32_param.array)

    def prepare_load(self, serializer: Any, param: Any = None) -> PreparedLoad:
        """Read and check `t`, the state and the float32 master; nothing changes yet.

        Parameters
        ----------
        serializer : Deserializer
            Where to read. Nothing is read from it later.
        param : Parameter, optional
            The rule's parameter, for shapes and dtypes.

        Returns
        -------
        PreparedLoad
            What its ``commit()`` is going to change.

        Raises
        ------
        KeyError
            If the state lacks an entry, unless nothing had been updated when it was saved, or the
            file says that there was no state; or the rule is disabled, where files do not say it.
        ValueError, TypeError
            If an entry has another shape, or a dtype that does not convert; if `t` is no count.
        """
        prepared = PreparedLoad()
        t = stored_count(serializer, "t", self.t)
        prepared.attribute(self, "t", t)
        prepared.attribute(self, "_fp32_param", self._read_master(serializer, param))
        prepare_state(prepared, serializer, self, param, t)
        return prepared

    def _read_master(self, serializer: Any, param: Parameter | None) -> Any:
        """Read and check a float32 master, if the file has one."""
        # Chainer's parameters are neither true nor false
        like = None if param is None else param.array
        stored = optional_entry(serializer, "fp32_param", like)
        if stored is None or not (like is None or is_half(like.dtype)):
            return None
        shape = None if like is None else like.shape
        entry = entry_name(serializer, "fp32_param")
        array = check_stored_array(stored, shape, np.float32, entry)
        new = np.asarray if getattr(serializer, "gives_new_arrays", False) else np.array
        return new_master(move(new(array, np.float32), device_of(like)), param)

    def _stepped(self, param: Any) -> Any:
        """Return what a step with masters is made on: the parameter, or its own, up to date."""
        if not is_half(param.array.dtype):
            return param
        return follow(self._fp32_param, param)

    def _finish(self, param: Any, stepped: Any) -> None:
        """Keep a master that has been stepped, and round it to its parameter."""
        self._fp32_param = stepped
        round_to(param, stepped)

    def _state_template(self, param: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return what a new state would be like, and attributes that are set with it."""
        return self._initial_state(param)

    def _initial_state(self, param: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return what `init_state` makes for a parameter: state, and attributes set with it.

        It is called on a copy, so that the rule stays as it is.
        """
        trial = copy.copy(self)
        trial._state = {}
        trial.init_state(self._template(param))
        own = vars(self)
        gained = {name: value for name, value in vars(trial).items() if name not in own}
        return trial._state or {}, gained

    def _template(self, param: Any) -> Any:
        """Return what state is made for: the parameter, or a master with its shape."""
        if param is None or param.array is None:
            return Parameter(np.zeros(1, np.float32))
        array = param.array
        if self._use_fp32_update and is_half(array.dtype):
            return new_master(array.astype(np.float32), param)
        return param

    def _late_state(self, param: Parameter | None, state: dict[str, Any]) -> dict[str, Any]:
        """Return what a state lacks because a flag was switched on since; by default nothing."""
        return {}

    def _new_state(self, param: Parameter | None) -> dict[str, Any]:
        """Return a fresh state for a parameter, without touching the rule's own."""
        if param is None or param.array is None:
            param = Parameter(np.zeros(1, np.float32))
        before, self._state = self._state, {}
        try:
            self.init_state(param)
            return self._state
        finally:
            self._state = before


def uses_master(rule: Any) -> bool | None:
    """Tell whether a rule is to keep a float32 master; None for what is no rule."""
    flag = getattr(rule, "_use_fp32_update", None)
    return None if flag is None else bool(flag)


def master_of(rule: RuleState) -> Any:
    """Return the float32 master of a rule's parameter, None if it has none."""
    return rule._fp32_param
