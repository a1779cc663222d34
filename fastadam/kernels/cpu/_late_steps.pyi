from typing import Any

LATE_NS: int
LATE_NS_PER_ELEMENT: int
LATE_STEPS: int
LARGE: int
FIRST_HOLD: int
LONGEST_HOLD: int
TRUSTED: int

class LateSteps:
    def __init__(self) -> None: ...
    def bound(self, n_threads: int, total: int) -> int: ...
    def note(self, n_threads: int, total: int, ns: int) -> None: ...

__test__: dict[Any, Any]
