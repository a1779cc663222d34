"""Write to open HDF5 files, in Chainer's layout."""

from __future__ import annotations

from typing import Any

from fastadam.files.hdf5_types import import_h5py
from fastadam.files.hdf5_writer import Writer
from fastadam.files.names import check_key, check_keys
from fastadam.serializers._hdf5_reading import file_name
from fastadam.serializers.dictionary import DictionarySerializer
from fastadam.serializers.protocol import Serializer
from fastadam.update.interrupt import SignalsBetween

__all__ = ["HDF5Serializer", "check_compression"]


class HDF5Serializer(Serializer):
    """Write values to an open HDF5 file, or to a group of one.

    Parameters
    ----------
    group : h5py.Group
        Where to write.
    compression : int, optional
        The gzip level of arrays with more than one element, from 0 to 9; None for no
        compression.

    Attributes
    ----------
    group : h5py.Group
        Where it writes.
    compression : int or None
        The gzip level.
    path : str
        What comes before the keys, for messages.

    Raises
    ------
    RuntimeError
        If h5py is not installed.
    ValueError
        If there is no such level.

    Examples
    --------
    >>> import io
    >>> import h5py
    >>> from fastadam.link import Link
    >>> from fastadam.serializers import HDF5Serializer
    >>> with h5py.File(io.BytesIO(), "w") as file:
    ...     HDF5Serializer(file)["model"].save(Link(W=(2, 3), b=2))
    ...     file["model/W"].shape
    (2, 3)
    """

    def __init__(self, group: Any, compression: int | None = 4) -> None:
        import_h5py()
        check_compression(compression)
        self.group = group
        self.compression = compression
        self.path = ""

    def save(self, obj: Any) -> None:
        """Save an object; signals come between two values."""
        with SignalsBetween():
            super().save(obj)

    def __getitem__(self, key: str) -> HDF5Serializer:
        """Return the serializer for a child: a group in this one.

        Raises
        ------
        ValueError
            If there is an array of that name.
        """
        name = key.strip("/")
        if name:
            check_key(self.path + name)
        self._check_groups(name.split("/"))
        child = HDF5Serializer(
            self.group.require_group(name) if name else self.group, self.compression
        )
        child.path = f"{self.path}{name}/"
        return child

    def __call__(self, key: str, value: Any) -> Any:
        """Write a value, and return it.

        Raises
        ------
        TypeError
            If the value is something else, or its dtype has no counterpart in HDF5 files.
        ValueError
            If there is already something of that name, or the name is empty.
        """
        collected = DictionarySerializer(path=self.path)
        collected(key, value)
        (array,) = collected.target.values()
        name = key.lstrip("/")
        with SignalsBetween():
            check_keys([self.path + name])
            self._check_groups(name.split("/")[:-1])
            if name in self.group:
                raise ValueError(
                    f"cannot save {self.path + name!r}: {file_name(self.group)} holds a "
                    f"{type(self.group[name]).__name__.lower()} of that name already"
                )
            Writer(self.group.id, self.compression).put(name, array)
        return value

    def _check_groups(self, names: list[str]) -> None:
        """Raise ValueError if one of these nested groups cannot be made."""
        for count in range(1, len(names) + 1):
            name = "/".join(names[:count])
            found = self.group.get(name, getclass=True) if name else None
            if found is not None and not issubclass(found, import_h5py().Group):
                raise ValueError(
                    f"cannot save below {self.path + name!r}: {file_name(self.group)} holds an "
                    "array of that name, so it cannot be a group"
                )


def check_compression(compression: object) -> None:
    """Refuse a compression that is no gzip level with a ValueError."""
    if compression is not None and compression not in range(10):
        raise ValueError(
            f"compression must be a gzip level from 0 to 9, or None, but is {compression!r}"
        )
