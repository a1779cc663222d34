"""Where in an HDF5 file the elements of a dataset are, guessed from its header.

libhdf5 takes longer to open a dataset, and to tell what is in it, than to read a few elements. If
a list of contents says what the elements are, and what their digest is, a guess is enough: what is
read at the place is what was saved, or has another digest.
"""

from __future__ import annotations

import re

__all__ = ["HEADER", "end_of", "place_of"]

# The superblock of files in the formats of 1.8 and later: the signature, the version, and that
# addresses have 8 bytes. The third address is where the file ends.
_SUPERBLOCK = re.compile(rb"\x89HDF\r\n\x1a\n[\x02\x03]\x08.{18}(.{8})", re.DOTALL)

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


def end_of(begin: bytes) -> int | None:
    """Return how many bytes a file says that it has.

    Parameters
    ----------
    begin : bytes
        Its first bytes, at least 36.

    Returns
    -------
    int or None
        None if it is of an older format, or the superblock is not at its beginning.
    """
    found = _SUPERBLOCK.match(begin)
    return None if found is None else int.from_bytes(found[1], "little")
