"""Read from open HDF5 files, in Chainer's layout."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np

from fastadam.files.hdf5_datasets import file_name, read_dataset
from fastadam.files.hdf5_types import import_h5py
from fastadam.serializers._templates import IgnoredNames, IgnoreNames, fill_template
from fastadam.serializers.protocol import Deserializer

__all__ = ["HDF5Deserializer"]


class HDF5Deserializer(Deserializer):
    """Load values from an open HDF5 file, or from a group of one.

    Parameters
    ----------
    group : h5py.Group or None
        Where to read; None is a group that is missing.
    strict : bool, optional
        Whether a missing key is an error. If not, the value is left as it is.
    path : str, optional
        What every key begins with, its last slash included.
    ignore_names : str, callable, list or tuple of them, optional
        Keys to leave as they are: full keys such as ``'l1/W'``, or functions that take one and
        tell.

    Raises
    ------
    RuntimeError
        If h5py is not installed.
    ValueError
        If `ignore_names` is none of these.

    Examples
    --------
    >>> import io
    >>> import h5py
    >>> from fastadam.serializers import HDF5Deserializer
    >>> with h5py.File(io.BytesIO(), "w") as file:
    ...     file["model/text"] = "hello"
    ...     HDF5Deserializer(file)["model"]("text", "")
    'hello'
    """

    def __init__(
        self,
        group: Any,
        strict: bool = True,
        *,
        path: str = "",
        ignore_names: IgnoreNames = None,
    ) -> None:
        import_h5py()
        self._root = group
        self.path = path.lstrip("/")
        self.strict = strict
        self.ignore_names = ignore_names
        self._ignored = IgnoredNames(ignore_names)

    @property
    def group(self) -> Any:
        """The group that values are read from; None if it is missing."""
        return self._find_group(self.path.rstrip("/"))

    def __getitem__(self, key: str) -> HDF5Deserializer:
        """Return the deserializer of a child: the same file, a longer path.

        Parameters
        ----------
        key : str
            Name of the child; slashes around it are dropped.

        Returns
        -------
        HDF5Deserializer
            The child's deserializer. Whether there is such a group is found when it is asked for
            a value.
        """
        child = HDF5Deserializer.__new__(type(self))
        child.__dict__.update(self.__dict__)
        name = key.strip("/")
        child.path = f"{self.path}{name}/" if name else self.path
        return child

    def __call__(self, key: str, value: Any) -> Any:
        """Load one value.

        Parameters
        ----------
        key : str
            Name of the value; slashes before it are dropped.
        value : numpy.ndarray, scalar, str or None
            An array is written in place; a number or string tells the type to return; None asks
            for the stored array.

        Returns
        -------
        object
            The loaded value; None if None was stored; `value` if the key is ignored, or missing
            and not `strict`.

        Raises
        ------
        ValueError
            If the key's group is missing and `strict` is true, the stored array has another
            shape or holds Python objects, or its digest tells that it is damaged.
        KeyError
            If the group is there, but no such key, and `strict` is true.
        TypeError
            If the stored dtype cannot be cast safely.
        OSError
            If the file is damaged.
        """
        key = self.path + key.lstrip("/")
        if key in self._ignored:
            return value
        parent, _, name = key.rpartition("/")
        group = self._find_group(parent)
        if group is None or not name or name not in group:
            if self.strict:
                raise self._missing(key, parent, group)
            return value
        stored = read_dataset(group, name, key)
        if isinstance(value, str) and stored is not None and stored.dtype.kind == "S":
            # Strings are ASCII in files written from Python 2.
            with contextlib.suppress(UnicodeDecodeError):
                stored = np.asarray(np.char.decode(stored, "ascii"))
        return fill_template(stored, value, key)

    def _find_group(self, path: str) -> Any:
        """Return a group of the file, None if it is missing."""
        group = self._root
        for name in path.split("/"):
            if group is None or not name:
                continue
            is_group = group.get(name, getclass=True) is import_h5py().Group
            group = group[name] if is_group else None
        return group

    def _missing(self, key: str, parent: str, group: Any) -> Exception:
        """Say which key is missing where, and what a likely mistake is."""
        where = "the HDF5 file" if self._root is None else file_name(self._root)
        hint = ""
        if self.path and not self.path.endswith("/") and self._find_group(self.path) is not None:
            hint = f", but there is a group {self.path!r}: end the path with a slash"
        if group is None:
            return ValueError(f"there is no group {parent!r} in {where} to load {key!r} from{hint}")
        return KeyError(f"there is no key {key!r} in {where}{hint}")
