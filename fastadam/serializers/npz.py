"""Save objects to npz files and load them, in Chainer's layout and without pickle."""

from __future__ import annotations

import contextlib
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from fastadam.exclusive import LOOK, while_whole
from fastadam.serializers._members import Members
from fastadam.serializers._templates import IgnoredNames, IgnoreNames, fill_template
from fastadam.serializers.atomic import atomic_write
from fastadam.serializers.dictionary import serialize, storable_array
from fastadam.serializers.protocol import Deserializer

__all__ = ["NpzDeserializer", "load_npz", "save_npz"]

# Names of numpy.savez's own arguments, which it cannot also take as keys.
_RESERVED_KEYS = frozenset({"file", "allow_pickle"})


@while_whole(LOOK, "obj")
def save_npz(file: str | os.PathLike[str] | BinaryIO, obj: Any, compression: bool = True) -> None:
    """Save an object to an npz file.

    A file name is used as given (no ``.npz`` is appended) and written atomically: whatever
    happens, it holds the whole old or the whole new content.

    Parameters
    ----------
    file : str, os.PathLike or binary file object
        Where to write.
    obj : object or dict
        Anything with a ``serialize(serializer)`` method; a dictionary from key to array is
        written as it is.
    compression : bool, optional
        Whether to compress, as `numpy.savez_compressed` does.

    Raises
    ------
    TypeError
        If a value is not an array, a number, a string or None.
    ValueError
        If a key is ``'file'`` or ``'allow_pickle'``, which `numpy.savez` cannot write.

    See Also
    --------
    load_npz : Load the object again.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> from fastadam.link import Link
    >>> from fastadam.serializers import load_npz, save_npz
    >>> model, other = Link(W=(2, 3)), Link(W=(2, 3))
    >>> model.W.array[...] = 7
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "model.npz")
    ...     save_npz(path, model)
    ...     load_npz(path, other)
    >>> bool(np.all(other.W.array == 7))
    True
    """
    values = obj if isinstance(obj, dict) else serialize(obj)
    arrays = _storable(values)
    write: Callable[..., None] = np.savez_compressed if compression else np.savez
    if isinstance(file, str | os.PathLike):
        with atomic_write(file) as opened:
            write(opened, **arrays)
    else:
        write(file, **arrays)


def _storable(values: Mapping[str, Any]) -> dict[str, npt.NDArray[Any]]:
    """Check every key and value before the file is touched."""
    for key in values:
        if not isinstance(key, str):
            raise TypeError(f"cannot save the key {key!r}: keys must be strings")
        if key in _RESERVED_KEYS:
            raise ValueError(
                f"cannot save the key {key!r}: it is the name of an argument of numpy.savez; "
                "rename it"
            )
    return {key: storable_array(key, value) for key, value in values.items()}


class NpzDeserializer(Deserializer):
    """Load values from an open npz file.

    Parameters
    ----------
    npz : numpy.lib.npyio.NpzFile or mapping
        An open npz file, or a mapping from key to array. Members are read when they are asked
        for, and never unpickled.
    path : str, optional
        What every key begins with, its last slash included.
    strict : bool, optional
        Whether a missing key is an error. If not, the value is left as it is.
    ignore_names : str, callable, list or tuple of them, optional
        Keys to leave as they are: full keys such as ``'l1/W'``, or functions that take one and
        tell.

    Raises
    ------
    ValueError
        If `ignore_names` is none of these.
    """

    def __init__(
        self,
        npz: Any,
        path: str = "",
        strict: bool = True,
        ignore_names: IgnoreNames = None,
    ) -> None:
        self.npz = npz
        self.path = path
        self.strict = strict
        self.ignore_names = ignore_names
        self._ignored = IgnoredNames(ignore_names)
        self._members = Members(npz)

    def __getitem__(self, key: str) -> NpzDeserializer:
        """Return the deserializer of a child: the same file, a longer path.

        Parameters
        ----------
        key : str
            Name of the child; slashes around it are dropped.

        Returns
        -------
        NpzDeserializer
            The child's deserializer.
        """
        child = NpzDeserializer.__new__(type(self))
        child.__dict__.update(self.__dict__)
        child.path = f"{self.path}{key.strip('/')}/"
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
        KeyError
            If there is no such key and `strict` is true.
        ValueError
            If the stored array has another shape, or holds Python objects.
        TypeError
            If the stored dtype cannot be cast safely.
        """
        key = self.path + key.lstrip("/")
        if key in self._ignored:
            return value
        if key not in self._members:
            if self.strict:
                raise KeyError(self._missing(key))
            return value
        return fill_template(self._members.read(key), value, key)

    def _missing(self, key: str) -> str:
        """Say which key is missing where, and what a likely mistake is."""
        message = f"there is no key {key!r} in {self._members.description}"
        with_slash = f"{self.path}/{key[len(self.path) :]}"
        if self.path and with_slash in self._members:
            message += f", but there is {with_slash!r}: end the path with a slash"
        return message


def load_npz(
    file: str | os.PathLike[str] | BinaryIO,
    obj: Any,
    path: str = "",
    strict: bool = True,
    ignore_names: IgnoreNames = None,
) -> None:
    """Load an object from an npz file.

    Files of `save_npz` and of Chainer's are read. Nothing in the file is unpickled. Links and
    optimizers check everything first, and are unchanged if anything is wrong.

    Parameters
    ----------
    file : str, os.PathLike or binary file object
        Where to read.
    obj : object
        Anything with a ``serialize(serializer)`` method.
    path : str, optional
        What the object's keys begin with in the file, its last slash included.
    strict : bool, optional
        Whether a missing key is an error. If not, the value is left as it is.
    ignore_names : str, callable, list or tuple of them, optional
        Keys to leave as they are: full keys such as ``'l1/W'``, or functions that take one and
        tell.

    Raises
    ------
    KeyError
        If a key is missing and `strict` is true.
    ValueError
        If the file is not an npz file, an array has another shape or holds Python objects, or
        `ignore_names` is none of the above.
    EOFError, zipfile.BadZipFile
        If the file is empty, or cut off.
    TypeError
        If a stored dtype cannot be cast.

    See Also
    --------
    save_npz : Save the object.
    """
    with _opened(file) as npz:
        NpzDeserializer(npz, path=path, strict=strict, ignore_names=ignore_names).load(obj)


@contextlib.contextmanager
def _opened(file: str | os.PathLike[str] | BinaryIO) -> Iterator[np.lib.npyio.NpzFile]:
    """Open a file for reading; say which one it was if it is no npz file."""
    with contextlib.ExitStack() as stack:
        source, name = file, "the file object"
        if isinstance(file, str | os.PathLike):
            # opened here, as NumPy forgets to close one that is damaged
            source, name = stack.enter_context(open(file, "rb")), repr(os.fspath(file))
        try:
            npz = np.load(source, allow_pickle=False)
        except EOFError:
            raise EOFError(f"{name} is empty; an npz file was expected") from None
        except ValueError:  # NumPy's own words are about allow_pickle
            raise ValueError(f"{name} is not an npz file; pickles are not read") from None
        except zipfile.BadZipFile as error:
            raise zipfile.BadZipFile(f"{name} is damaged or cut off: {error}") from error
        if not isinstance(npz, np.lib.npyio.NpzFile):
            raise ValueError(f"{name} is not an npz file: it holds a single array")
        yield stack.enter_context(npz)
