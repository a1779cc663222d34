"""What there is to compare of an optimizer or a target: facts first, then arrays."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial, singledispatch
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from fastadam.algorithms.table import STATE
from fastadam.kernels.backend import is_array, on_cpu
from fastadam.update.exclusive import LOOK, undisturbed, walkable
from fastadam.update.target import Target, as_target

__all__ = ["KEPT", "PARAM", "SHARED", "Snapshot", "describe", "is_optimizer", "looked", "snapshot"]

Array = npt.NDArray[Any]
Key = tuple[str, str]
R = TypeVar("R")

# The name of a parameter's own array among its state.
PARAM = "param"

# The name of an array that is saved with the parameters, and is none.
KEPT = "kept"

# The name of the fact that a path holds the parameter of another.
SHARED = "shared with"


@dataclass(frozen=True, eq=False)
class Snapshot:
    """What an optimizer or a target is at one moment; made by :func:`fastadam.snapshot`.

    Its arrays are read-only copies. It can be pickled.

    Parameters
    ----------
    kind : type or None
        The class of the optimizer; None if a target was given alone.
    facts : dict of (str, str) to object
        Everything but arrays, by path of the parameter (``''`` for the optimizer itself) and name:
        counts, hyperparameters, settings, rules, names of hooks.
    arrays : dict of (str, str) to numpy.ndarray
        State and parameters by path and name, such as ``('l1/W', 'm')``; the parameter itself is
        ``'param'``, and what else of a module is saved, such as a buffer, ``'kept'``.
    paths : tuple of str
        The paths of the parameters.
    """

    kind: type | None
    facts: dict[Key, Any] = field(default_factory=dict)
    arrays: dict[Key, Array] = field(default_factory=dict)
    paths: tuple[str, ...] = ()

    @property
    def t(self) -> int | None:
        """The number of updates made; None for a target."""
        t: int | None = self.facts.get(("", "t"))
        return t

    @property
    def epoch(self) -> int | None:
        """The number of epochs begun; None for a target."""
        epoch: int | None = self.facts.get(("", "epoch"))
        return epoch

    def __repr__(self) -> str:
        what = "a target" if self.kind is None else f"{self.kind.__name__} at t={self.t}"
        n = len(self.paths)
        return f"<snapshot of {what}: {n} parameter{'' if n == 1 else 's'}>"


def snapshot(obj: Any) -> Snapshot:
    """Record what an optimizer or a target is now, for :func:`fastadam.compare`.

    Parameters
    ----------
    obj : Optimizer, or anything that may be a target
        What to record. An optimizer's parameters are recorded with it.

    Returns
    -------
    Snapshot
        A frozen copy: it takes as much memory as the state and the parameters.

    Raises
    ------
    TypeError, ValueError
        If `obj` is neither an optimizer nor a target.
    RuntimeError
        If an update of the optimizer is half-way.

    Examples
    --------
    >>> import numpy as np
    >>> import fastadam
    >>> params = {'w': np.array([1.0, -2.0])}
    >>> opt = fastadam.Adam(alpha=0.5).setup(params)
    >>> before = fastadam.snapshot(opt)
    >>> opt.apply_gradients({'w': np.array([2.0, 3.0])})
    >>> before
    <snapshot of Adam at t=0: 1 parameter>
    >>> before.arrays['w', 'param']
    array([ 1., -2.])
    """
    return looked(obj, None, lambda: _copied(describe(obj)))


def looked(a: Any, b: Any, look: Callable[[], R]) -> R:
    """Look at one or two things while nobody updates those of them that are optimizers."""
    for obj in (a, b):
        if is_optimizer(obj):
            look = partial(undisturbed, obj, LOOK, look)
    return look()


def _copied(live: Snapshot) -> Snapshot:
    """Return a snapshot with arrays of its own."""
    facts = {key: _kept(value) for key, value in live.facts.items()}
    return replace(live, facts=facts, arrays={k: _frozen(a) for k, a in live.arrays.items()})


@singledispatch
def describe(obj: Any) -> Snapshot:
    """Return a snapshot that shares the arrays of what it is taken of, at no cost of memory.

    A bridge to another library registers its own kinds of optimizers.
    """
    if isinstance(obj, Snapshot):
        return obj
    kind = type(obj) if is_optimizer(obj) else None
    facts = {} if kind is None else dict(_optimizer_facts(obj))
    arrays: dict[Key, Array] = {}
    targets = _targets_of(obj)
    if targets is None:
        return Snapshot(kind, facts)
    for path, param in targets.parameters.items():
        if kind is not None:
            _add_rule(facts, arrays, path, getattr(param, "update_rule", None), obj)
        # a parameter moves after its state: it is what shows a cause last
        if param.array is not None:
            arrays[path, PARAM] = on_cpu(param.array)
    for path, array in targets.kept().items():
        arrays[path, KEPT] = array
    for path, first in targets.aliases.items():
        facts[path, SHARED] = first
    return Snapshot(kind, facts, arrays, tuple(targets.parameters))


def is_optimizer(obj: Any) -> bool:
    """Tell an optimizer, this library's or Chainer's, from a target."""
    return hasattr(type(obj), "target") and callable(getattr(obj, "setup", None))


def _targets_of(obj: Any) -> Target | None:
    """Return the parameters as they are now; None for an optimizer that is not set up."""
    if not is_optimizer(obj):
        return as_target(obj)
    targets: Target | None = getattr(obj, "_targets", None)
    if targets is not None:
        if walkable(obj):
            targets.refresh()
        return targets
    return None if obj.target is None else as_target(obj.target)


def _optimizer_facts(opt: Any) -> Iterator[tuple[Key, Any]]:
    """Yield what there is to know of an optimizer without its parameters."""
    yield ("", "class"), type(opt)
    yield ("", "t"), opt.t
    yield ("", "epoch"), opt.epoch
    yield ("", "set up"), opt.target is not None
    hyperparam = getattr(opt, "hyperparam", None)
    for name, value in ({} if hyperparam is None else hyperparam.get_dict()).items():
        yield ("", f"hyperparam.{name}"), value
    yield ("", "loss_scale"), getattr(opt, "_loss_scale", None)
    dynamic = bool(getattr(opt, "_loss_scaling_is_dynamic", False))
    yield ("", "loss_scaling.dynamic"), dynamic
    if dynamic:
        for name in ("multiplier", "isnan_ever"):
            yield ("", f"loss_scaling.{name}"), getattr(opt, f"_loss_scaling_{name}", None)
        yield ("", "loss_scaling.max"), getattr(opt, "_loss_scale_max", None)
    yield ("", "on_nonfinite"), getattr(opt, "on_nonfinite", None)
    yield ("", "missing_gradients"), getattr(opt, "missing_gradients", "zeros")
    yield ("", "use_fp32_update"), bool(getattr(opt, "_use_fp32_update", False))
    yield ("", "hooks"), _hooks(opt)


def _add_rule(
    facts: dict[Key, Any], arrays: dict[Key, Array], path: str, rule: Any, opt: Any
) -> None:
    """Add what there is to know of a parameter's rule, and its state."""
    facts[path, "rule"] = None if rule is None else type(rule)
    if rule is None:
        return
    facts[path, "rule.t"] = getattr(rule, "t", None)
    facts[path, "rule.enabled"] = getattr(rule, "enabled", None)
    for name, value in _overrides(rule, getattr(opt, "hyperparam", None)):
        facts[path, name] = value
    facts[path, "rule.initial_alpha"] = getattr(rule, "initial_alpha", None)
    facts[path, "rule.use_fp32_update"] = bool(getattr(rule, "_use_fp32_update", False))
    facts[path, "rule.hooks"] = _hooks(rule)
    state = getattr(rule, "state", None) or {}
    # in the order of the formula: what comes first is nearest to the cause of a difference
    order = [name for name in STATE if name in state]
    for name in (*order, *(name for name in state if name not in STATE)):
        value = state[name]
        if isinstance(value, (np.generic, float, complex)) or is_array(value):
            arrays[path, name] = on_cpu(value)
        else:
            facts[path, name] = value
    master = getattr(getattr(rule, "_fp32_param", None), "array", None)
    if master is not None:
        arrays[path, "fp32_param"] = on_cpu(master)


