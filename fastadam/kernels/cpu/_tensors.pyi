from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from typing_extensions import disjoint_base

@disjoint_base
class Rows:
    def __init__(
        self,
        table: npt.NDArray[np.void],
        coefficients: npt.NDArray[Any],
        sets: list[int],
        loop: object,
        low: npt.NDArray[np.uintp],
        high: npt.NDArray[np.uintp],
        bfloat16: int,
    ) -> None: ...
    def follow(
        self,
        params: list[Any],
        attribute: str,
        rules: list[Any],
        ts: list[int],
        gradients: list[Any],
        coefficients: list[Any],
    ) -> bool: ...

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
    def run(self, n_threads: int) -> list[float]: ...

def layout() -> tuple[int, dict[str, int], dict[str, int], tuple[int, int, int]]: ...
def all_none(objects: list[Any], attribute: str) -> bool: ...
def count(rules: list[Any], ts: list[int]) -> None: ...
def step_and_count(
    tables: list[Rows],
    n_threads: list[int],
    coefficients: list[Any],
    rules: list[Any],
    ts: list[int],
    following: list[int],
    owner: dict[str, Any],
    noted: dict[str, Any],
    unscaled: Sequence[Any],
) -> None: ...
def describe_gradients(
    pairs: list[Any], table: npt.NDArray[np.void], bfloat16: int
) -> list[int]: ...
def keep_masters(
    steps: list[Any], halves: list[Any], table: npt.NDArray[np.void], bfloat16: int
) -> bool: ...
def describe(steps: list[Any], table: npt.NDArray[np.void], bfloat16: int) -> list[int]: ...

__pyx_capi__: dict[str, Any]
__test__: dict[Any, Any]

def extents(arrays: list[Any], low: npt.NDArray[np.uintp], high: npt.NDArray[np.uintp]) -> None: ...
