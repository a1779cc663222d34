"""Save objects to npz files and load them, in Chainer's layout and without pickle."""

from __future__ import annotations

import os
import zipfile
from typing import Any, BinaryIO, cast

from fastadam.files import npz
from fastadam.files.errors import plainly
from fastadam.files.verified import Listed
from fastadam.serializers._reading import FileDeserializer, MappingReader
from fastadam.serializers._templates import IgnoreNames
from fastadam.serializers.dictionary import DictionarySerializer, saved_values
from fastadam.serializers.protocol import check_object
from fastadam.update.exclusive import LOOK, while_whole

__all__ = ["NpzDeserializer", "load_npz", "save_npz"]


@while_whole(LOOK, "obj")
def save_npz(
    file: str | bytes | os.PathLike[Any] | BinaryIO, obj: Any, compression: bool = True
) -> None:
    """Save an object to an npz file.

    A file name is used as given (no ``.npz`` is appended) and written atomically: whatever
    happens, it holds the whole old or the whole new content.

    Parameters
    ----------
    file : str, bytes, os.PathLike or binary file object
        Where to write.
    obj : object or dict
        Anything with a ``serialize(serializer)`` method; a dictionary from key to array is
        written as it is.
    compression : bool, optional
        Whether to compress, as `numpy.savez_compressed` does.

    Raises
    ------
    TypeError
        If a value is not an array, a number, a string or None, or `obj` has no ``serialize``.
    ValueError
        If a key is no name in files: it is empty, or too long, or has a null character; or if a
        count of an optimizer is one that no load accepts.

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
    npz.write(file, saved_values("save_npz", obj, DictionarySerializer()), compression)


class NpzDeserializer(FileDeserializer):
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
        super().__init__(_reader_of(npz), path, strict, ignore_names)
        if not isinstance(self._reader, MappingReader):
            self.gives_new_arrays = True

    def _missing(self, key: str, hint: str) -> Exception:
        message = f"there is no key {key!r} in {self._reader.where}{hint}"
        with_slash = f"{self.path}/{key[len(self.path) :]}"
        if self.path and with_slash in self._reader:
            message += f", but there is {with_slash!r}: end the path with a slash"
        return KeyError(message)


def _reader_of(source: Any) -> npz.NpzReader | Listed | MappingReader:
    """Return what reads an open npz file, of which only the archive is used, or a mapping."""
    archive = getattr(source, "zip", None)
    if isinstance(archive, zipfile.ZipFile):
        if archive.fp is None:
            raise ValueError("the npz file is closed")
        name = archive.filename
        return npz.NpzReader(
            cast(BinaryIO, archive.fp), "the npz file" if name is None else repr(name)
        )
    return source if isinstance(source, Listed) else MappingReader(source)


def load_npz(
    file: str | bytes | os.PathLike[Any] | BinaryIO,
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
    file : str, bytes, os.PathLike or binary file object
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
        If a stored dtype cannot be cast, or `obj` has no ``serialize`` method.

    See Also
    --------
    save_npz : Save the object.
    """
    check_object("load_npz", obj, "read arrays alone with numpy.load(file)")
    with plainly(), npz.opened(file) as reader:
        values = Listed(reader)
        NpzDeserializer(values, path=path, strict=strict, ignore_names=ignore_names).load(obj)
