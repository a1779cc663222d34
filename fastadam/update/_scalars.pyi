from collections.abc import Callable
from typing import Any

from typing_extensions import disjoint_base

from fastadam.algorithms.adam import Coefficients

NUMBERS: set[type]
LASTING: set[type]

def bags(hyperparam: Any) -> list[Any]: ...
def stored_values(hyperparam: Any) -> dict[str, Any] | None: ...
def coefficients_of(groups: list[Scalars], ts: list[int]) -> list[Coefficients]: ...

@disjoint_base
class Scalars:
    def __init__(
        self,
        hyperparam: Any,
        place: int,
        door: str,
        first_alpha: Callable[[], float],
        fixed: float | None,
    ) -> None: ...
    @property
    def first_alpha(self) -> Callable[[], float]: ...
    def at(self, t: int) -> Coefficients: ...
    def is_same(self) -> bool: ...

__test__: dict[Any, Any]
