from collections.abc import Mapping, Sequence
from typing import Any

from typing_extensions import disjoint_base

def all_same(groups: Sequence[Mapping[str, Any]], items: list[Items | None]) -> bool: ...

@disjoint_base
class Items:
    def __init__(self, found: Mapping[str, Any]) -> None: ...
    def same(self) -> bool: ...

__test__: dict[Any, Any]
