"""An HDF5 file that is being made: libhdf5 writes all of it but the elements of large arrays."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO

from fastadam.files.hdf5_calls import check_memory
from fastadam.files.hdf5_types import LIBVER, import_h5py
from fastadam.files.limits import PIECE
from fastadam.kernels._pages import Pages

__all__ = ["Image"]


class Image(Pages):
    """What libhdf5 has written, in memory, and which arrays have their places in between.

    libhdf5 is given this for a file. It makes room for arrays without writing them; they go from
    where they are to the disk, without a copy, when all the rest is known.

    """

    def __init__(self) -> None:
        super().__init__()
        self._places: list[tuple[int, int, Callable[[], Iterable[bytes]], Callable[[], None]]] = []

    @contextlib.contextmanager
    def opened(self) -> Iterator[Any]:
        """Open it as an HDF5 file to write to; what failed in libhdf5's calls is raised here."""
        check_memory()
        try:
            with import_h5py().File(self, "w", libver=LIBVER) as file:
                try:
                    yield file
                finally:
                    # the rest is written when it is closed
                    self.release()
        except Exception:
            self.check()
            raise
        self.check()

    def check(self) -> None:
        """Raise what has failed in a call of libhdf5's."""
        if self.failed is not None:
            raise self.failed from None

    def write_to(self, file: BinaryIO) -> None:
        """Write everything to a file, from front to back; it need not be seekable."""
        self.seek(0)
        for offset, n_bytes, pieces, done in sorted(self._places, key=lambda place: place[0]):
            self._copy(file, offset)
            for piece in pieces():
                file.write(piece)
            self.seek(offset + n_bytes)
            done()
        at = self.tell()
        end = self.seek(0, 2)
        self.seek(at)
        self._copy(file, end)

    def place(
        self,
        offset: int,
        n_bytes: int,
        pieces: Callable[[], Iterable[bytes]],
        done: Callable[[], None],
    ) -> None:
        """Leave a place in the file to an array.

        `pieces` gives the bytes; `done` is called when they are written.
        """
        self._places.append((offset, n_bytes, pieces, done))

    def _copy(self, file: BinaryIO, last: int) -> None:
        """Write the bytes from the position up to an offset."""
        while self.tell() < last:
            file.write(self.read(min(PIECE, last - self.tell())))
