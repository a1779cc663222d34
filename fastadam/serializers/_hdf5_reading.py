"""Read from open HDF5 files, in Chainer's layout."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import Any

from fastadam.files.hdf5_group import Hdf5Group
from fastadam.files.hdf5_types import import_h5py, text_decoded
from fastadam.files.verified import Sealed
from fastadam.serializers._reading import FileDeserializer
from fastadam.serializers._templates import IgnoreNames
from fastadam.update.interrupt import SignalsBetween, hand_on_signals

__all__ = ["HDF5Deserializer", "file_name"]


class HDF5Deserializer(FileDeserializer):
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

    gives_new_arrays = True

    def __init__(
        self,
        group: Any,
        strict: bool = True,
        *,
        path: str = "",
        ignore_names: IgnoreNames = None,
    ) -> None:
        import_h5py()
        super().__init__(_reader_of(group), path.lstrip("/"), strict, ignore_names)

    @property
    def group(self) -> Any:
        """The group that values are read from; None if it is missing."""
        path = self.path.rstrip("/")
        return self._reader.group(path) if self._reader.kind(path) == "group" else None

    def load(self, obj: Any) -> None:
        """Load an object; signals come between two values."""
        with SignalsBetween():
            super().load(obj)

    def _load(self, key: str, value: Any, like: Any) -> Any:
        hand_on_signals()
        with SignalsBetween():
            return super()._load(key, value, like)

    def _child_path(self, key: str) -> str:
        name = key.strip("/")
        return f"{self.path}{name}/" if name else self.path

    def _is_there(self, key: str) -> bool:
        parent, _, name = key.rpartition("/")
        is_there = bool(name) and self._reader.kind(parent) == "group"
        return is_there and self._reader.kind(key) is not None

    def _fill(self, stored: Any, value: Any, key: str) -> Any:
        if isinstance(value, str) and stored is not None and stored.dtype.kind == "S":
            # Strings are ASCII in files written from Python 2.
            with contextlib.suppress(UnicodeDecodeError):
                stored = text_decoded(stored, "ascii")
        return super()._fill(stored, value, key)

    def _missing(self, key: str, hint: str) -> Exception:
        parent = key.rpartition("/")[0]
        where = self._reader.where
        if (
            self.path
            and not self.path.endswith("/")
            and self._reader.kind(self.path.strip("/")) == "group"
        ):
            hint = f", but there is a group {self.path!r}: end the path with a slash"
        if self._reader.kind(parent) != "group":
            return ValueError(f"there is no group {parent!r} in {where} to load {key!r} from{hint}")
        return KeyError(f"there is no key {key!r} in {where}{hint}")


def _reader_of(group: Any) -> Any:
    """Return what reads an open group, or one that has been read and compared already."""
    if group is None:
        # missing: there is nothing in it
        return SimpleNamespace(where="the HDF5 file", kind=lambda name: None)
    if isinstance(group, Sealed):
        return group
    return Hdf5Group(group.id, file_name(group))


def file_name(item: Any) -> str:
    """Return the name of the file of a group or dataset, quoted; words where there is none."""
    file = item.file
    return "the HDF5 file" if file.driver in {"core", "fileobj"} else repr(file.filename)
