from typing import Any

from typing_extensions import disjoint_base

@disjoint_base
class Source:
    @property
    def regroups(self) -> int: ...

@disjoint_base
class ArraySource(Source):
    def __init__(self, steps: list[Any], low_precision: list[Any]) -> None: ...

__test__: dict[Any, Any]
