from typing import Any, TypeVar

from fastadam.algorithms.adam import Coefficients

_Numbers = TypeVar("_Numbers", bound=tuple[Any, ...])

def alpha_t(alpha: float, beta1: float, beta2: float, t: int) -> float: ...
def bounds(
    alpha: float, final_lr: float, gamma: float, initial_alpha: float, t: int
) -> tuple[float, float]: ...
def coefficients_at(
    c: tuple[Any, ...], t: int, initial_alpha: float | None = None
) -> Coefficients: ...
def with_alpha(c: _Numbers, alpha: float) -> _Numbers: ...

__test__: dict[Any, Any]
