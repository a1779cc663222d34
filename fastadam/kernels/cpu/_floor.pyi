from typing import Any

import numpy as np
import numpy.typing as npt

def floor_float32(tensors: npt.NDArray[np.void], n_threads: int) -> None: ...
def floor_float64(tensors: npt.NDArray[np.void], n_threads: int) -> None: ...

__test__: dict[Any, Any]
