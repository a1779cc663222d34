from typing import Any

import numpy as np
import numpy.typing as npt

class Rows:
    def __init__(
        self,
        table: npt.NDArray[np.void],
        coefficients: npt.NDArray[Any],
        low: npt.NDArray[np.uintp],
        high: npt.NDArray[np.uintp],
        bfloat16: int,
    ) -> None: ...
    def follow(self, params: list[Any], gradients: list[Any], states: list[Any]) -> bool: ...
    def take(self, row: int, named_tuple: tuple[Any, ...]) -> None: ...

def describe(steps: list[Any], table: npt.NDArray[np.void], bfloat16: int) -> list[int]: ...

__test__: dict[Any, Any]
