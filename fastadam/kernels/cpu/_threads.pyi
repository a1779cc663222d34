from typing import Any

from fastadam.kernels.cpu._late_steps import LateSteps

SERIAL_BELOW: int
STALE_AFTER_S: float
by_hand: int | None
granted: float | None
granted_at: float
late_steps: LateSteps

def set_by_hand(n: int | None) -> None: ...
def number() -> int: ...
def quota() -> float | None: ...
def n_threads(total: int, most: int | None = None) -> int: ...
def note_time(n: int, total: int, ns: int) -> None: ...

__test__: dict[Any, Any]
