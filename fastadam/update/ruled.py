"""Rules and their hyperparameters: which parameter has which, and what is set for some of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from fastadam.algorithms.number import check_truth
from fastadam.update.frozen import is_updated
from fastadam.update.hyperparameter import Hyperparameter, HyperparameterProxy
from fastadam.update.loss_scale import LossScaling
from fastadam.update.rule import UpdateRule

__all__ = ["RuledOptimizer", "check_hyperparam", "optional_hyperparams"]


class RuledOptimizer(LossScaling):
    """The part of :class:`fastadam.GradientMethod` that gives parameters rules, and these values.

    Attributes
    ----------
    hyperparam : Hyperparameter
        The hyperparameters that the rules of all parameters fall back on.
    """

    # the parameters that have been given rules
    _walked: dict[str, Any] | None = None
    _use_fp32_update = False
    # hyperparameters that the bag holds only where somebody has set them
    _optional_hyperparams: ClassVar[frozenset[str]] = frozenset()

    def __init__(self) -> None:
        self.hyperparam = Hyperparameter()
        self._known: list[Any] = []

    def create_update_rule(self) -> Any:
        """Return the rule that a parameter gets; a subclass says which."""
        raise NotImplementedError(f"{type(self).__name__} must override create_update_rule")

    def use_fp32_update(self, flag: bool = True) -> None:
        """Keep float32 masters of half-precision parameters, and update these.

        Each step is made on the float32 master and rounded to the parameter, so that small steps
        add up instead of being rounded away. Float32 and float64 parameters are unaffected. May be
        called before or after `setup`, at any time.

        Parameters
        ----------
        flag : bool
            False ends it: the masters are dropped.

        See Also
        --------
        UpdateRule.use_fp32_update : The same for one parameter.
        """
        check_truth(flag, "use_fp32_update(flag): flag")
        self._use_fp32_update = bool(flag)
        if self._targets is not None:
            for param in self._targets.parameters.values():
                rule = getattr(param, "update_rule", None)
                if rule is not None:
                    rule.use_fp32_update(flag)

    def set_hyperparam(
        self, which: str | Callable[[str, Any], object], *unnamed: object, **values: Any
    ) -> list[str]:
        """Override hyperparameters for some of the parameters.

        Parameters
        ----------
        which : str or callable
            A glob over paths, such as ``'*/b'``, or a predicate called with path and parameter.
        *unnamed
            Refused: values are given by name.
        **values
            The hyperparameters to set on the matching parameters' rules. They no longer follow
            the optimizer's.

        Returns
        -------
        list of str
            The paths that matched.

        Raises
        ------
        ValueError
            If nothing matched, or a matching parameter has no rule.
        TypeError
            If a name is no hyperparameter, or none is given; if Adam is given a value that is no
            number.

        Examples
        --------
        >>> import numpy as np
        >>> import fastadam
        >>> opt = fastadam.AdamW(weight_decay_rate=1e-4)
        >>> _ = opt.setup({'l1': {'W': np.zeros((2, 3)), 'b': np.zeros(3)}})
        >>> opt.set_hyperparam('*/b', weight_decay_rate=0)
        ['l1/b']
        """
        known = self.hyperparam.get_dict()
        if unnamed or not values:
            path = which if isinstance(which, str) else "*/b"
            raise TypeError(
                "set_hyperparam takes a glob or a predicate, and each hyperparameter to set as "
                f"name=value: set_hyperparam({path!r}, {next(iter(known), 'alpha')}=0.1)"
            )
        # by their own names: an alias may be called otherwise
        own: dict[str, Any] = {}
        for name, value in values.items():
            alias = getattr(type(self), name, None)
            if isinstance(alias, HyperparameterProxy):
                own[alias._attr_name] = value
            elif name in known:
                own[name] = value
            else:
                raise TypeError(self._no_hyperparam(name))
        parameters = self.parameters
        paths = parameters.matching(which)
        rules = [parameters[path].update_rule for path in paths]
        if None in rules:
            raise ValueError(f"parameter {paths[rules.index(None)]!r} has no update rule")
        for rule in rules:
            others = {**rule.hyperparam.get_dict(), **own}
            for name, value in own.items():
                self._check_hyperparam(name, value, f"set_hyperparam({name}=...)", others)
        for rule in rules:
            # modes first: what a number may be depends on them
            for name, value in sorted(own.items(), key=lambda item: not item[0].endswith("_mode")):
                setattr(rule.hyperparam, name, value)
        return paths

    def _no_hyperparam(self, name: str) -> str:
        """Say that there is no such hyperparameter."""
        return (
            f"{type(self).__name__} has no hyperparameter {name!r}; "
            f"there are: {', '.join(self.hyperparam.get_dict())}"
        )

    def _check_hyperparam(
        self, name: str, value: Any, door: str = "", others: Mapping[str, Any] | None = None
    ) -> None:
        """Refuse a value that a hyperparameter cannot have beside others; any is good here."""

    def _hooked_parameters(self) -> list[Any]:
        """Return the parameters that an update touches."""
        return [param for param in self._present().values() if is_updated(param)]

    def _refresh(self) -> None:
        """Walk the target, and give rules to the parameters that are new."""
        super()._refresh()
        parameters = self._set_up().parameters
        if parameters is self._walked:
            return
        known = {id(param) for param in self._known}
        if len(known) == len(parameters) and all(id(p) in known for p in parameters.values()):
            self._walked = parameters
            return
        for path, param in parameters.items():
            # a rule of None in a parameter that is known was set by hand, and stays
            if id(param) not in known and getattr(param, "update_rule", None) is None:
                rule = param.update_rule = self.create_update_rule()
                if isinstance(rule, UpdateRule):
                    rule.path = path
                if self._use_fp32_update:
                    rule.use_fp32_update()
        self._known = list(parameters.values())
        self._walked = parameters


def optional_hyperparams(optimizer: RuledOptimizer) -> frozenset[str]:
    """Return the names of hyperparameters that are there only where they have been set."""
    return optimizer._optional_hyperparams


def check_hyperparam(
    optimizer: RuledOptimizer, name: str, value: Any, door: str, others: Mapping[str, Any]
) -> None:
    """Refuse what a hyperparameter cannot be beside others; `door` says where it comes from."""
    optimizer._check_hyperparam(name, value, door, others)
