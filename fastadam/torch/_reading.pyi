from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from typing_extensions import disjoint_base

@disjoint_base
class Reader:
    def __init__(
        self,
        torch: Any,
        dtypes: list[np.dtype[Any] | None],
        described: Callable[[Any], Any],
        on_gpu: Callable[..., Any],
        fast: bool = True,
    ) -> None: ...
    @property
    def fast(self) -> bool: ...
    @property
    def ahead(self) -> bool: ...
    @property
    def measures(self) -> bool: ...
    def array_of(self, tensor: Any, anywhere: bool = False) -> npt.NDArray[Any] | None: ...
    def clear(self, tensors: Iterable[Any]) -> None: ...
    def raise_versions(self, tensors: list[Any]) -> int: ...

__test__: dict[Any, Any]
