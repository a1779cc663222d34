"""The parameters of an optimizer: a read-only mapping that prints as a table."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from fastadam.kernels.dtypes import is_half
from fastadam.update.text_table import table

__all__ = ["ParameterTable"]


class ParameterTable(Mapping[str, Any]):
    """Read-only mapping from path (``'l1/W'``) to :class:`fastadam.Parameter`.

    Examples
    --------
    >>> import numpy as np
    >>> import fastadam
    >>> opt = fastadam.Adam().setup({'w': np.zeros((2, 3)), 'b': np.zeros(3)})
    >>> opt.parameters
    path  shape   dtype    elements  rule     t
    w     (2, 3)  float64         6  enabled  0
    b     (3,)    float64         3  enabled  0
    >>> opt.parameters['b'].array.shape
    (3,)

    What is set for single parameters has a column of its own, if there is anything:

    >>> _ = opt.set_hyperparam('b', weight_decay_rate=0)
    >>> opt.parameters
    path  shape   dtype    elements  rule     t  settings
    w     (2, 3)  float64         6  enabled  0
    b     (3,)    float64         3  enabled  0  weight_decay_rate=0
    """

    def __init__(self, parameters: dict[str, Any]) -> None:
        self._parameters = parameters

    def __getitem__(self, path: str) -> Any:
        try:
            return self._parameters[path]
        except KeyError:
            known = ", ".join(map(repr, self._parameters))
            raise KeyError(f"there is no parameter {path!r}; there are: {known}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._parameters)

    def __len__(self) -> int:
        return len(self._parameters)

    def __contains__(self, path: object) -> bool:
        return path in self._parameters

    def matching(self, which: str | Callable[[str, Any], object]) -> list[str]:
        """Return the paths that match a glob (``'*/b'``) or a predicate of path and parameter.

        A path itself is no glob: it means its parameter alone, whatever signs are in it.

        Raises
        ------
        ValueError
            If there are none.
        TypeError
            If it is neither.
        """
        if callable(which):
            paths = [path for path, param in self.items() if which(path, param)]
        elif not isinstance(which, str):
            raise TypeError(
                "parameters are chosen by a glob such as '*/b', or by a predicate of path and "
                f"parameter, not by {type(which).__name__} {which!r}"
            )
        elif which in self:
            paths = [which]
        else:
            paths = [path for path in self if fnmatch.fnmatchcase(path, which)]
        if not paths:
            known = ", ".join(map(repr, self._parameters))
            raise ValueError(f"no parameter matches {which!r}; there are: {known}")
        return paths

    def __repr__(self) -> str:
        rows: list[tuple[str, ...]] = [
            ("path", "shape", "dtype", "elements", "rule", "t", "settings")
        ]
        rows += [(path, *_describe(param)) for path, param in self.items()]
        if not any(row[6] for row in rows[1:]):
            rows = [row[:6] for row in rows]
        return "\n".join(table(rows, "lllrlll"[: len(rows[0])]))


def _describe(param: Any) -> tuple[str, ...]:
    """Spell what the table says of one parameter."""
    array, rule = param.array, getattr(param, "update_rule", None)
    shape, dtype, size = ("-", "-", "-") if array is None else _array_cells(array)
    status = "none" if rule is None else "enabled" if rule.enabled else "disabled"
    if getattr(param, "frozen", False):
        status = "frozen"
    count = "-" if rule is None else str(getattr(rule, "t", "-"))
    half = array is not None and is_half(array.dtype)
    return shape, dtype, size, status, count, ", ".join(_settings(rule, half))


def _settings(rule: Any, half: bool) -> Iterator[str]:
    """Spell what is set for one parameter: hyperparameters of its own, a master, hooks."""
    for name, value in getattr(getattr(rule, "hyperparam", None), "__dict__", {}).items():
        # Chainer's bag has its parent among its entries
        if name != "_parent":
            yield f"{name}={value.item() if isinstance(value, np.generic) else value!r}"
    if half and getattr(rule, "_use_fp32_update", False):
        yield "fp32 master"
    hooks = [name for _, name, _ in getattr(rule, "_hooks", ())]
    if hooks:
        yield f"hooks {', '.join(hooks)}"


def _array_cells(array: Any) -> tuple[str, str, str]:
    """Spell shape, dtype and number of elements."""
    return str(array.shape), str(array.dtype), str(array.size)
