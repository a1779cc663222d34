"""What every loader does with a key to leave out and with the value it is given as a template."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from fastadam.kernels.backend import copy_into, is_array
from fastadam.serializers.protocol import check_stored_array

__all__ = ["IgnoreNames", "IgnoredNames", "fill_template"]

IgnoreName: TypeAlias = str | Callable[[str], bool]
IgnoreNames: TypeAlias = IgnoreName | list[IgnoreName] | tuple[IgnoreName, ...] | None


class IgnoredNames:
    """The keys that a loader leaves as they are.

    Parameters
    ----------
    ignore_names : str, callable, list or tuple of them, optional
        Full keys such as ``'l1/W'``, or functions that take one and tell.

    Raises
    ------
    ValueError
        If `ignore_names` is none of these.
    """

    def __init__(self, ignore_names: IgnoreNames) -> None:
        names: list[IgnoreName] = []
        if isinstance(ignore_names, list | tuple):
            names = list(ignore_names)
        elif ignore_names is not None:
            names = [ignore_names]
        for name in names:
            if not (isinstance(name, str) or callable(name)):
                raise ValueError(
                    "ignore_names must be a string, a callable, or a list or tuple of them, but "
                    f"{name!r} is of type {type(name).__name__}"
                )
        self._names = names

    @property
    def names(self) -> list[str]:
        """Those that are full keys."""
        return [name for name in self._names if isinstance(name, str)]

    def __contains__(self, key: str) -> bool:
        """Tell whether a full key is to be left as it is."""
        for name in self._names:  # noqa: SIM110  (a generator calls for each)
            if key == name if isinstance(name, str) else name(key):
                return True
        return False


def fill_template(stored: npt.NDArray[Any] | None, value: Any, key: str) -> Any:
    """Return what a deserializer returns for a stored array, None for a stored None.

    The value that it was given is the template: an array is written in place, a number or string
    tells the type to return, and None asks for the stored array. Another shape is a ValueError, a
    dtype that cannot be cast safely a TypeError, which name the key.
    """
    if stored is None or value is None:
        return stored
    if is_array(value):
        array = check_stored_array(stored, value.shape, value.dtype, key)
        copy_into(value, array)
        return value
    return _as_scalar(stored, type(value), key)


def _as_scalar(stored: npt.NDArray[Any], wanted: type[Any], key: str) -> Any:
    """Return a stored 0-dim array as a Python or NumPy scalar of the wanted type."""
    if stored.shape != ():
        raise ValueError(
            f"{key!r} has shape {stored.shape} in the file, but is a single {wanted.__name__} in "
            "the object that is loaded"
        )
    if not _is_safe(stored.dtype, wanted):
        raise TypeError(
            f"{key!r} has dtype {stored.dtype} in the file, which cannot be cast safely to the "
            f"{wanted.__name__} in the object that is loaded"
        )
    return wanted(stored.item())


def _is_safe(dtype: np.dtype[Any], wanted: type[Any]) -> bool:
    """Tell whether a scalar of this dtype fits the type without loss."""
    if issubclass(wanted, int) and wanted is not bool:
        # Python's integers are unlimited.
        return dtype.kind in "iub"
    if issubclass(wanted, str | bytes):
        return dtype.kind == ("U" if issubclass(wanted, str) else "S")
    is_number = issubclass(wanted, bool | float | complex | np.generic)
    return is_number and np.can_cast(dtype, wanted, "safe")
