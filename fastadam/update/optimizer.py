"""The base of optimizers: a target, two counters, hooks and serialization."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Self

from fastadam.serializers.prepared import PreparedLoad, stored_count, write_count
from fastadam.serializers.protocol import is_deserializer, read_ahead
from fastadam.serializers.remembering import parts_of
from fastadam.update.exclusive import LOAD, LOOK, undisturbed, walkable
from fastadam.update.hooks import Hook, HookTable
from fastadam.update.order import Comparable
from fastadam.update.overrides import brought_by_class, loads_in_two_phases
from fastadam.update.parameter_table import ParameterTable
from fastadam.update.target import ArrayTarget, Target, as_target

__all__ = ["Optimizer", "target_of"]


class Optimizer(Comparable):
    """Base class of optimizers: target, counters, hooks and serialization.

    A subclass overrides `update`. For methods that need one gradient, derive from
    :class:`GradientMethod` instead.

    Attributes
    ----------
    target : object
        What was given to `setup`; None before.
    t : int
        Number of updates made.
    epoch : int
        Number of epochs begun with `new_epoch`.
    use_auto_new_epoch : bool
        Whether a trainer calls ``new_epoch(auto=True)``; then nobody else may call it.
    """

    target: Any = None
    t: int = 0
    epoch: int = 0
    use_auto_new_epoch: bool = False
    _hooks: HookTable | None = None
    _targets: Target | None = None

    def setup(self, link: Any) -> Self:
        """Set the target; counters begin at 0, and old hooks and state are dropped.

        Parameters
        ----------
        link : Link, object with ``params()``, module, array, or dict or list of arrays
            What to train. Arrays are updated in place. Dicts and lists may be nested. A module is
            PyTorch's, on the CPU.

        Returns
        -------
        Optimizer
            The optimizer itself.

        Raises
        ------
        TypeError
            If it is none of these; the message says what to give instead.
        ValueError
            If a dict key is empty, contains '/', or is a top-level 't' or 'epoch'; if arrays
            share part of their memory; if there are no arrays.
        """
        undisturbed(self, LOAD, lambda: self._set_target(link))
        return self

    def _set_target(self, link: Any) -> None:
        """Take a target; count from 0, without hooks."""
        targets = as_target(link)
        self.__dict__.update(_targets=targets, target=link, t=0, epoch=0, _hooks=HookTable())

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy has; refused while it is half-made."""
        return undisturbed(self, LOOK, lambda: {**self.__dict__, "_whole": _Whole(self)})

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take what another had."""
        self.__dict__.update(state)
        self.__dict__.pop("_whole", None)
        if isinstance(self._targets, ArrayTarget):
            # arrays that were views of one memory are so again
            self.target = self._targets.tree

    def update(self, lossfun: Callable[..., Any] | None = None, *args: Any, **kwds: Any) -> Any:
        """Update the parameters; a subclass says how.

        Parameters
        ----------
        lossfun : callable, optional
            The loss function; without it the gradients are there already.
        *args, **kwds
            What the loss function is called with.
        """
        raise NotImplementedError(f"{type(self).__name__} must override update")

    @property
    def parameters(self) -> ParameterTable:
        """The target's parameters by path: a read-only mapping that prints as a table."""
        self._look_again()
        return ParameterTable(self._set_up().parameters)

    def new_epoch(self, auto: bool = False) -> None:
        """Begin a new epoch: ``epoch`` goes up by 1.

        Parameters
        ----------
        auto : bool
            Given by trainers that count the epochs themselves and have set
            ``use_auto_new_epoch``.

        Raises
        ------
        RuntimeError
            If `auto` and ``use_auto_new_epoch`` disagree: the epoch would be counted twice.
        """
        if auto and not self.use_auto_new_epoch:
            raise RuntimeError(
                "new_epoch(auto=True) is for trainers that have set use_auto_new_epoch = True"
            )
        if not auto and self.use_auto_new_epoch:
            raise RuntimeError(
                "the trainer counts epochs already (use_auto_new_epoch is True); drop the call of "
                "new_epoch(), or tell the trainer not to count: auto_new_epoch=False"
            )
        self.epoch += 1

    def add_hook(self, hook: Hook, name: str | None = None, timing: str = "auto") -> None:
        """Add a function called before or after each update, in the order of registration.

        Parameters
        ----------
        hook : callable
            Called as ``hook(optimizer)``; if its attribute ``call_for_each_param`` is true, as
            ``hook(update_rule, param)`` for every parameter.
        name : str, optional
            Default: ``hook.name`` or ``hook.__name__``.
        timing : {'auto', 'pre', 'post'}
            'auto' takes ``hook.timing``, or 'pre' without one.

        Raises
        ------
        RuntimeError
            If the optimizer is not set up.
        TypeError
            If the hook cannot be called.
        ValueError
            If the timing is unknown or there is no name.
        KeyError
            If the name is taken.
        """
        self._set_up_hooks().add(hook, name, timing)

    def remove_hook(self, name: str) -> None:
        """Remove a hook.

        Parameters
        ----------
        name : str
            The name under which it was added.

        Raises
        ------
        KeyError
            If there is no hook of that name.
        """
        self._set_up_hooks().remove(name)

    def call_hooks(self, timing: str = "pre") -> None:
        """Call the hooks of one timing in the order of registration.

        Parameters
        ----------
        timing : {'pre', 'post'}
            Which hooks.

        Raises
        ------
        ValueError
            If the timing is another.
        """
        for hook in self._set_up_hooks().at(timing):
            self.call_hook(hook)

    def call_hook(self, hook: Hook) -> None:
        """Call one hook: with the optimizer, or with the rule and parameter of each parameter.

        Parameters
        ----------
        hook : callable
            Called for each parameter if its attribute ``call_for_each_param`` is true.

        Raises
        ------
        RuntimeError
            If the optimizer is not set up.
        """
        if self._targets is None:
            self._set_up()
        if getattr(hook, "call_for_each_param", False):
            together: Any = hook if brought_by_class(hook, "call_for_all") else None
            if together is not None:
                together.call_for_all(self._hooked_parameters())
                return
            for param in self._hooked_parameters():
                hook(getattr(param, "update_rule", None), param)
        else:
            hook(self)

    def _hooked_parameters(self) -> list[Any]:
        """Return the parameters that hooks are called for."""
        return list(self._set_up().parameters.values())

    def serialize(self, serializer: Any) -> None:
        """Write ``t``, ``epoch`` and the rules' states to a serializer, or read them.

        The parameters' values are not part of it. A read checks everything first; if it
        raises, nothing has changed.

        Parameters
        ----------
        serializer : Serializer or Deserializer
            fastadam's or another library's, such as Chainer's.

        Raises
        ------
        KeyError
            If an entry is missing.
        ValueError, TypeError
            If an entry has another shape, or a dtype that does not convert.
        RuntimeError
            If an update is half-way.
        """
        if is_deserializer(serializer):
            undisturbed(self, LOAD, lambda: self.prepare_load(serializer).commit())
        else:
            undisturbed(self, LOOK, lambda: self._write(serializer))

    def _write(self, serializer: Any) -> None:
        """Write to a serializer, while nobody updates."""
        self._look_again()
        targets = self._set_up()
        rules = self._rules_by_path()
        write_count(serializer, "t", self.t)
        write_count(serializer, "epoch", self.epoch)
        for path, (_, rule) in rules.items():
            rule.serialize(serializer[path])
        for path, first in targets.aliases.items():
            if first in rules:
                rules[first][1].serialize(serializer[path])

    def prepare_load(self, serializer: Any) -> PreparedLoad:
        """Read and check what `serialize` loads; nothing changes yet.

        Parameters
        ----------
        serializer : Deserializer
            Where to read. Nothing is read from it later, but by rules with a `serialize` of their
            own and no `prepare_load`: they are called when everything has been checked.

        Returns
        -------
        PreparedLoad
            What its ``commit()`` is going to change.

        Raises
        ------
        KeyError, ValueError, TypeError
            As `serialize`.
        """
        self._look_again()
        prepared = PreparedLoad()
        for name in ("t", "epoch"):
            prepared.attribute(self, name, stored_count(serializer, name, getattr(self, name)))
        for path, (param, rule) in self._rules_by_path().items():
            child = serializer[path]
            if loads_in_two_phases(rule):
                prepared.extend(rule.prepare_load(child, param))
            else:
                prepared.serialize(rule, read_ahead(child))
        return prepared

    def _rules_by_path(self) -> dict[str, tuple[Any, Any]]:
        """Return parameters and rules by path, where there is a rule."""
        return {
            path: (param, rule)
            for path, param in self._set_up().parameters.items()
            if (rule := getattr(param, "update_rule", None)) is not None
        }

    def _look_again(self) -> None:
        """Walk the target again for somebody who only looks, unless an update counts on it."""
        if walkable(self):
            self._refresh()

    def _refresh(self) -> None:
        """Walk the target again, for arrays and parameters that have changed."""
        self._set_up().refresh()

    def _set_up(self) -> Target:
        """Return the walked target, or say that there is none."""
        if self._targets is None:
            raise RuntimeError(
                f"this {type(self).__name__} has no target yet; call setup(target) first"
            )
        return self._targets

    def _set_up_hooks(self) -> HookTable:
        """Return the hooks, or say that there is no target yet."""
        self._set_up()
        assert self._hooks is not None
        return self._hooks


