"""How deserializers find a value in a file: keys, keys to leave, templates, what is missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from fastadam.files.entries import is_none
from fastadam.files.limits import SMALL, SPARE
from fastadam.files.manifest import KEY
from fastadam.files.names import plain
from fastadam.kernels.backend import is_array
from fastadam.serializers._templates import IgnoredNames, IgnoreNames, fill_template
from fastadam.serializers.protocol import Deserializer

__all__ = ["FileDeserializer", "MappingReader"]

# What the keys in a file of `fastadam.save` begin with.
_SECTIONS = ("optimizer/", "target/", "fastadam/")

# Bytes of an element of the widest kind of number, which may be loaded into a narrower one.
_WIDEST = 32


def _room_for(value: Any) -> int | None:
    """Return how many bytes a stored value may take that is to go where another is."""
    if value is None:
        return None
    if is_array(value):
        return max(SMALL, max(_WIDEST, int(value.dtype.itemsize)) * int(value.size))
    return SPARE if isinstance(value, str | bytes) else SMALL


class FileDeserializer(Deserializer):
    """Loads values from anything that has them by key.

    Parameters
    ----------
    reader : object
        What has the values: whether one is `in` it, `read(key, limit)`, and `where` they are.
    path : str
        What every key begins with.
    strict : bool
        Whether a missing key is an error.
    ignore_names : str, callable, list or tuple of them, optional
        Keys to leave as they are.
    """

    # Whether what is read belongs to no other object.
    gives_new_arrays = False

    def __init__(self, reader: Any, path: str, strict: bool, ignore_names: IgnoreNames) -> None:
        self.path = path
        self.strict = strict
        self.ignore_names = ignore_names
        self._ignored = IgnoredNames(ignore_names)
        self._reader = reader

    def __getitem__(self, key: str) -> Self:
        """Return the deserializer of a child: the same file, a longer path.

        Whether there is anything below that path is found when it is asked for a value.
        """
        child = type(self).__new__(type(self))
        child.__dict__.update(self.__dict__)
        child.path = self._child_path(key)
        return child

    def __call__(self, key: str, value: Any) -> Any:
        """Load one value.

        Returns
        -------
        object
            The loaded value; None if None was stored; `value` if the key is ignored, or missing
            and not `strict`.

        Raises
        ------
        KeyError
            If there is no such key and `strict` is true. In an HDF5 file a missing group is a
            ValueError.
        ValueError
            If the stored array has another shape, holds Python objects, or is damaged.
        TypeError
            If the stored dtype cannot be cast safely.
        OSError, zipfile.BadZipFile
            If the file is damaged.
        """
        return self._load(key, value, value)

    def stored(self, key: str, like: Any) -> Any:
        """Return a stored array that is to be written later, as when it is called with None.

        There has to be room for it where `like` is, which is not written; None, where that is not
        known.
        """
        return self._load(key, None, like)

    def _load(self, key: str, value: Any, like: Any) -> Any:
        key = self.path + plain(key).lstrip("/")
        if key in self._ignored:
            return value
        if not self._is_there(key):
            if self.strict:
                raise self._missing(key, self._about_save(key))
            return value
        stored = self._reader.read(key, _room_for(like))
        return self._fill(None if is_none(stored) else stored, value, key)

    def _child_path(self, key: str) -> str:
        """Return what a child's keys begin with."""
        return f"{self.path}{plain(key).strip('/')}/"

    def has(self, key: str) -> bool:
        """Tell whether there is such a value, or it is to be left."""
        key = self.path + plain(key).lstrip("/")
        return key in self._ignored or self._is_there(key)

    def _is_there(self, key: str) -> bool:
        return key in self._reader

    def _missing(self, key: str, hint: str) -> Exception:
        """Say which key is missing where, and what a likely mistake is: the hint, or another."""
        raise NotImplementedError

    def _about_save(self, key: str) -> str:
        """Say what reads a file of `fastadam.save`, if it is one that was opened as another."""
        if key.startswith(_SECTIONS) or not self._is_there(KEY):
            return ""
        return (
            ": the file was written by fastadam.save; load it with fastadam.load(path, optimizer), "
            "or a part of it with path='optimizer/' or path='target/'"
        )

    def _fill(self, stored: Any, value: Any, key: str) -> Any:
        """Return what is loaded for a stored array and a template."""
        return fill_template(stored, value, key)


class MappingReader:
    """The arrays of a mapping."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.where = f"the {type(values).__name__} that is loaded"
        self._values = values

    def __contains__(self, key: str) -> bool:
        """Tell whether there is such a key."""
        return key in self._values

    def read(self, key: str, limit: int | None) -> npt.NDArray[Any]:
        """Return one value; it takes no memory."""
        array = np.asarray(self._values[key])
        if array.dtype.hasobject and not is_none(array):
            raise ValueError(f"{key!r} in {self.where} holds Python objects, not numbers")
        return array
