from typing import Any

from typing_extensions import disjoint_base

@disjoint_base
class Written: ...

__test__: dict[Any, Any]
