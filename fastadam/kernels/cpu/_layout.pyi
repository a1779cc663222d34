from typing import Any

__test__: dict[Any, Any]
