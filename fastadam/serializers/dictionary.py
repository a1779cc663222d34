"""Objects as a flat dictionary of arrays: what the file writers write."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fastadam.files.entries import is_none, refuse_dtype
from fastadam.files.names import check_keys, plain
from fastadam.kernels.arrays import refuse_masked
from fastadam.kernels.backend import is_array, on_cpu
from fastadam.serializers.protocol import Serializer, check_object

__all__ = ["DictionarySerializer", "saved_values", "serialize", "storable_values"]


class DictionarySerializer(Serializer):
    """Collect an object's values in a dictionary, under their paths.

    Parameters
    ----------
    target : dict, optional
        The dictionary to write to; a new one by default.
    path : str, optional
        What every key begins with.

    Attributes
    ----------
    target : dict
        The values so far: arrays, not copied; scalars and strings as 0-dim arrays; None as a
        0-dim object array.
    path : str
        What every key begins with.

    Examples
    --------
    >>> from fastadam.serializers import DictionarySerializer
    >>> s = DictionarySerializer()
    >>> s["/l1/"]("W", 3)
    3
    >>> s.target
    {'l1/W': array(3)}
    """

    def __init__(self, target: MutableMapping[str, Any] | None = None, path: str = "") -> None:
        self.target: MutableMapping[str, Any] = {} if target is None else target
        self.path = path

    def __getitem__(self, key: str) -> DictionarySerializer:
        """Return the serializer for a child: the same dictionary, a longer path."""
        return DictionarySerializer(self.target, f"{self.path}{plain(key).strip('/')}/")

    def __call__(self, key: str, value: Any) -> Any:
        """Store a value, and return it.

        Raises
        ------
        TypeError
            If the value is something else: it could only be pickled.
        """
        key = self.path + plain(key).lstrip("/")
        if not (value is None or is_array(value) or np.isscalar(value)):
            raise TypeError(
                f"cannot save {key!r}: it is of type {type(value).__name__}, and only arrays, "
                "numbers, strings and None are saved"
            )
        self.target[key] = storable_array(key, value)
        return value


def storable_array(key: str, value: Any) -> npt.NDArray[Any]:
    """Return a value as the array that is written for it: itself if it is one.

    One that is masked, or would hold Python objects other than a single None, is a TypeError.
    """
    refuse_masked(f"cannot save {key!r}: it", value)
    if isinstance(value, dict):
        within = f"{key}/{next(iter(value), 'name')}"
        raise TypeError(
            f"cannot save {key!r}: it is a dict, and files hold arrays by key; make one flat dict "
            f"of all, with keys such as {within!r}"
        )
    try:
        array = on_cpu(value)
    except ValueError as error:
        raise ValueError(
            f"cannot save {key!r}: no array can be made of this {type(value).__name__}; give each "
            f"array a key of its own, such as {f'{key}/0'!r}: {error}"
        ) from None
    if array.dtype.itemsize == 0:
        refuse_dtype(key, array.dtype)
    if array.dtype.hasobject and not is_none(array):
        raise TypeError(
            f"cannot save {key!r}: an array of Python objects would have to be pickled; make it an "
            "array of numbers or strings"
        )
    return array


def storable_values(values: Mapping[str, Any]) -> dict[str, npt.NDArray[Any]]:
    """Check every key and value before a file is touched, and return them as they are written.

    A key that is no string, or a value that `storable_array` does not take, is a TypeError; a key
    that is no name in files a ValueError.
    """
    keys = check_keys(values)
    return {
        key: storable_array(key, value) for key, value in zip(keys, values.values(), strict=True)
    }


def saved_values(
    function: str, obj: Any, serializer: DictionarySerializer
) -> dict[str, npt.NDArray[Any]]:
    """Return what a function saves of an object by a serializer, or of a dict as it is."""
    if isinstance(obj, dict):
        return storable_values(obj)
    check_object(function, obj)
    serializer.save(obj)
    return storable_values(serializer.target)


def serialize(obj: Any) -> MutableMapping[str, Any]:
    """Return an object's values as a flat dictionary.

    Parameters
    ----------
    obj : object
        Anything with a ``serialize(serializer)`` method.

    Returns
    -------
    dict
        From path to array. The object's own arrays are in it, not copies.

    Examples
    --------
    >>> from fastadam.link import Link
    >>> from fastadam.serializers import serialize
    >>> sorted(serialize(Link(W=(2, 3), b=2)))
    ['W', 'b']
    """
    serializer = DictionarySerializer()
    serializer.save(obj)
    return serializer.target
