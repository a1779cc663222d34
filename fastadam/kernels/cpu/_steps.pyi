from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from typing_extensions import disjoint_base

from fastadam.kernels._source import Source
from fastadam.kernels.ops import Op

@disjoint_base
class Steps:
    def __init__(
        self,
        source: Source,
        table: npt.NDArray[np.void],
        coefficients: npt.NDArray[Any],
        sets: list[int],
        loop: object,
    ) -> None: ...
    def take_ops(self, ops: npt.NDArray[np.void]) -> None: ...
    def set_ops(self, programs: Sequence[Sequence[Op]]) -> None: ...

__test__: dict[Any, Any]