def _overrides(rule: Any, common: Any) -> Iterator[tuple[str, Any]]:
    """Yield the hyperparameters of a rule that are not the optimizer's.

    A rule that does not follow the optimizer has all of its hyperparameters to itself.
    """
    bag = getattr(rule, "hyperparam", None)
    if bag is None:
        return
    own: dict[str, Any] = {}
    follows = bag
    while follows is not None and follows is not common:
        # Chainer's bags hold their parent among their entries
        own = {**{k: v for k, v in vars(follows).items() if k != "_parent"}, **own}
        follows = follows.parent
    yield "rule.follows the optimizer", follows is not None
    for name, value in own.items():
        yield f"hyperparam.{name}", value


def _hooks(owner: Any) -> tuple[str, ...]:
    """Return timing and name of the hooks of an optimizer or a rule, in order."""
    table = getattr(owner, "_hooks", None)
    if table is not None:
        return tuple(f"{timing} {name}" for timing, name, _ in table)
    # Chainer's own keep them elsewhere
    tables = getattr(owner, "_hookable", None)
    return tuple(
        f"{timing} {name}"
        for timing in ("pre", "post")
        for name in getattr(tables, f"_{timing}_update_hooks", ())
    )


def _kept(value: Any) -> Any:
    """Return a fact that stays as it is when its owner changes it in place."""
    if is_array(value):
        return _frozen(on_cpu(value))
    return copy.deepcopy(value) if isinstance(value, (list, dict, set, bytearray)) else value


def _frozen(array: Array) -> Array:
    """Return a read-only copy."""
    kept = np.array(array, copy=True, subok=False)
    kept.flags.writeable = False
    return kept
