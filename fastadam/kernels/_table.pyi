from typing import Any

import numpy as np
import numpy.typing as npt

def describe(steps: list[Any], table: npt.NDArray[np.void], bfloat16: int) -> list[int]: ...

__test__: dict[Any, Any]
