"""The gate of the family's hyperparameters: what its bags take, and what only fits together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastadam.algorithms.adam import BY_NAME, DECAY_MODES, check_decay
from fastadam.algorithms.number import number
from fastadam.optimizers.suggestions import no_hyperparameter
from fastadam.update.hyperparameter import Hyperparameter

__all__ = ["Gate", "check_all"]


@dataclass(frozen=True)
class Gate:
    """Looks at what is set on a bag of the family, before it is.

    Parameters
    ----------
    owner : str
        The class of the bag's optimizer or rule, for messages.
    free : bool
        Whether other names than the family's may be set: the class is a user's, whose rules may
        have hyperparameters of their own.
    """

    owner: str
    free: bool

    def __call__(self, bag: Hyperparameter, name: str, value: Any) -> None:
        """Refuse names that the family does not have, and values that a name cannot have."""
        hyper = BY_NAME.get(name)
        others: dict[str, Any] = {}
        if hyper is None or name == "weight_decay_rate":
            others = bag.get_dict()
        elif type(value) is float and not hyper.modes and hyper.low <= value <= hyper.high:
            # without a call for what nearly all of them are
            return
        self.check(name, value, f"{self.owner}.hyperparam.{name}", others)

    def check(self, name: str, value: Any, door: str, others: Mapping[str, Any]) -> None:
        """Refuse what cannot be set beside other hyperparameters."""
        hyper = BY_NAME.get(name)
        if hyper is not None:
            found = hyper.check(value, door)
            if name == "weight_decay_rate" and _by_eta(others):
                check_decay(found, 0.0, door)
        elif not (self.free or name in others or name.startswith("_")):
            raise AttributeError(no_hyperparameter(self.owner, name))


def check_all(owner: str, given: Mapping[str, Any], others: Mapping[str, Any]) -> None:
    """Refuse arguments of a constructor, each by itself and all together.

    The others are the hyperparameters that are in effect where none is given.
    """
    for name, value in given.items():
        hyper = BY_NAME.get(name)
        if hyper is not None:
            try:
                hyper.check(value, f"{owner}({name}=...)")
            except TypeError as error:
                # what users of other libraries write
                hint = "; the parameters are given to setup(params)" if name == "alpha" else ""
                raise TypeError(f"{error}{hint}") from None
    rate = given.get("weight_decay_rate")
    if rate is not None and _by_eta({**others, **given}):
        check_decay(number(rate), 0.0, f"{owner}(weight_decay_rate={rate!r})")


def _by_eta(values: Mapping[str, Any]) -> bool:
    """Tell whether weight decay is multiplied by eta alone."""
    return bool(values.get("decay_mode", DECAY_MODES[0]) == DECAY_MODES[0])
