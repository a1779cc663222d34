"""Read and write single HDF5 datasets, each with a digest of its values."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from fastadam.files.hdf5_image import Image
from fastadam.files.hdf5_types import Stored, decoded, encoded, import_h5py, memory_types

__all__ = [
    *("DIGEST", "check_groups", "file_name", "free_name", "place_dataset", "read_dataset"),
    *("read_digest", "stored_digest", "write_dataset"),
]

# The attribute that holds the SHA-256 digest of a dataset, or of all that is in a file.
DIGEST = "fastadam_sha256"


def file_name(item: Any) -> str:
    """Return the name of the file of a group or dataset, for messages.

    Parameters
    ----------
    item : h5py.Group or h5py.Dataset
        Something in the file.

    Returns
    -------
    str
        The quoted name; words where there is no name.
    """
    file = item.file
    return "the HDF5 file" if file.driver in {"core", "fileobj"} else repr(file.filename)


def write_dataset(
    group: Any, name: str, array: npt.NDArray[Any] | None, compression: int | None, key: str
) -> None:
    """Write one array, with its digest.

    Parameters
    ----------
    group : h5py.Group
        Where to write.
    name : str
        Name of the dataset in the group.
    array : numpy.ndarray or None
        What to write.
    compression : int or None
        The gzip level of arrays with more than one element.
    key : str
        The full key, for messages.

    Raises
    ------
    TypeError
        If the dtype has no counterpart in HDF5 files.
    ValueError
        If a string has no UTF-8 encoding.
    """
    h5py = import_h5py()
    if array is None:
        dataset = group.create_dataset(name, data=h5py.Empty("f"))
        dataset.attrs[DIGEST] = np.bytes_(_digest(None))
        return
    stored, file_type = _encoded(array, key)
    filters: dict[str, Any] = {}
    if array.shape != () and array.size > 0:
        # Filters need chunks, which single values and empty arrays do not have.
        filters["fletcher32"] = True
        if array.size > 1:
            filters["compression"] = compression
    data_type = h5py.Datatype(file_type)
    dataset = group.create_dataset(name, shape=array.shape, dtype=data_type, **filters)
    if array.size:
        dataset.id.write(h5py.h5s.ALL, h5py.h5s.ALL, stored.array, file_type)
    dataset.attrs[DIGEST] = np.bytes_(_digest(stored))


def place_dataset(
    group: Any,
    name: str,
    array: npt.NDArray[Any],
    key: str,
    *,
    image: Image,
    sha256: str | None,
    done: Callable[[], None],
) -> None:
    """Make room for one array, as it is, whose elements are written when all else is.

    Parameters
    ----------
    group, name, array, key
        As for `write_dataset`; the array has elements.
    image : Image
        The file, which the array is left to.
    sha256 : str or None
        The digest of the array's elements, if it is known.
    done : callable
        What to call when it is written.

    Raises
    ------
    TypeError, ValueError
        As `write_dataset` does.
    """
    h5py = import_h5py()
    stored, file_type = _encoded(array, key)
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_layout(h5py.h5d.CONTIGUOUS)
    layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    data_type = h5py.Datatype(file_type)
    dataset = group.create_dataset(name, shape=array.shape, dtype=data_type, dcpl=layout)
    image.arrays.append((dataset.id.get_offset(), stored.array, done))
    dataset.attrs[DIGEST] = np.bytes_(_digest(stored, sha256))


def free_name(group: Any, key: str, path: str = "") -> str:
    """Return the name under which a value can be written.

    Parameters
    ----------
    group : h5py.Group
        Where to write.
    key : str
        Name of the value; slashes before it are dropped.
    path : str
        What comes before it, for messages.

    Returns
    -------
    str
        The name in the group.

    Raises
    ------
    ValueError
        If there is already something of that name, or it is no name.
    """
    name = key.lstrip("/")
    *groups, last = name.split("/")
    if last == "" or "." in {*groups, last} or "\0" in name:
        raise ValueError(f"cannot save {path + name!r}: it is no name for a dataset")
    check_groups(group, groups, path)
    if name in group:
        raise ValueError(
            f"cannot save {path + name!r}: {file_name(group)} holds a "
            f"{type(group[name]).__name__.lower()} of that name already"
        )
    return name


def check_groups(group: Any, names: list[str], path: str) -> None:
    """Raise ValueError if one of these nested groups cannot be made.

    Parameters
    ----------
    group, path
        As for `free_name`.
    names : list of str
        Each in the one before.
    """
    for count in range(1, len(names) + 1):
        name = "/".join(names[:count])
        found = group.get(name, getclass=True) if name else None
        if found is not None and not issubclass(found, import_h5py().Group):
            raise ValueError(
                f"cannot save below {path + name!r}: {file_name(group)} holds an array of that "
                "name, so it cannot be a group"
            )


def read_dataset(group: Any, name: str, key: str) -> npt.NDArray[Any] | None:
    """Read one array, and compare it with its digest if it has one.

    Parameters
    ----------
    group : h5py.Group
        Where to read.
    name : str
        Name of the dataset in the group.
    key : str
        The full key, for messages.

    Returns
    -------
    numpy.ndarray or None
        The array; None for a stored None.

    Raises
    ------
    ValueError
        If it is a group, the values are not those that were saved, or they are no numbers and
        no strings.
    OSError
        If it cannot be read.
    """
    stored, _ = _read(group, name, key)
    try:
        return None if stored is None else decoded(stored)
    except UnicodeDecodeError as error:
        raise ValueError(f"{key!r} in {file_name(group)} cannot be loaded: {error}") from error


def read_digest(group: Any, name: str, key: str) -> str:
    """Read one array, and return the digest of what was read.

    Parameters
    ----------
    group, name, key
        As for `read_dataset`.

    Returns
    -------
    str
        The SHA-256 digest, hexadecimal.

    Raises
    ------
    ValueError, OSError
        As `read_dataset` does.
    """
    return _read(group, name, key)[1]


def stored_digest(item: Any, key: str) -> str | None:
    """Return the digest that is stored with a dataset or a file.

    Parameters
    ----------
    item : h5py.Dataset or h5py.Group
        Where to look.
    key : str
        Its full key, for messages.

    Returns
    -------
    str or None
        The SHA-256 digest, hexadecimal; None if there is none.

    Raises
    ------
    OSError
        If it cannot be read.
    """
    try:
        if DIGEST not in item.attrs:
            return None
        return bytes(item.attrs[DIGEST]).decode("latin-1")
    except Exception as error:  # whatever libhdf5 meets in a damaged file
        raise _unreadable(item, key, error) from error


def _read(group: Any, name: str, key: str) -> tuple[Stored | None, str]:
    """Read what is stored in a dataset, and its digest, which has to be the one stored with it."""
    h5py = import_h5py()
    stored: Stored | None = None
    try:
        dataset = group[name]
        is_dataset = isinstance(dataset, h5py.Dataset)
        elsewhere = is_dataset and (dataset.external or dataset.is_virtual)
        if is_dataset and not elsewhere and dataset.shape is not None:
            kind, dtype, memory_type = memory_types(dataset)
            array = np.empty(dataset.shape, dtype)
            if array.size:
                dataset.id.read(h5py.h5s.ALL, h5py.h5s.ALL, array, memory_type)
            if h5py.check_string_dtype(dtype) is not None and dtype.hasobject:
                # Strings without a fixed length, as other programs write them.
                array = np.array(array.ravel().tolist(), dtype="S").reshape(array.shape)
            stored = Stored(kind, array)
    except Exception as error:  # whatever libhdf5 meets in a damaged file
        raise _unreadable(group, key, error) from error
    if not is_dataset:
        raise ValueError(f"{key!r} in {file_name(group)} is a group, not an array")
    if elsewhere:
        raise ValueError(f"{key!r} in {file_name(group)} has its values in another file")
    if stored is not None and stored.array.dtype.hasobject:
        raise ValueError(f"{key!r} in {file_name(group)} holds objects, not numbers or strings")
    digest = _digest(stored)
    if stored_digest(dataset, key) not in {None, digest}:
        raise ValueError(
            f"{key!r} in {file_name(group)} is damaged: its SHA-256 digest is not the one that "
            "was saved with it"
        )
    return stored, digest


def _encoded(array: npt.NDArray[Any], key: str) -> tuple[Stored, Any]:
    """Return what is stored for an array, and its type; errors name the key."""
    try:
        return encoded(array)
    except (TypeError, UnicodeEncodeError) as error:
        refusal = TypeError if isinstance(error, TypeError) else ValueError
        raise refusal(f"cannot save {key!r}: {error}") from error


def _digest(stored: Stored | None, sha256: str | None = None) -> str:
    """Return the SHA-256 digest of kind, shape, and the digest of the elements."""
    if stored is None:
        return hashlib.sha256(b"None\n").hexdigest()
    kind, array = stored
    if sha256 is None:
        elements = array.reshape(-1).view(np.uint8).data if array.size else b""
        sha256 = hashlib.sha256(elements).hexdigest()
    return hashlib.sha256(f"{kind} {array.shape} {sha256}\n".encode()).hexdigest()


def _unreadable(item: Any, key: str, error: Exception) -> OSError:
    """Return an error that names the place of libhdf5's."""
    return OSError(f"{key!r} in {file_name(item)} cannot be read: {error}")
