from typing import Any

__pyx_capi__: dict[str, Any]
__test__: dict[Any, Any]
