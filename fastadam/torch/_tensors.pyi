from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt
from typing_extensions import disjoint_base

from fastadam.kernels._source import Source
from fastadam.torch._reading import Reader

@disjoint_base
class TensorSource(Source):
    replaced: dict[int, npt.NDArray[Any]]
    captured: list[Any] | None
    def __init__(
        self,
        reader: Reader,
        groups: Sequence[Mapping[str, Any]],
        state: Any,
        entries: list[tuple[Any, ...]],
    ) -> None: ...
    @property
    def absent(self) -> list[int]: ...
    def let_go(self) -> None: ...
    def begin(self) -> list[tuple[int, int]] | None: ...
    def numbers(self) -> list[int]: ...

__test__: dict[Any, Any]
