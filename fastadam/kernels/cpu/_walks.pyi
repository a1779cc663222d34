from typing import Any

from typing_extensions import disjoint_base

@disjoint_base
class Room: ...

__pyx_capi__: dict[str, Any]
__test__: dict[Any, Any]
