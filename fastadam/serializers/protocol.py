"""How objects and files talk: the base classes, and what every loader checks."""

from __future__ import annotations

import os
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from fastadam.files.entries import RAW_BFLOAT16
from fastadam.kernels.dtypes import is_bfloat16

__all__ = [
    "AbstractSerializer",
    "Deserializer",
    "Serializer",
    "check_object",
    "check_stored_array",
    "entry_name",
    "is_deserializer",
    "optional_child",
    "optional_entry",
    "optional_number",
    "stored_entry",
]


class AbstractSerializer:
    """Base class of everything an object's ``serialize`` method may be given."""

    def __getitem__(self, key: str) -> Self:
        """Return the serializer of a child object.

        Parameters
        ----------
        key : str
            Name of the child; this library's drop slashes around it.

        Returns
        -------
        AbstractSerializer
            A serializer of the same kind whose keys begin with that name.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define __getitem__")

    def __call__(self, key: str, value: Any) -> Any:
        """Save or load one value.

        A serializer stores `value` and returns it. A deserializer takes `value` as the
        template: into an array it copies the stored elements, for a scalar it returns the stored
        one in the same type, and for None it returns the stored array. A stored None comes
        back as None and changes nothing.

        Parameters
        ----------
        key : str
            Name of the value; this library's drop slashes before it.
        value : numpy.ndarray, scalar, str or None
            What to save, or the template to load into.

        Returns
        -------
        object
            The value saved or loaded.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define __call__")


class Serializer(AbstractSerializer):
    """Base class of what saves."""

    def save(self, obj: Any) -> None:
        """Save an object: call ``obj.serialize(self)``.

        Parameters
        ----------
        obj : object
            Anything with a ``serialize(serializer)`` method.
        """
        obj.serialize(self)


class Deserializer(AbstractSerializer):
    """Base class of what loads."""

    def load(self, obj: Any) -> None:
        """Load an object: call ``obj.serialize(self)``.

        Parameters
        ----------
        obj : object
            Anything with a ``serialize(serializer)`` method.
        """
        obj.serialize(self)


def check_object(function: str, obj: Any, advice: str = "") -> None:
    """Refuse what cannot be saved or loaded with a TypeError, before a file is touched.

    `function` is who asks; `advice` is what to do with a dict, where none is taken.
    """
    if callable(getattr(obj, "serialize", None)):
        return
    kind = type(obj).__name__
    if isinstance(obj, str | bytes | os.PathLike):
        hint = f"the file comes first: {function}(file, obj)"
    elif isinstance(obj, dict) and advice:
        hint = advice
    else:
        hint = "links, optimizers and rules have one"
    raise TypeError(f"{function} wants an object with a serialize method, and not {kind}: {hint}")


def is_deserializer(serializer: object) -> bool:
    """Tell whether a serializer loads, by what it can do.

    Parameters
    ----------
    serializer : object
        One of this package's serializers or of another library's, such as Chainer's.

    Returns
    -------
    bool
        True for a `Deserializer`, and for anything that has a ``load`` method and no ``save``.

    Examples
    --------
    >>> from fastadam.serializers import DictionarySerializer, is_deserializer
    >>> is_deserializer(DictionarySerializer())
    False
    """
    if isinstance(serializer, AbstractSerializer):
        return isinstance(serializer, Deserializer)
    return callable(getattr(serializer, "load", None)) and not hasattr(serializer, "save")


def read_ahead(serializer: Any) -> Any:
    """Return a deserializer of the same that has read and compared all, where there is one."""
    ahead = getattr(serializer, "read_ahead", None)
    return serializer if ahead is None else ahead()


def entry_name(serializer: object, key: str) -> str:
    """Return a key as messages name it: with the path of its serializer, where that is known."""
    return f"{getattr(serializer, 'path', '')}{key.lstrip('/')}"


