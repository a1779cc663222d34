"""What goes into a file is what its list of contents says, or nothing does; each byte once."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastadam
from fastadam.files import hdf5, hdf5_writer, npz
from fastadam.files.atomic import atomic_write
from fastadam.files.hdf5_group import Hdf5Group
from fastadam.files.hdf5_image import Image
from fastadam.files.limits import PIECE
from fastadam.serializers import load_hdf5, load_npz, save_hdf5, save_npz

sys.path.insert(0, str(Path(__file__).parents[1]))
from tracing import interrupted

SUFFIXES = ["npz", "h5"]
CAMPAIGN = os.environ.get("FASTADAM_CAMPAIGN") == "on"
# a file that is interrupted between being opened and being held is closed by its finalizer
LEFT_OPEN = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def make(n: int) -> Any:
    opt = fastadam.Adam().setup({"a": np.ones(n), "b": np.ones((4, n // 4)), "c": np.ones(3)})
    opt.apply_gradients({k: np.ones_like(p.array) for k, p in opt.parameters.items()})
    return opt


@pytest.mark.parametrize("compression", [False, True])
@pytest.mark.parametrize("n", [40, PIECE // 4])
def test_a_change_while_it_is_saved_leaves_the_old_file(
    path: Path, n: int, compression: bool
) -> None:
    opt = make(n)
    fastadam.save(path, opt)
    old = path.read_bytes()
    changes: list[Callable[[], object]] = [
        lambda: opt.apply_gradients({k: np.ones(p.shape) for k, p in opt.parameters.items()}),
        lambda: opt.parameters["c"].array.__setitem__(0, np.random.random()),
        lambda: opt.parameters["a"].update_rule.state["v"].__setitem__(-1, np.random.random()),
    ]
    # the last value that is written is one that can be changed
    for change in changes:
        calls = 0

        def progress(done: int, total: int, change: Callable[[], object] = change) -> None:
            nonlocal calls
            calls += 1
            if calls == 1:
                change()

        with pytest.raises(RuntimeError, match=r"while it was saved|cannot be updated now"):
            fastadam.save(path, opt, compression=compression, progress=progress)
        assert path.read_bytes() == old
        assert os.listdir(path.parent) == [path.name]
    fastadam.save(path, opt, compression=compression)
    other = make(n)
    fastadam.load(path, other)
    assert other == opt


def test_an_exception_of_progress_leaves_the_old_file(path: Path) -> None:
    opt = make(PIECE // 4)
    fastadam.save(path, opt)
    old = path.read_bytes()

    def progress(done: int, total: int) -> None:
        if done > total // 2:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fastadam.save(path, opt, progress=progress)
    assert path.read_bytes() == old
    assert os.listdir(path.parent) == [path.name]


SHA256 = hashlib.sha256


class Counted:
    """SHA-256 that counts what it is given."""

    n_bytes = 0

    def __init__(self, data: Any = b"") -> None:
        self._real = SHA256(data)
        Counted.n_bytes += len(data)

    def update(self, data: Any) -> None:
        self._real.update(data)
        Counted.n_bytes += len(data)

    def hexdigest(self) -> str:
        return self._real.hexdigest()


def test_a_load_digests_each_byte_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opt = make(PIECE // 4)
    fastadam.save(path, opt)
    plain = path.with_name("plain.h5")
    held = sum(3 * p.array.nbytes for p in opt.parameters.values())
    loads = [lambda: fastadam.load(path, opt)]
    if path.suffix == ".h5":
        save_hdf5(plain, opt)
        loads += [
            lambda: load_hdf5(path, opt, path="optimizer/"),
            lambda: load_hdf5(plain, opt),
        ]
    reads: list[str] = []
    read = Hdf5Group._read

    def counting(self: Any, dataset: Any, key: str, limit: Any) -> Any:
        reads.append(key)
        return read(self, dataset, key, limit)

    monkeypatch.setattr(Hdf5Group, "_read", counting)
    monkeypatch.setattr(hashlib, "sha256", Counted)
    for load in loads:
        Counted.n_bytes = 0
        reads.clear()
        load()
        assert Counted.n_bytes < 1.1 * held
        arrays = [key for key in reads if key.endswith(("m", "v", "a", "b", "c"))]
        assert len(arrays) == len(set(arrays))
    monkeypatch.undo()


@pytest.mark.skipif(sys.gettrace() is not None, reason="somebody else traces")
def test_ctrl_c_at_every_line_of_a_save(path: Path) -> None:
    """Before or after; no temporary file stays, and no lock."""
    old, new = make(40), make(40)
    new.epoch = 7
    other = make(40)
    doors: list[tuple[Callable[[], object], int]] = [
        (lambda: fastadam.save(path, new), 23),
        (lambda: fastadam.save(path, new, compression=True), 23),
        (lambda: atomic(path, b"new"), 1),
        (lambda: save_npz(path, {"x": 1}), 7),
    ]
    for save, step in doors:
        fastadam.save(path, old)
        whole = path.read_bytes()
        before = held(path)
        save()
        after = held(path)
        assert before != after
        tried, n, hit = {False: 0, True: 0}, 0, True
        while hit:
            path.write_bytes(whole)
            hit = interrupted(n, save)
            assert os.listdir(path.parent) == [path.name], n
            changed = path.read_bytes() != whole
            assert not changed or held(path) == after, n
            tried[changed] += 1
            n += 1 if CAMPAIGN else step
        assert all(tried.values())
        assert n > 10
        print(f"{path.name}: {tried[False]} before, {tried[True]} after")
    fastadam.save(path, new)
    fastadam.load(path, other)
    assert other.epoch == 7


def held(path: Path) -> Any:
    """All that is in a file; not its bytes, since HDF5 notes the second in which it was written."""
    data = path.read_bytes()
    if not data.startswith((b"PK", b"\x89HDF")):
        return data
    kind = npz if data.startswith(b"PK") else hdf5
    with kind.opened(path) as reader:
        keys: list[str] = reader.keys()
        return {key: reader.read(key, None).tobytes() for key in keys}


def atomic(path: Path, data: bytes) -> None:
    with atomic_write(path) as file:
        file.write(data)


@LEFT_OPEN
@pytest.mark.skipif(sys.gettrace() is not None, reason="somebody else traces")
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_what_is_raised_in_a_reader_is_not_called_damage(
    path: Path, error: type[BaseException]
) -> None:
    opt = make(40)
    other = make(40)
    other.epoch = 7
    save, load = (save_npz, load_npz) if path.suffix == ".npz" else (save_hdf5, load_hdf5)
    for write, read in ((fastadam.save, fastadam.load), (save, load)):
        write(path, opt)
        n = 0
        while interrupted(n, lambda: read(path, other), error):  # noqa: B023 - called at once
            n += 37
        assert n > 300
    assert other == opt


@pytest.mark.parametrize("compression", [None, 4])
def test_memory_that_runs_out_in_libhdf5s_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compression: int | None
) -> None:
    """libhdf5 does not survive a write that fails: it is told of none."""
    pytest.importorskip("h5py")

    class Failing(Image):
        failed = MemoryError("no page")

    monkeypatch.setattr(hdf5_writer, "Image", Failing)
    opt = make(40)
    for call in (
        lambda: fastadam.save(tmp_path / "run.h5", opt, compression=bool(compression)),
        lambda: save_hdf5(tmp_path / "run.h5", opt, compression=compression),
    ):
        with pytest.raises(MemoryError, match="no page"):
            call()
    assert not list(tmp_path.iterdir())
