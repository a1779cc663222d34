"""Write HDF5 files and single datasets, through libhdf5's own calls: h5py's are slow for many."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fastadam.files.atomic import atomic_write
from fastadam.files.entries import (
    Entry,
    Value,
    checked_pieces,
    is_none,
    listed_copy,
    refuse_dtype,
)
from fastadam.files.hdf5_calls import check_memory
from fastadam.files.hdf5_filters import packed_chunks
from fastadam.files.hdf5_image import Image
from fastadam.files.hdf5_types import (
    DIGEST,
    Stored,
    digest_of,
    digest_of_all,
    encoded,
    import_h5py,
    number_type,
)
from fastadam.files.limits import PIECE
from fastadam.files.names import check_groups
from fastadam.update.interrupt import SignalsBetween, hand_on_signals

__all__ = ["Writer", "sealed_image", "write"]

# What is longer than this goes from where it is into the file, or is packed here; the rest is
# copied first, or packed by libhdf5, for which there is memory.
_LARGE = 1 << 16


def write(
    path: str | bytes | os.PathLike[Any],
    values: Mapping[str, Value],
    compression: bool,
    done: Callable[[int], None],
    entries: Mapping[str, Entry] | None = None,
) -> None:
    """Write values to an HDF5 file, atomically.

    Parameters
    ----------
    path, values, compression, done, entries
        As for npz files. Digests are left to the list of contents, which has all of them.

    Raises
    ------
    TypeError, RuntimeError
        As for npz files.
    ValueError
        If a key is that of a value, and what others are within.
    """
    check_groups(values)
    with SignalsBetween():
        image = _image(values, compression, done, entries)
    with atomic_write(path) as opened_file:
        image.write_to(opened_file)


def _image(
    values: Mapping[str, Value],
    compression: bool,
    done: Callable[[int], None],
    entries: Mapping[str, Entry] | None,
) -> Image:
    """Return a file with values; h5py's objects are gone when it returns."""
    image = Image()
    with image.opened() as file:
        writer = Writer(file.id, 4 if compression else None, plain=True)
        for key, value in values.items():
            image.check()
            expected = None if entries is None else entries.get(key)
            file_type = None if compression else number_type(value.dtype)
            if file_type is not None and value.nbytes:
                finished = functools.partial(done, value.nbytes)
                writer.place(key, value, file_type, image, expected, finished)
                continue
            if expected is not None and not is_none(value):
                value = listed_copy(key, value, expected)
            writer.put(key, value)
            done(value.nbytes)
        writer.close()
    return image


def sealed_image(
    values: Mapping[str, Value], groups: Iterable[str], compression: int | None
) -> Image:
    """Return a file with values, each with its digest, and one of all.

    `groups` are those that there shall be, with values or not. A dtype that has no counterpart in
    HDF5 files is a TypeError; a key that is that of a value, and what others are within, a
    ValueError.
    """
    # Made in memory, so that libhdf5 never meets a full disk, a pipe or a file it cannot lock.
    groups = [*groups]
    check_groups(values, groups)
    with SignalsBetween():
        return _sealed(values, groups, compression)


def _sealed(values: Mapping[str, Value], groups: list[str], compression: int | None) -> Image:
    image = Image()
    with image.opened() as opened:
        writer = Writer(opened.id, compression)
        for group in groups:
            writer.make_group(group)
        digests = {}
        for key, value in values.items():
            image.check()
            digests[key] = writer.put(key, value)
        opened.attrs[DIGEST] = np.bytes_(digest_of_all(digests))
        writer.close()
    return image


