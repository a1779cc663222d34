from typing import Any

import numpy as np
import numpy.typing as npt
from typing_extensions import disjoint_base

from fastadam.kernels._source import Source

@disjoint_base
class DeviceTensors:
    dtype: np.dtype[Any]

    def __init__(
        self,
        source: Source,
        indices: list[int],
        p: list[Any],
        state: list[list[Any]],
        low_precision: list[Any],
        kind: type[Any],
        dtype: np.dtype[Any],
        device: int,
        orders: list[str],
        addresses: npt.NDArray[np.uint64],
        low: npt.NDArray[np.uintp],
        high: npt.NDArray[np.uintp],
    ) -> None: ...
    def refresh(self) -> bool: ...

__test__: dict[Any, Any]
