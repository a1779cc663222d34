from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from typing_extensions import disjoint_base

@disjoint_base
class Squares:
    def __init__(
        self,
        gradients: npt.NDArray[np.void],
        sums: npt.NDArray[np.float64],
        totals: npt.NDArray[np.float64],
        loop: object,
        tensors: npt.NDArray[np.void] | None = None,
    ) -> None: ...
    def take(self, scales: Sequence[float] | None) -> None: ...
    def take_ops(self, ops: npt.NDArray[np.void], counts: Sequence[int]) -> None: ...
    def run(self, n_threads: int) -> list[float]: ...

def layout() -> tuple[int, dict[str, int], dict[str, int], tuple[int, int, int]]: ...
def describe_gradients(
    pairs: list[Any], table: npt.NDArray[np.void], bfloat16: int
) -> list[int]: ...
def describe(
    steps: list[Any], table: npt.NDArray[np.void], bfloat16: int
) -> tuple[list[int], list[int]]: ...

__test__: dict[Any, Any]
