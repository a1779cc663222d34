"""Settings that are true or false: what is set is looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastadam.algorithms.number import check_truth
from fastadam.update.overrides import stores_plainly

__all__ = ["Flag", "FlagWithDefault"]


class Flag:
    """An attribute that is true or false; it is read from the object's dict, without a call."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @stores_plainly
    def __set__(self, obj: Any, value: bool) -> None:
        check_truth(value, f"{type(obj).__name__}.{self._name}")
        obj.__dict__[self._name] = value

    def __delete__(self, obj: Any) -> None:
        try:
            del obj.__dict__[self._name]
        except KeyError:
            raise AttributeError(self._name) from None

    if TYPE_CHECKING:

        def __get__(self, obj: Any, owner: type | None = None) -> bool: ...


class FlagWithDefault(Flag):
    """One that is False where it has not been set."""

    def __get__(self, obj: Any, owner: type | None = None) -> Any:
        return self if obj is None else obj.__dict__.get(self._name, False)