def target_of(optimizer: Any, refresh: bool = False) -> Target:
    """Return the walked target of an optimizer; RuntimeError if there is none.

    Parameters
    ----------
    optimizer : Optimizer
        The optimizer.
    refresh : bool, optional
        Whether to walk it again first.
    """
    if refresh:
        optimizer._refresh()
    target: Target = optimizer._set_up()
    return target


@parts_of.register
def _parts_of(optimizer: Optimizer) -> Iterator[Any]:
    """Yield an optimizer, its hyperparameters and the rules of its target."""
    yield optimizer
    hyperparam = getattr(optimizer, "hyperparam", None)
    if hyperparam is not None:
        yield hyperparam
    if optimizer._targets is not None:
        for param in optimizer._targets.parameters.values():
            rule = getattr(param, "update_rule", None)
            if rule is not None:
                yield rule


class _Whole:
    """The last thing in an optimizer's state: it refuses a copy during which an update was made.

    Pickling and deep copying go on long after ``__getstate__``, and other threads with them.
    """

    def __init__(self, optimizer: Any) -> None:
        self._optimizer, self._t = optimizer, optimizer.t

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Whole) and self._t == other._t

    def __hash__(self) -> int:
        return hash(type(self))

    def __reduce__(self) -> tuple[Any, ...]:
        undisturbed(self._optimizer, LOOK, lambda: None)
        if self._optimizer.t != self._t:
            raise RuntimeError(
                f"this {type(self._optimizer).__name__} was updated while it was being copied, so "
                "the copy would be half of each; hold a threading.Lock around both"
            )
        return bool, (True,)
