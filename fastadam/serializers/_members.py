"""Read the members of an npz archive one at a time, and never as a pickle."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy_format

from fastadam.files.none import MAX_LENGTH, is_pickled_none

__all__ = ["Members"]


class Members:
    """The arrays of an open npz file, or of a mapping, by key.

    Parameters
    ----------
    npz : numpy.lib.npyio.NpzFile or mapping
        Where the arrays are. Of an npz file only the archive is used, so that nothing is
        unpickled even if it was opened with ``allow_pickle=True``.
    """

    def __init__(self, npz: Any) -> None:
        archive = getattr(npz, "zip", None)
        self._archive: zipfile.ZipFile | None = (
            archive if isinstance(archive, zipfile.ZipFile) else None
        )
        self._mapping: Mapping[str, Any] = npz
        self._member_names: dict[str, str] = {}
        if self._archive is not None:
            for name in self._archive.namelist():
                self._member_names[name.removesuffix(".npy")] = name

    def __contains__(self, key: str) -> bool:
        """Tell whether there is such a key."""
        if self._archive is None:
            return key in self._mapping
        return key in self._member_names

    @property
    def description(self) -> str:
        """The file's name, or what there is instead, for messages."""
        if self._archive is None:
            return f"the {type(self._mapping).__name__} that is loaded"
        name = self._archive.filename
        return "the npz file" if name is None else repr(name)

    def read(self, key: str) -> npt.NDArray[Any] | None:
        """Read one array.

        Parameters
        ----------
        key : str
            A key that is there.

        Returns
        -------
        numpy.ndarray or None
            The array; None for a stored None.

        Raises
        ------
        ValueError
            If the member is an array of Python objects, or no array at all.
        """
        if self._archive is None:
            return self._read_mapped(key)
        with self._archive.open(self._member_names[key]) as file:
            try:
                array: npt.NDArray[Any] = npy_format.read_array(file, allow_pickle=False)
            except ValueError as error:
                if self._is_none(key):
                    return None
                raise ValueError(
                    f"{key!r} in {self.description} cannot be loaded: {error}"
                ) from error
            # Only reading to the end makes zipfile compare the checksum.
            if file.read(1):
                raise ValueError(f"{key!r} in {self.description} has bytes after the array's end")
        return array

    def _read_mapped(self, key: str) -> npt.NDArray[Any] | None:
        """Read one array from a mapping."""
        array = np.asarray(self._mapping[key])
        if not array.dtype.hasobject:
            return array
        if array.shape == () and array[()] is None:
            return None
        raise ValueError(f"{key!r} in {self.description} holds Python objects, not numbers")

    def _is_none(self, key: str) -> bool:
        """Tell whether a member is a 0-dim object array that holds None."""
        assert self._archive is not None
        with self._archive.open(self._member_names[key]) as file:
            try:
                shape, dtype = _read_header(file)
            except ValueError:
                return False
            is_object = shape == () and dtype.kind == "O"
            return is_object and is_pickled_none(file.read(MAX_LENGTH + 1))


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return the shape and dtype a member's header tells; ValueError if it is not a plain one."""
    version = npy_format.read_magic(file)
    if version != (1, 0):
        raise ValueError(f"unexpected npy version {version}")
    shape, _, dtype = npy_format.read_array_header_1_0(file)
    return shape, dtype