class Writer:
    """Makes datasets in an open file or group.

    Parameters
    ----------
    group : h5py.h5g.GroupID or h5py.h5f.FileID
        Where to write.
    compression : int or None
        The gzip level of arrays with more than one element.
    plain : bool
        Whether digests and checksums are left out: there is a list of contents.
    """

    def __init__(self, group: Any, compression: int | None, *, plain: bool = False) -> None:
        self._h5py = h5py = import_h5py()
        self._group = group
        self._compression = compression
        self._plain = plain
        self._links = h5py.h5p.create(h5py.h5p.LINK_CREATE)
        self._links.set_create_intermediate_group(True)
        self._links.set_char_encoding(h5py.h5t.CSET_UTF8)
        self._spaces: dict[tuple[int, ...], Any] = {(): h5py.h5s.create(h5py.h5s.SCALAR)}
        self._layouts: dict[Any, Any] = {}
        # the group that the last value is in: the next one is, too, nearly always
        self._last: tuple[bytes, Any] = (b"", group)

    def make_group(self, name: str) -> None:
        """Make a group and those above it, where there are none yet."""
        try:
            self._h5py.h5g.open(self._group, name.encode())
        except (KeyError, ValueError):  # as the version of libhdf5 says that there is none
            self._h5py.h5g.create(self._group, name.encode(), self._links)

    def put(self, key: str, value: Value) -> str:
        """Write one value; return its digest, if there is one.

        A dtype that has no counterpart in HDF5 files is a TypeError, a string that has no UTF-8
        encoding a ValueError.
        """
        h5 = self._h5py
        everything = h5.h5s.ALL
        if is_none(value):
            space, file_type = h5.h5s.create(h5.h5s.NULL), h5.h5t.IEEE_F32LE
            dataset = self._make(key, file_type, space, None)
            return self._note(dataset, digest_of(None))
        stored, file_type = _encoded(value, key)
        chunk, level = self._chunk(value.shape, stored.array)
        layout = self._layout(chunk, level)
        dataset = self._make(key, file_type, self._space(value.shape), layout)
        if chunk and stored.array.nbytes > _LARGE:
            for start, data in packed_chunks(stored.array, chunk, level):
                hand_on_signals()
                check_memory()
                dataset.write_direct_chunk(start, data)
        elif value.size:
            dataset.write(everything, everything, stored.array, file_type)
        return self._note(dataset, "" if self._plain else digest_of(stored))

    def place(
        self,
        key: str,
        value: Value,
        file_type: Any,
        image: Image,
        expected: Entry | None,
        done: Callable[[], None],
    ) -> None:
        """Write numbers past libhdf5, which makes room for them; large ones when all else is.

        There are some, of the type in the file. They are left to the image, which calls `done` when
        they are written; `expected` is what the list of contents says.
        """
        layout = self._layout((), None)
        dataset = self._make(key, file_type, self._space(value.shape), layout)
        if value.nbytes > _LARGE:
            pieces = functools.partial(checked_pieces, key, value, expected)
            image.place(dataset.get_offset(), value.nbytes, pieces, done)
            return
        image.seek(dataset.get_offset())
        for piece in checked_pieces(key, value, expected):
            image.write(piece)
        done()

    def close(self) -> None:
        """Let go of the file, which is closed when nothing of it is open."""
        self._last = (b"", None)

    def _make(self, key: str, file_type: Any, space: Any, layout: Any) -> Any:
        """Make a dataset."""
        hand_on_signals()
        check_memory()
        above, _, name = key.encode().rpartition(b"/")
        if above == self._last[0]:
            return self._h5py.h5d.create(self._last[1], name, file_type, space, layout, self._links)
        dataset = self._h5py.h5d.create(
            self._group, key.encode(), file_type, space, layout, self._links
        )
        self._last = (above, self._h5py.h5g.open(self._group, above) if above else self._group)
        return dataset

    def _space(self, shape: tuple[int, ...]) -> Any:
        if shape not in self._spaces:
            if len(self._spaces) > 1000:
                self._spaces = {(): self._spaces[()]}
            self._spaces[shape] = self._h5py.h5s.create_simple(shape)
        return self._spaces[shape]

    def _chunk(
        self, shape: tuple[int, ...], array: npt.NDArray[Any]
    ) -> tuple[tuple[int, ...], int | None]:
        """Return the shape of chunks, whole rows or parts of one, and the gzip level.

        Each is of about a megabyte. Filters need chunks, which single values have not.
        """
        level = self._compression if array.size > 1 else None
        if shape == () or not array.size or (self._plain and level is None):
            return (), None
        n_bytes, chunk = array.itemsize, []
        for length in reversed(shape):
            chunk.append(max(1, min(length, PIECE // n_bytes)))
            n_bytes *= chunk[-1]
        return tuple(chunk[::-1]), level

    def _layout(self, chunk: tuple[int, ...], level: int | None) -> Any:
        """Return how elements are laid out, as libhdf5 is told."""
        if (chunk, level) in self._layouts:
            return self._layouts[chunk, level]
        h5 = self._h5py
        layout = self._layouts[chunk, level] = h5.h5p.create(h5.h5p.DATASET_CREATE)
        layout.set_fill_time(h5.h5d.FILL_TIME_NEVER)
        if not chunk:
            layout.set_layout(h5.h5d.CONTIGUOUS)
            layout.set_alloc_time(h5.h5d.ALLOC_TIME_EARLY)
            return layout
        layout.set_chunk(chunk)
        if level is not None:
            layout.set_deflate(level)
        layout.set_fletcher32()
        return layout

    def _note(self, dataset: Any, digest: str) -> str:
        """Store a digest with a dataset."""
        if not self._plain:
            h5 = self._h5py
            data = np.bytes_(digest)
            kind = h5.h5t.py_create(data.dtype, logical=True)
            attribute = h5.h5a.create(dataset, DIGEST.encode(), kind, self._spaces[()])
            attribute.write(np.asarray(data))
        return digest


def _encoded(array: Value, key: str) -> tuple[Stored, Any]:
    """Return what is stored for an array, and its type; errors name the key."""
    refuse_dtype(key, array.dtype)
    try:
        return encoded(array)
    except (TypeError, UnicodeEncodeError) as error:
        refusal = TypeError if isinstance(error, TypeError) else ValueError
        raise refusal(f"cannot save {key!r}: {error}") from error
