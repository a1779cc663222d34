"""Strings of any length in HDF5 files, as other programs write them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastadam.files.errors import CheckpointError
from fastadam.files.hdf5_types import import_h5py
from fastadam.files.limits import SMALL, SPARE

__all__ = ["read_strings"]


def read_strings(
    dataset: Any, shape: tuple[int, ...], dtype: np.dtype[Any], what: str, limit: int | None
) -> Any:
    """Read strings of any length one by one, so that they take no more memory than there is room.

    Parameters
    ----------
    dataset : h5py.h5d.DatasetID
        The dataset.
    shape : tuple of int
        Its shape.
    dtype : numpy.dtype
        Its dtype, as h5py has it.
    what : str
        Which one it is, for messages.
    limit : int or None
        How many bytes they may take; None where that is not known.

    Raises
    ------
    CheckpointError
        If they are no strings, or take more.
    """
    h5 = import_h5py()
    if h5.check_string_dtype(dtype) is None:
        raise CheckpointError(
            f"{what} holds objects, not numbers or strings; nobody knows what memory they take "
            "(these are of any length)"
        )
    room = SPARE if limit is None else max(limit, SMALL)
    texts: list[bytes] = []
    longest = 1
    one = h5.h5s.create_simple((1,))
    kind = h5.h5t.py_create(dtype)
    space = dataset.get_space()
    for place in np.ndindex(shape):
        buffer = np.empty(1, dtype)
        if shape:
            space.select_hyperslab(place, (1,) * len(shape))
        dataset.read(one, space if shape else h5.h5s.ALL, buffer, kind)
        text = buffer[0]
        texts.append(text if isinstance(text, bytes) else str(text or "").encode())
        longest = max(longest, len(texts[-1]))
        if longest * math.prod(shape) > room:
            raise CheckpointError(
                f"{what} holds strings of any length: they take more than {room:,} bytes"
            )
    return np.array(texts, dtype=f"S{longest}").reshape(shape)