def check_stored_array(
    stored: Any, shape: tuple[int, ...] | None, dtype: npt.DTypeLike, entry: str
) -> npt.NDArray[Any]:
    """Return a stored value as an array, if it may be copied into one of this shape and dtype.

    Parameters
    ----------
    stored : array_like
        What a deserializer returned.
    shape : tuple of int or None
        Shape of the array that is waiting for it; None allows every shape.
    dtype : dtype-like
        Dtype of that array. A cast within a kind, such as float64 to float32, or to a wider
        kind is allowed.
    entry : str
        The key, for messages.

    Returns
    -------
    numpy.ndarray
        The stored array, in its own dtype.

    Raises
    ------
    ValueError
        If the shape differs: nothing is broadcast. If a number is beyond the range of the dtype:
        an integer would wrap, or a finite value become infinite.
    TypeError
        If the dtype cannot be cast.
    """
    array = np.asarray(stored)
    if array.dtype == RAW_BFLOAT16 and is_bfloat16(np.dtype(dtype)):
        array = array.view(dtype)
    if shape is not None and array.shape != shape:
        raise ValueError(
            f"{entry!r} has shape {array.shape} in the file, but shape {shape} in the object that "
            "is loaded"
        )
    if not np.can_cast(array.dtype, np.dtype(dtype), "same_kind"):
        raise TypeError(
            f"{entry!r} has dtype {array.dtype} in the file, which cannot be cast to "
            f"{np.dtype(dtype)} in the object that is loaded"
        )
    if not _fits(array, np.dtype(dtype)):
        raise ValueError(
            f"{entry!r} has values in the file that are beyond the range of {np.dtype(dtype)}, "
            "the dtype in the object that is loaded"
        )
    return array


def _fits(array: npt.NDArray[Any], dtype: np.dtype[Any]) -> bool:
    """Tell whether no number is beyond the range of a dtype: none wraps, or becomes infinite."""
    if array.dtype.kind not in "iufc" or np.can_cast(array.dtype, dtype, "safe"):
        return True
    if dtype.kind in "iu":
        range_ = np.iinfo(dtype)
        return not array.size or (range_.min <= int(array.min()) <= int(array.max()) <= range_.max)
    with np.errstate(over="ignore"):
        return bool((np.isfinite(array.astype(dtype)) == np.isfinite(array)).all())


def optional_child(serializer: Any, key: str) -> Any:
    """Return the deserializer of a child that a file may not have; None where it has none.

    Of another library, HDF5's ask for the group at once.
    """
    try:
        return serializer[key]
    except (KeyError, ValueError):
        return None


def stored_entry(serializer: Any, key: str, like: Any) -> Any:
    """Ask for a stored array that is to be written later, where something is already.

    `like` is what is there now, None where that is not known; it is not written. Our deserializers
    take no memory for what has no room. None says that None was stored.
    """
    stored = getattr(serializer, "stored", None)
    return serializer(key, None) if stored is None else stored(key, like)


def optional_entry(serializer: Any, key: str, like: Any = None) -> Any:
    """Return what a file has under a key that it need not have, such as one Chainer never wrote.

    It is None where there is none, as where the deserializer is None. `like` is as for
    `stored_entry`.
    """
    if serializer is None:
        return None
    has = getattr(serializer, "has", None)
    if has is not None:
        return stored_entry(serializer, key, like) if has(key) else None
    # another library's deserializer of a group that is not there in an HDF5 file
    if getattr(serializer, "group", serializer) is None:
        return None
    try:
        return serializer(key, None)
    except KeyError:
        return None


def optional_number(serializer: Any, key: str) -> float | None:
    """Return a number that a file need not have, None where there is none.

    What is stored there and is not one finite number is a ValueError or a TypeError.
    """
    stored = optional_entry(serializer, key, 0.0)
    if stored is None:
        return None
    array = check_stored_array(stored, (), np.float64, entry_name(serializer, key))
    number = float(array)
    if not np.isfinite(number):
        raise ValueError(f"{entry_name(serializer, key)!r} is {number} in the file")
    return number
