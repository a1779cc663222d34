from typing import Any

import numpy as np
import numpy.typing as npt
from typing_extensions import disjoint_base

from fastadam.kernels._source import Source

def set_scalars(scalars: npt.NDArray[Any], coefficients: list[Any]) -> None: ...
def can_take(coefficients: list[Any], flags: tuple[bool, ...], least: float) -> bool: ...

@disjoint_base
class Field:
    def __init__(self, kind: type, name: str) -> None: ...

@disjoint_base
class DeviceTensors:
    @property
    def dtype(self) -> np.dtype[Any]: ...
    @property
    def version(self) -> int: ...
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
        c_ordered: list[bool],
        addresses: npt.NDArray[np.uint64],
        low: npt.NDArray[np.uintp],
        high: npt.NDArray[np.uintp],
    ) -> None: ...
    def refresh(self) -> bool: ...

__test__: dict[Any, Any]
