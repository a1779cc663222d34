"""Save objects to HDF5 files and load them, in Chainer's layout, with digests."""

from __future__ import annotations

import os
from typing import Any, BinaryIO, Self

from fastadam.files import hdf5
from fastadam.files.atomic import to_file
from fastadam.files.errors import plainly
from fastadam.files.hdf5_types import import_h5py
from fastadam.files.names import check_key
from fastadam.files.verified import Sealed
from fastadam.serializers._hdf5_reading import HDF5Deserializer
from fastadam.serializers._hdf5_writing import HDF5Serializer, check_compression
from fastadam.serializers._templates import IgnoreNames
from fastadam.serializers.dictionary import DictionarySerializer, saved_values
from fastadam.serializers.protocol import check_object
from fastadam.update.exclusive import LOOK, while_whole

__all__ = ["HDF5Deserializer", "HDF5Serializer", "load_hdf5", "save_hdf5"]


@while_whole(LOOK, "obj")
def save_hdf5(
    filename: str | bytes | os.PathLike[Any] | BinaryIO, obj: Any, compression: int | None = 4
) -> None:
    """Save an object to an HDF5 file.

    The file is written atomically: whatever happens, its name holds the whole old or the whole
    new content. A digest of everything is saved too, so that `load_hdf5` refuses a damaged file.

    Parameters
    ----------
    filename : str, bytes, os.PathLike or binary file object
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
        If a value is not an array, a number, a string or None, or `obj` has no ``serialize``.
    ValueError
        If two keys contradict each other, as ``'a'`` and ``'a/b'``, or there is no such level; or
        if a count of an optimizer is one that no load accepts.
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
    check_compression(compression)
    import_h5py()
    collected = Collector()
    values = saved_values("save_hdf5", obj, collected)
    image = hdf5.sealed_image(values, collected.groups, compression)
    with to_file(filename) as file:
        image.write_to(file)


class Collector(DictionarySerializer):
    """Collects an object's values, and the names of groups that there are without any."""

    def __init__(self) -> None:
        super().__init__()
        self.groups: dict[str, None] = {}

    def __getitem__(self, key: str) -> Self:
        """Return the serializer for a child, whose group there shall be."""
        child = type(self)()
        child.target, child.groups = self.target, self.groups
        name = f"{self.path}{key.strip('/')}"
        child.path = f"{name}/"
        if name:
            self.groups[check_key(name)] = None
        return child


def load_hdf5(
    filename: str | bytes | os.PathLike[Any] | BinaryIO,
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
    filename : str, bytes, os.PathLike or binary file object
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
        If a stored dtype cannot be cast, or `obj` has no ``serialize`` method.
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
    check_object("load_hdf5", obj, "read arrays alone with h5py.File(file)")
    with plainly(), hdf5.opened(filename) as reader:
        verified = Sealed(reader, path)
        HDF5Deserializer(verified, strict, path=path, ignore_names=ignore_names).load(obj)
