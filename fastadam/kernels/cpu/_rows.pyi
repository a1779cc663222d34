from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from typing_extensions import disjoint_base

from fastadam.kernels._source import Source
from fastadam.kernels.cpu._steps import Steps

@disjoint_base
class Rows(Steps):
    def __init__(
        self,
        source: Source,
        indices: list[int],
        table: npt.NDArray[np.void],
        coefficients: npt.NDArray[Any],
        sets: list[int],
        loop: object,
        strided: list[int],
        bfloat16: int,
    ) -> None: ...
    def __len__(self) -> int: ...
    @property
    def total(self) -> int: ...
    @property
    def moved(self) -> bool: ...
    @property
    def without(self) -> list[int]: ...
    @property
    def low_precision(self) -> bool: ...
    @property
    def converted(self) -> bool: ...
    @property
    def to_round(self) -> list[tuple[Any, Any]]: ...
    def gather(self, convert: Callable[[Any, Any], Any]) -> None: ...
    def may_write(self) -> bool: ...
    def release(self) -> None: ...

__test__: dict[Any, Any]
