"""Save objects to HDF5 files and load them, in Chainer's layout, with digests."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from typing import Any, BinaryIO

from fastadam.exclusive import LOOK, while_whole
from fastadam.serializers._hdf5_reading import HDF5Deserializer
from fastadam.serializers._hdf5_seal import seal, verify
from fastadam.serializers._hdf5_types import LIBVER, import_h5py
from fastadam.serializers._hdf5_writing import HDF5Serializer
from fastadam.serializers._templates import IgnoreNames
from fastadam.serializers.atomic import atomic_write
from fastadam.serializers.dictionary import storable_array

__all__ = ["HDF5Deserializer", "HDF5Serializer", "load_hdf5", "save_hdf5"]


@while_whole(LOOK, "obj")
def save_hdf5(
    filename: str | os.PathLike[str] | BinaryIO, obj: Any, compression: int | None = 4
) -> None:
    """Save an object to an HDF5 file.

    The file is written atomically: whatever happens, its name holds the whole old or the whole
    new content. A digest of everything is saved too, so that `load_hdf5` refuses a damaged file.

    Parameters
    ----------
    filename : str, os.PathLike or binary file object
        Where to write.
    obj : object or dict
        Anything with a ``serialize(serializer)`` method; a dictionary from key to array is
        written as it is.
    compression : int, optional
        The gzip level of arrays with more than one element, from 0 to 9; None for no
        compression.

    Raises
    ------
    TypeError
        If a value is not an array, a number, a string or None.
    ValueError
        If two keys contradict each other, as ``'a'`` and ``'a/b'``, or there is no such level.
    RuntimeError
        If h5py is not installed.

    See Also
    --------
    load_hdf5 : Load the object again.

    Notes
    -----
    The file is made in memory first. It can be read with libhdf5 1.10 or newer.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> import fastadam
    >>> from fastadam.serializers import load_hdf5, save_hdf5
    >>> params = {"w": np.array([1.0, -2.0])}
    >>> opt = fastadam.Adam(alpha=0.1).setup(params)
    >>> opt.apply_gradients({"w": np.array([0.5, 0.25])})
    >>> other = fastadam.Adam(alpha=0.1).setup(params)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "optimizer.h5")
    ...     save_hdf5(path, opt)
    ...     load_hdf5(path, other)
    >>> other.t
    1
    """
    # Made in memory, so that libhdf5 never meets a full disk, a pipe or a file it cannot lock.
    image = io.BytesIO()
    with import_h5py().File(image, "w", libver=LIBVER) as file:
        serializer = HDF5Serializer(file, compression)
        if isinstance(obj, dict):
            for key, value in obj.items():
                if not isinstance(key, str):
                    raise TypeError(f"cannot save the key {key!r}: keys must be strings")
                serializer.write_array(key, storable_array(key, value))
        else:
            serializer.save(obj)
        seal(file)
    if isinstance(filename, str | os.PathLike):
        with atomic_write(filename) as opened:
            opened.write(image.getbuffer())
    else:
        filename.write(image.getbuffer())


def load_hdf5(
    filename: str | os.PathLike[str] | BinaryIO,
    obj: Any,
    *,
    path: str = "",
    strict: bool = True,
    ignore_names: IgnoreNames = None,
) -> None:
    """Load an object from an HDF5 file.

    Files of `save_hdf5` and of Chainer's are read. All that `save_hdf5` saved is compared with
    its digest before the object is touched. Links and optimizers check everything else first,
    too, and are unchanged if anything is wrong.

    Parameters
    ----------
    filename : str, os.PathLike or binary file object
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
    ValueError
        If a group is missing and `strict` is true, a digest does not fit, an array has another
        shape or holds Python objects, or `ignore_names` is none of the above.
    KeyError
        If a key is missing in a group and `strict` is true.
    TypeError
        If a stored dtype cannot be cast.
    OSError
        If the file is not an HDF5 file, or damaged.
    RuntimeError
        If h5py is not installed.

    See Also
    --------
    save_hdf5 : Save the object.

    Examples
    --------
    >>> import io
    >>> from fastadam.link import Link
    >>> from fastadam.serializers import load_hdf5, save_hdf5
    >>> file = io.BytesIO()
    >>> save_hdf5(file, {"model/W": [1.0, 2.0]})
    >>> link = Link(W=2)
    >>> load_hdf5(io.BytesIO(file.getvalue()), link, path="model/")
    >>> link.W.array.tolist()
    [1.0, 2.0]
    """
    with _opened(filename) as file:
        verify(file)
        HDF5Deserializer(file, strict, path=path, ignore_names=ignore_names).load(obj)


@contextlib.contextmanager
def _opened(filename: str | os.PathLike[str] | BinaryIO) -> Iterator[Any]:
    """Open a file for reading."""
    h5py = import_h5py()
    source: str | BinaryIO
    if isinstance(filename, str | os.PathLike):
        source, name = os.fspath(filename), repr(os.fspath(filename))
    else:
        source, name = io.BytesIO(filename.read()), "the file object"
    try:
        file = h5py.File(source, "r")
    except Exception as error:  # whatever libhdf5 finds in a damaged file
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise OSError(f"{name} cannot be opened as an HDF5 file: {error}") from error
    with file:
        yield file
