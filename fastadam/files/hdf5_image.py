"""An HDF5 file in the making, of which libhdf5 writes all but the elements of large arrays."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from typing import Any, BinaryIO

__all__ = ["Image"]

_PAGE = 4096


class Image(io.RawIOBase):
    """What libhdf5 has written, in memory, and which arrays have their places in between.

    libhdf5 is given this for a file. It makes room for arrays without writing them; they go from
    where they are to the disk, without a copy, when all the rest is known.

    """

    def __init__(self) -> None:
        self._places: list[tuple[int, int, Callable[[], Iterable[bytes]], Callable[[], None]]] = []
        # Pages by number: what is between two of them was never written.
        self._pages: dict[int, bytearray] = {}
        self._at = 0
        self._length = 0

    def write_to(self, file: BinaryIO) -> None:
        """Write everything to a file, from front to back.

        Parameters
        ----------
        file : file object
            Binary and writable; it need not be seekable.
        """
        at = 0
        for offset, n_bytes, pieces, done in sorted(self._places, key=lambda place: place[0]):
            self._copy(file, at, offset)
            for piece in pieces():
                file.write(piece)
            at = offset + n_bytes
            done()
        self._copy(file, at, self._length)

    def place(
        self,
        offset: int,
        n_bytes: int,
        pieces: Callable[[], Iterable[bytes]],
        done: Callable[[], None],
    ) -> None:
        """Leave a place in the file to an array.

        Parameters
        ----------
        offset, n_bytes : int
            The place.
        pieces : callable
            Gives the bytes, one piece after the other.
        done : callable
            What to call when they are written.
        """
        self._places.append((offset, n_bytes, pieces, done))

    def _copy(self, file: BinaryIO, first: int, last: int) -> None:
        """Write the bytes from one offset up to another."""
        while first < last:
            number, start = divmod(first, _PAGE)
            stop = min(_PAGE, start + last - first)
            page = self._pages.get(number)
            file.write(bytes(stop - start) if page is None else page[start:stop])
            first += stop - start

    def readinto(self, buffer: Any) -> int:
        """Read what is at the position, as io.RawIOBase."""
        view = memoryview(buffer).cast("B")
        length = max(0, min(len(view), self._length - self._at))
        piece = io.BytesIO()
        self._copy(piece, self._at, self._at + length)
        view[:length] = piece.getvalue()
        self._at += length
        return length

    def write(self, data: Any) -> int:
        """Write at the position, as io.RawIOBase."""
        view = memoryview(data).cast("B")
        done = 0
        while done < len(view):
            number, start = divmod(self._at + done, _PAGE)
            piece = view[done : done + _PAGE - start]
            page = self._pages.setdefault(number, bytearray(_PAGE))
            page[start : start + len(piece)] = piece
            done += len(piece)
        self._at += done
        self._length = max(self._length, self._at)
        return done

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move the position, as io.RawIOBase."""
        self._at = (
            offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._length}[whence]
        )
        return self._at

    def tell(self) -> int:
        """Return the position."""
        return self._at

    def truncate(self, size: int | None = None) -> int:
        """Set the length, as io.RawIOBase."""
        self._length = self._at if size is None else size
        return self._length

    def readable(self) -> bool:
        """Tell that it can be read."""
        return True

    def writable(self) -> bool:
        """Tell that it can be written."""
        return True

    def seekable(self) -> bool:
        """Tell that it has a position."""
        return True
