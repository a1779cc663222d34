"""Write a file so that its name always holds the whole old or the whole new content."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Iterator
from typing import Any, BinaryIO

__all__ = ["atomic_write", "to_file"]

# What temporary files are called.
_PREFIX, _SUFFIX = ".fastadam-", ".tmp"

# What a file answers that is mounted by itself, as into a container.
_MOUNTED = {errno.EBUSY, errno.EXDEV}

# What a write answers, without a name.
_OF_WRITES = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS}

# Folders cannot be synchronised on every file system, and not if they must not be read.
_NO_FOLDER_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EACCES}


@contextlib.contextmanager
def atomic_write(path: str | bytes | os.PathLike[Any]) -> Iterator[BinaryIO]:
    """Open a file for writing that takes the name's place when the block ends without an error.

    The bytes go to a temporary file in the same folder, reach the disk, and then replace the old
    file in one step. If the block raises, the old file is untouched and the temporary one is gone;
    one that a killed process has left behind is removed by the next write into the folder.
    A symbolic link is followed: the file it points to is replaced. The permissions of an existing
    file are kept, and its owner where that is allowed. A device or a pipe is written to directly.

    Parameters
    ----------
    path : str, bytes or os.PathLike
        The file's name, used as given.

    Yields
    ------
    file object
        Binary, writable, seekable unless `path` is a pipe.

    Raises
    ------
    OSError
        As `open` raises: for a missing folder, a folder in the file's place, a read-only file.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from fastadam.files.atomic import atomic_write
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "result")
    ...     with atomic_write(path) as file:
    ...         _ = file.write(b"all or nothing")
    ...     path.read_bytes()
    b'all or nothing'
    """
    target = os.path.realpath(os.fsdecode(path))
    try:
        old = os.stat(target)
    except FileNotFoundError:
        old = None
    if old is not None:
        if stat.S_ISDIR(old.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), target)
        if not stat.S_ISREG(old.st_mode):
            with _named(target), open(target, "wb") as file:
                yield file
            return
        # as `open` would refuse it, and a replacement would not notice
        if not os.access(target, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), target)
    folder = os.path.dirname(target)
    _remove_abandoned(folder)
    temporary = _Temporary(folder)
    try:
        with _named(target), temporary.create(target) as file:
            yield file
            file.flush()
            if old is not None:
                _keep_owner_and_mode(temporary.path, old)
            os.fsync(file.fileno())
            # while the lock is held: afterwards it might be taken for one that was left behind
            _replace(temporary.path, target)
    except BaseException:
        temporary.remove()
        raise
    _synchronise_folder(folder)


@contextlib.contextmanager
def to_file(file: str | bytes | os.PathLike[Any] | BinaryIO) -> Iterator[BinaryIO]:
    """Open a name as `atomic_write` does; a file object is written to as it is."""
    if isinstance(file, str | bytes | os.PathLike):
        with atomic_write(file) as opened:
            yield opened
    else:
        yield file


@contextlib.contextmanager
def _named(target: str) -> Iterator[None]:
    """Name the file where a write fails, such as on a full disk: its errors name none."""
    try:
        yield
    except OSError as error:
        if error.errno in _OF_WRITES and error.filename is None:
            raise OSError(error.errno, error.strerror, target) from None
        raise


def _replace(temporary: str, target: str) -> None:
    """Put the new file in the old one's place; errors name that."""
    try:
        os.replace(temporary, target)
    except OSError as error:
        reason = str(error.strerror)
        if error.errno in _MOUNTED:
            reason += (
                ": it is mounted by itself, and so cannot be replaced in one step; mount the "
                "folder that it is in, or save beside it"
            )
        raise OSError(error.errno, reason, target) from None


class _Temporary:
    """A new file in a folder, with a lock that says that somebody is writing it.

    `path` is its name, known before it is there: whatever interrupts its making, it is removed.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self.path = ""
        self._file: BinaryIO | None = None

    def create(self, target: str) -> BinaryIO:
        """Make it, and open it for writing; errors name the file that it is made for."""
        while True:
            # A name of its own, not one made from the target's, which may be as long as names can.
            name = f"{_PREFIX}{secrets.token_hex(8)}{_SUFFIX}"
            self.path = os.path.join(self._folder, name)
            try:
                # 0o666 less the umask, as open() creates files; tempfile's 0o600 would stay.
                self._file = file = open(self.path, "x+b")  # noqa: SIM115 - closed by `remove`
            except FileExistsError:
                self.path = ""
                continue
            except OSError as error:
                raise OSError(error.errno, error.strerror, target) from None
            if _lock(file.fileno()) is not False and _is_at(file.fileno(), self.path):
                return file
            # somebody else took it for one that was left behind
            file.close()

    def remove(self) -> None:
        """Close and remove it, if it is there."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)


def _remove_abandoned(folder: str) -> None:
    """Remove temporary files whose process has ended: its locks have ended with it."""
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            if not (name.startswith(_PREFIX) and name.endswith(_SUFFIX)):
                continue
            path = os.path.join(folder, name)
            with contextlib.suppress(OSError):
                descriptor = os.open(path, os.O_RDWR)
                try:
                    if _lock(descriptor) and _is_at(descriptor, path):
                        os.unlink(path)
                finally:
                    os.close(descriptor)


def _lock(descriptor: int) -> bool | None:
    """Lock an open file until it is closed; False if another process has, None without locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in {errno.EWOULDBLOCK, errno.EACCES} else None
    return True


def _is_at(descriptor: int, path: str) -> bool:
    """Tell whether an open file is still the one that a name stands for."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _keep_owner_and_mode(path: str, old: os.stat_result) -> None:
    """Give a new file the owner, if allowed, and the permissions of the old one."""
    new = os.stat(path)
    if (new.st_uid, new.st_gid) != (old.st_uid, old.st_gid):
        with contextlib.suppress(PermissionError):
            os.chown(path, old.st_uid, old.st_gid)
    os.chmod(path, stat.S_IMODE(old.st_mode))


def _synchronise_folder(folder: str) -> None:
    """Make the new name durable, where folders can be synchronised."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
