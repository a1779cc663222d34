from typing import Any

import numpy as np
import numpy.typing as npt
from typing_extensions import disjoint_base

@disjoint_base
class DeviceRows:
    def __init__(
        self,
        p: list[Any],
        state: dict[str, list[Any]],
        halves: list[Any],
        kind: type[Any],
        dtype: np.dtype[Any],
        device: int,
        orders: list[str],
        addresses: npt.NDArray[np.uint64],
        low: npt.NDArray[np.uintp],
        high: npt.NDArray[np.uintp],
    ) -> None: ...
    def follow(
        self,
        params: list[Any],
        attribute: str,
        rules: list[Any],
        ts: list[int],
        gradients: list[Any],
    ) -> bool: ...

__test__: dict[Any, Any]
