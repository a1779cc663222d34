"""What a file that is not loaded raises."""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Iterator

__all__ = [
    "CheckpointError",
    "DamagedArchiveError",
    "EmptyFileError",
    "NoRoomError",
    "UnreadableFileError",
    "plainly",
]


class CheckpointError(ValueError):
    """A file does not hold what was saved, or not what is to be loaded; nothing has changed.

    Parameters
    ----------
    message : str
        It names the file, the entry and the reason.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> import fastadam
    >>> opt = fastadam.Adam().setup({'w': np.ones(3)})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, 'run.npz')
    ...     _ = path.write_bytes(b'something else')
    ...     try:
    ...         _ = fastadam.load(path, opt)
    ...     except fastadam.CheckpointError as error:
    ...         print('no npz file' in str(error))
    True
    """

    # What it is raised as where no checkpoint is read.
    plain: type[Exception] = ValueError

    def __init__(self, message: str) -> None:
        super().__init__(message)


class NoRoomError(CheckpointError):
    """A value is larger than the place where it is to go."""


class DamagedArchiveError(CheckpointError, zipfile.BadZipFile):
    """An npz file is damaged, or cut off: what `numpy.load` would say of it, too."""

    plain = zipfile.BadZipFile


class EmptyFileError(CheckpointError, EOFError):
    """A file is empty: what `numpy.load` would say of it, too."""

    plain = EOFError


class UnreadableFileError(CheckpointError, OSError):
    """A file is damaged, locked, or no regular file: what h5py would say of it, too."""

    plain = OSError


@contextlib.contextmanager
def plainly() -> Iterator[None]:
    """Raise Python's own errors in the place of a checkpoint's, for files that are none."""
    try:
        yield
    except CheckpointError as error:
        raise error.plain(*error.args) from error.__cause__
