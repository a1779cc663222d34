from collections.abc import Callable
from typing import Any

from typing_extensions import disjoint_base

@disjoint_base
class SingleSteps:
    # as Cython has it: takes loops and a number
    def __init__(
        self, loop32: object, loop64: object, limit: int, bfloat16: Callable[[], int]
    ) -> None: ...
    def step(
        self,
        p: Any,
        g: Any,
        state: tuple[Any, ...],
        t: Any,
        values: tuple[Any, ...],
        start: Any,
        owner: dict[str, Any] | None = None,
        noted: dict[str, Any] | None = None,
    ) -> bool: ...

def lie_apart(array: Any, others: list[Any]) -> bool: ...

__test__: dict[Any, Any]
