"""Where in an HDF5 file the elements of a dataset are, guessed from its header.

libhdf5 takes longer to open a dataset, and to tell what is in it, than to read a few elements. If
a list of contents says what the elements are, and what their digest is, a guess is enough: what is
read at the place is what was saved, or has another digest.
"""

from __future__ import annotations

import re

__all__ = ["HEADER", "place_of"]

# Bytes of a header that are looked at: those of numbers are shorter.
HEADER = 512

# The message of a header that says that the elements are in one piece, where, and how many bytes:
# its type, its size, flags, its version, the kind of layout. Files in formats older than 1.8 have
# others, and no list of contents.
_LAYOUT = re.compile(rb"\x08\x12\x00.[\x03\x04]\x01(.{8})(.{8})", re.DOTALL)


def place_of(header: bytes) -> tuple[int, int] | None:
    """Return where the elements of a dataset probably are.

    Parameters
    ----------
    header : bytes
        The dataset's header, and perhaps what is behind it.

    Returns
    -------
    tuple of int or None
        The offset in the file, and the number of bytes; None if they are in pieces.
    """
    found = _LAYOUT.search(header)
    if found is None:
        return None
    offset, n_bytes = found.groups()
    return int.from_bytes(offset, "little"), int.from_bytes(n_bytes, "little")
