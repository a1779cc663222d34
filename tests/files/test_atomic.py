from __future__ import annotations

import errno
import fcntl
import os
import stat
import subprocess
import sys

import pytest

from fastadam.files import atomic
from fastadam.files.atomic import atomic_write

posix_only = pytest.mark.skipif(os.name != "posix", reason="POSIX permissions and links")


def write(path, data=b"new"):
    with atomic_write(path) as file:
        file.write(data)


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


def test_new_file(tmp_path):
    write(tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a"]


def test_name_may_be_a_string_relative_to_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with atomic_write("a") as file:
        # The file goes where it was opened, wherever the process goes meanwhile.
        monkeypatch.chdir("/")
        file.write(b"new")
    assert (tmp_path / "a").read_bytes() == b"new"


def test_old_content_stays_until_the_end(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with atomic_write(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
        assert len(os.listdir(tmp_path)) == 2
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("existing", [True, False])
def test_error_in_the_block_leaves_everything(tmp_path, error, existing):
    path = tmp_path / "a"
    if existing:
        path.write_bytes(b"old")

    def write_and_fail():
        with atomic_write(path) as file:
            file.write(b"new")
            raise error

    with pytest.raises(error):
        write_and_fail()
    assert os.listdir(tmp_path) == (["a"] if existing else [])
    if existing:
        assert path.read_bytes() == b"old"


@pytest.mark.parametrize("step", ["fsync", "replace", "chmod"])
def test_failing_system_call_leaves_everything(tmp_path, monkeypatch, step):
    def fail(*args):
        raise OSError(errno.EIO, "no")

    path = tmp_path / "a"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="no"):
        write(path)
    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["a"]
    assert path.read_bytes() == b"old"


@posix_only
def test_order_of_system_calls(tmp_path, monkeypatch):
    path = tmp_path / "a"
    calls = []
    fsync, replace = os.fsync, os.replace

    def record_fsync(descriptor):
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        size = 0 if is_folder else os.fstat(descriptor).st_size
        calls.append(("fsync folder", path.exists()) if is_folder else ("fsync file", size))
        fsync(descriptor)

    def record_replace(old, new):
        assert os.path.dirname(old) == os.path.dirname(new)
        calls.append(("replace", os.path.getsize(old)))
        replace(old, new)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "replace", record_replace)
    write(path, b"some bytes")
    assert calls == [("fsync file", 10), ("replace", 10), ("fsync folder", True)]


@posix_only
@pytest.mark.parametrize(("code", "raises"), [(errno.EINVAL, False), (errno.EIO, True)])
def test_file_system_without_folder_synchronisation(tmp_path, monkeypatch, code, raises):
    fsync = os.fsync

    def fail_for_folders(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(code, "folder")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fail_for_folders)
    if raises:
        with pytest.raises(OSError, match="folder"):
            write(tmp_path / "a")
    else:
        write(tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"new"


@posix_only
@pytest.mark.parametrize("permissions", [0o600, 0o640, 0o666, 0o755])
def test_permissions_of_an_existing_file_are_kept(tmp_path, permissions):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    path.chmod(permissions)
    write(path)
    assert path.read_bytes() == b"new"
    assert mode(path) == permissions


@posix_only
@pytest.mark.parametrize("umask", ["022", "077", "002"])
def test_new_file_follows_the_umask(tmp_path, umask):
    # In a process of its own: the umask is the whole process's.
    script = (
        "import os, sys; from fastadam.files.atomic import atomic_write\n"
        f"os.umask(0o{umask})\n"
        "with atomic_write('a') as file: file.write(b'new')\n"
        "open('b', 'wb').close()\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path, env=environment)
    assert mode(tmp_path / "a") == mode(tmp_path / "b") == 0o666 & ~int(umask, 8)


@posix_only
def test_read_only_file_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    path.chmod(0o444)
    # The superuser may write to everything.
    monkeypatch.setattr(os, "access", lambda *args, **kwargs: False)
    with pytest.raises(PermissionError, match="a"):
        write(path)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


@posix_only
@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="needs the superuser")
def test_owner_of_an_existing_file_is_kept(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    os.chown(path, 12345, 12346)
    path.chmod(0o640)
    write(path)
    status = os.stat(path)
    assert (status.st_uid, status.st_gid, mode(path)) == (12345, 12346, 0o640)


@posix_only
def test_owner_that_cannot_be_kept_is_no_error(tmp_path, monkeypatch):
    def refuse(*args):
        raise PermissionError

    path = tmp_path / "a"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "chown", refuse)
    real = os.stat

    def other_owner(name, **options):
        status = real(name, **options)
        fields = list(status)
        fields[4] += os.path.basename(str(name)) == "a"
        return os.stat_result(fields)

    monkeypatch.setattr(os, "stat", other_owner)
    write(path)
    monkeypatch.undo()
    assert path.read_bytes() == b"new"


@posix_only
def test_symbolic_link_is_followed(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "real").write_bytes(b"old")
    link = tmp_path / "link"
    link.symlink_to(folder / "real")
    write(link)
    assert link.is_symlink()
    assert (folder / "real").read_bytes() == b"new"
    assert os.listdir(folder) == ["real"]
    dangling = tmp_path / "dangling"
    dangling.symlink_to(folder / "later")
    write(dangling)
    assert dangling.is_symlink()
    assert (folder / "later").read_bytes() == b"new"


@posix_only
def test_device_and_pipe_are_written_to(tmp_path):
    link = tmp_path / "null"
    link.symlink_to(os.devnull)
    write(link)
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write(pipe, b"through")
        assert os.read(reader, 100) == b"through"
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(os.stat(pipe).st_mode)


def test_folder_and_missing_folder_are_refused(tmp_path):
    with pytest.raises(IsADirectoryError):
        write(tmp_path)
    with pytest.raises(FileNotFoundError):
        write(tmp_path / "missing" / "a")
    assert os.listdir(tmp_path) == []


def test_name_as_long_as_names_can_be(tmp_path):
    path = tmp_path / ("a" * 255)
    write(path)
    write(path, b"again")
    assert path.read_bytes() == b"again"


def test_taken_temporary_name_is_not_used(tmp_path, monkeypatch):
    names = iter(["taken", "free"])
    monkeypatch.setattr(atomic.secrets, "token_hex", lambda size: next(names))
    taken = tmp_path / ".fastadam-taken.tmp"
    taken.write_bytes(b"mine")
    with open(taken, "rb+") as held:
        # as another process that is writing holds its own
        fcntl.flock(held, fcntl.LOCK_EX)
        write(tmp_path / "a")
    assert taken.read_bytes() == b"mine"
    assert sorted(os.listdir(tmp_path)) == [taken.name, "a"]


def test_errors_name_the_file_that_was_asked_for(tmp_path):
    path = tmp_path / "missing" / "file"
    with pytest.raises(FileNotFoundError) as raised, atomic_write(path):
        pass
    assert raised.value.filename == str(path)


@posix_only
@pytest.mark.parametrize("code", [errno.EBUSY, errno.EXDEV])
def test_a_file_that_is_mounted_by_itself(tmp_path, monkeypatch, code):
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def refuse(old, new):
        raise OSError(code, os.strerror(code), old, None, new)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="mounted by itself") as raised:
        write(path)
    monkeypatch.undo()
    assert (raised.value.errno, raised.value.filename) == (code, str(path))
    assert ".fastadam-" not in str(raised.value)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


@posix_only
@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="needs the superuser")
def test_a_file_that_is_really_mounted_by_itself(tmp_path):
    path, source = tmp_path / "a", tmp_path / "source"
    path.write_bytes(b"")
    source.write_bytes(b"old")
    mounted = subprocess.run(["mount", "--bind", source, path], capture_output=True)
    if mounted.returncode:
        pytest.skip("nothing can be mounted here")
    try:
        with pytest.raises(OSError, match="mounted by itself") as raised:
            write(path)
        assert raised.value.filename == str(path)
        assert path.read_bytes() == b"old"
    finally:
        subprocess.run(["umount", path], check=True)
    assert sorted(os.listdir(tmp_path)) == ["a", "source"]
