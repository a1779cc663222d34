"""Processes killed while they save: the file is always one whole state, and none is left over."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastadam
from fastadam.files.atomic import atomic_write

sys.path.insert(0, str(Path(__file__).parent))
from saving_process import make

pytestmark = pytest.mark.serial

PROCESS = Path(__file__).with_name("saving_process.py")
N = 60

campaign_only = pytest.mark.skipif(
    os.environ.get("FASTADAM_CAMPAIGN") != "on", reason="minutes long: tox -e campaign"
)


def kills(path: Path, n: int) -> None:
    """Kill a saving process n times at random moments, and look at the file each time."""
    random = np.random.default_rng(n)
    opt = make(N)
    fastadam.save(path, opt)
    done = 0
    while done < n:
        with subprocess.Popen(
            [sys.executable, str(PROCESS), str(path), str(N)], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(float(random.uniform(0, 0.02)))
            process.kill()
            told = [1, *map(int, process.stdout.read().split())]
        done += 1
        before = opt.t
        fastadam.load(path, opt)
        # the state of before, or one that was begun to be saved, and wholly
        assert opt.t in (before, *range(max(1, told[-1] - 1), told[-1] + 1))
        for param in opt.parameters.values():
            assert np.all(param.array == opt.t)
            assert param.update_rule.t == opt.t
    fastadam.save(path, opt)
    assert os.listdir(path.parent) == [path.name]


def test_killed_while_saving(tmp_path: Path, suffix: str) -> None:
    kills(tmp_path / f"run.{suffix}", 5)


@campaign_only
def test_killed_500_times(tmp_path: Path, suffix: str) -> None:
    kills(tmp_path / f"run.{suffix}", 500)


def test_what_a_killed_process_has_left_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    code = (
        "import os, sys; from fastadam.files.atomic import atomic_write\n"
        "with atomic_write(sys.argv[1]) as file:\n"
        "    file.write(b'half'); file.flush(); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)])
    assert done.returncode == -signal.SIGKILL
    (left,) = os.listdir(tmp_path)
    assert left.endswith(".tmp")
    other = tmp_path / ".fastadam-notes"
    other.write_bytes(b"")
    with atomic_write(path) as file:
        file.write(b"whole")
    assert path.read_bytes() == b"whole"
    assert sorted(os.listdir(tmp_path)) == [other.name, "file"]


def test_what_others_are_writing_stays(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "a") as a:
        a.write(b"a")
        with atomic_write(tmp_path / "b") as b:
            b.write(b"b")
            assert len(os.listdir(tmp_path)) == 2
        code = (
            "import sys; from fastadam.files.atomic import atomic_write\n"
            "with atomic_write(sys.argv[1]) as file: file.write(b'c')"
        )
        subprocess.run([sys.executable, "-c", code, str(tmp_path / "c")], check=True)
    assert [(tmp_path / name).read_bytes() for name in "abc"] == [b"a", b"b", b"c"]
    assert sorted(os.listdir(tmp_path)) == ["a", "b", "c"]


@contextlib.contextmanager
def small_files(n_bytes: int) -> Iterator[None]:
    """Let no file grow beyond a size, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"run.{suffix}"
    opt = make(N)
    fastadam.save(path, opt)
    old = path.read_bytes()
    for limit in (0, 100, 4096, len(old) // 2, len(old) - 1):
        with small_files(limit), pytest.raises(OSError, match="File too large") as raised:
            fastadam.save(path, opt)
        assert raised.value.filename == str(path)
        assert path.read_bytes() == old
        assert os.listdir(tmp_path) == [path.name]
    fastadam.save(path, opt)


@contextlib.contextmanager
def somebody_else(folder: Path) -> Iterator[None]:
    """Be a user who must not write into a folder."""
    folder.chmod(0o555)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(0o755)


def test_a_folder_that_must_not_be_written(suffix: str) -> None:
    # not below a folder that only its owner may enter
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, f"run.{suffix}")
        opt = make(N)
        fastadam.save(path, opt)
        old = path.read_bytes()
        with somebody_else(path.parent), pytest.raises(PermissionError):
            fastadam.save(path, opt)
        assert path.read_bytes() == old
        assert os.listdir(name) == [path.name]


def test_permissions_and_links(tmp_path: Path) -> None:
    opt: Any = make(N)
    path, link = tmp_path / "run.npz", tmp_path / "link.npz"
    fastadam.save(path, opt)
    path.chmod(0o640)
    link.symlink_to(path)
    opt.epoch = 5
    fastadam.save(link, opt)
    assert link.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o640
    other = make(N)
    fastadam.load(path, other)
    assert other.epoch == 5


def test_the_folder_is_synchronised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """File, then name, then folder: otherwise a loss of power could lose what was saved."""
    done: list[str] = []
    fsync, replace = os.fsync, os.replace

    def note_fsync(descriptor: int) -> None:
        done.append("folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file")
        fsync(descriptor)

    def note_replace(source: str, target: str) -> None:
        done.append("name")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    fastadam.save(tmp_path / "run.npz", make(N))
    assert done == ["file", "name", "folder"]
