from collections.abc import Callable
from typing import Any

from fastadam.kernels._source import Source
from fastadam.kernels.cpu._rows import Rows
from fastadam.kernels.cpu._written import Written

def refresh(
    tables: list[Rows],
    written: Written,
    coefficients: list[Any],
    loose: bool,
    convert: Callable[[Any, Any], Any],
) -> bool: ...
def reaches(written: Written, arrays: list[Any], more: list[Any]) -> bool: ...
def run(
    tables: list[Rows], n_threads: list[int], coefficients: list[Any], serial: bool
) -> None: ...
def commit(
    source: Source, owner: dict[str, Any], noted: dict[str, Any], unscaled: list[Any]
) -> None: ...
def step_and_commit(
    tables: list[Rows],
    n_threads: list[int],
    coefficients: list[Any],
    serial: bool,
    source: Source,
    owner: dict[str, Any],
    noted: dict[str, Any],
    unscaled: list[Any],
    launches: list[Any],
) -> None: ...

__test__: dict[Any, Any]
