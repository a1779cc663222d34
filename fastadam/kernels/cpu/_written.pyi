from typing import Any

import numpy as np
import numpy.typing as npt
from typing_extensions import disjoint_base

def extents(arrays: list[Any], low: npt.NDArray[np.uintp], high: npt.NDArray[np.uintp]) -> None: ...
def reach_into_another(arrays: list[Any]) -> bool: ...

@disjoint_base
class Written: ...

__test__: dict[Any, Any]
