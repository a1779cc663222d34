from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

def adam_float32(
    tensors: npt.NDArray[np.void],
    coefficients: npt.NDArray[np.float32],
    n_threads: int,
    ops: npt.NDArray[np.void] | None = None,
) -> None: ...
def adam_float64(
    tensors: npt.NDArray[np.void],
    coefficients: npt.NDArray[np.float64],
    n_threads: int,
    ops: npt.NDArray[np.void] | None = None,
) -> None: ...
def loop(single: bool) -> object: ...
def squares_loop(single: bool) -> object: ...
def tree_sum(numbers: Iterable[float]) -> float: ...

__test__: dict[Any, Any]
