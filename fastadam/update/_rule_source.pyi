from typing import Any

from typing_extensions import disjoint_base

from fastadam.kernels._source import Source

@disjoint_base
class RuleSource(Source):
    gradients: list[Any]
    of_others: bool
    def __init__(
        self,
        params: list[Any],
        rules: list[Any],
        attribute: str,
        streams: list[tuple[str | None, ...]],
        states: list[dict[str, Any]],
        begun: list[bool],
        masters: list[Any],
    ) -> None: ...
    @property
    def params(self) -> list[Any]: ...
    @property
    def rules(self) -> list[Any]: ...
    @property
    def ts(self) -> list[int]: ...
    def __reduce_cython__(self) -> Any: ...
    def __setstate_cython__(self, state: Any, /) -> None: ...

__test__: dict[Any, Any]
