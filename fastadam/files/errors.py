"""What a file that is not loaded raises."""

from __future__ import annotations

import zipfile

__all__ = [
    "CheckpointError",
    "DamagedArchiveError",
    "EmptyFileError",
    "UnreadableFileError",
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

    def __init__(self, message: str) -> None:
        super().__init__(message)


class DamagedArchiveError(CheckpointError, zipfile.BadZipFile):
    """An npz file is damaged, or cut off: what `numpy.load` would say of it, too."""


class EmptyFileError(CheckpointError, EOFError):
    """A file is empty: what `numpy.load` would say of it, too."""


class UnreadableFileError(CheckpointError, OSError):
    """A file is damaged, locked, or no regular file: what h5py would say of it, too."""
