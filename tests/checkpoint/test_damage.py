"""Damaged, cut off and crafted files: an error, and nothing has changed."""

from __future__ import annotations

import io
import json
import sys
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from npz_parts import archive, header, members, npy

import fastadam
from fastadam import CheckpointError
from fastadam.checkpoint.listing import listing
from fastadam.files import manifest
from fastadam.serializers import load_hdf5, load_npz, save_hdf5, save_npz

sys.path.insert(0, str(Path(__file__).parent))
from campaign import bits, make


def load_or_refuse(path: Path, before: list[Any], saved: list[Any], opt: Any) -> bool:
    """Load: the whole of what was saved, or nothing, with a documented error."""
    try:
        fastadam.load(path, opt)
    except (CheckpointError, OSError):
        assert bits(opt) == before
        return False
    assert bits(opt) == saved
    return True


@pytest.mark.parametrize("compression", [False, True])
def test_flipped_bits(path: Path, compression: bool) -> None:
    opt, other = make(), make(1)
    fastadam.save(path, opt, compression=compression)
    saved, before = bits(opt), bits(other)
    whole = path.read_bytes()
    random = np.random.default_rng(len(whole))
    refused = 0
    for _ in range(250):
        data = bytearray(whole)
        at = int(random.integers(8 * len(data)))
        data[at // 8] ^= 1 << at % 8
        path.write_bytes(data)
        if load_or_refuse(path, before, saved, other):
            # what a flip in a gap of the file cannot touch
            other = make(1)
        else:
            refused += 1
    assert refused > 100
    path.write_bytes(whole)
    assert load_or_refuse(path, before, saved, other)


def moments(opt: Any) -> list[Any]:
    rules = [param.update_rule for param in opt.parameters.values()]
    return [opt.t, opt.epoch, [(r.t, {k: m.tobytes() for k, m in r.state.items()}) for r in rules]]


def test_flipped_bits_of_an_optimizer_alone(path: Path) -> None:
    npz = path.suffix == ".npz"
    save, load = (save_npz, load_npz) if npz else (save_hdf5, load_hdf5)
    opt, other = make(), make(1)
    save(path, opt)
    saved, before, whole = moments(opt), bits(other), path.read_bytes()
    refused = 0
    for bit in np.random.default_rng(1).choice(8 * len(whole), 400, replace=False):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        said = None
        try:
            load(path, other)
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            said = str(error)
        if said is None:
            assert moments(other) == saved, bit
            other = make(1)
            continue
        assert str(path) in said
        assert bits(other) == before, bit
        refused += 1
    assert refused > 200


def readers(path: Path, opt: Any) -> list[Callable[[], object]]:
    """Every door that reads a file of `save`."""
    load = load_npz if path.suffix == ".npz" else load_hdf5
    return [
        lambda: fastadam.load(path, opt),
        lambda: fastadam.load(path, opt, strict=False, parameters=False),
        lambda: load(path, opt, path="optimizer/"),
        lambda: load(io.BytesIO(path.read_bytes()), opt, path="optimizer/"),
        lambda: listing(path),
    ]


def test_cut_off_files(path: Path) -> None:
    opt, other = make(), make(1)
    fastadam.save(path, opt)
    before = bits(other)
    whole = path.read_bytes()
    lengths = {*range(0, 40, 7), *range(0, len(whole), len(whole) // 50), len(whole) - 1}
    for n in sorted(lengths):
        path.write_bytes(whole[:n])
        for read in readers(path, other):
            with pytest.raises(Exception, match=r"damaged|empty|no npz file") as raised:
                read()
            assert isinstance(raised.value, ValueError | OSError | EOFError | zipfile.BadZipFile)
            assert "is locked" not in str(raised.value)
            assert bits(other) == before


@pytest.mark.parametrize("n", [1, 2, 7, 512, 100_000])
@pytest.mark.parametrize("sealed", [False, True], ids=["save", "serializers"])
def test_longer_files(path: Path, n: int, sealed: bool) -> None:
    opt, other = make(), make(1)
    before = bits(other)
    npz = path.suffix == ".npz"
    if sealed:
        (save_npz if npz else save_hdf5)(path, opt)
        load = load_npz if npz else load_hdf5
        doors = [
            lambda: load(path, other),
            lambda: load(io.BytesIO(path.read_bytes()), other),
            lambda: fastadam.load(path, other, parameters=False),
            lambda: listing(path),
        ]
    else:
        fastadam.save(path, opt)
        doors = readers(path, other)
    for more in (b"\0" * n, b"m" * n):
        whole = path.read_bytes()
        path.write_bytes(whole + more)
        for read in doors:
            with pytest.raises(Exception, match="longer than") as raised:
                read()
            assert isinstance(raised.value, ValueError | OSError | zipfile.BadZipFile)
        assert bits(other) == before
        path.write_bytes(whole)
    doors[0]()
    assert bits(other)[:2] == bits(opt)[:2]


def test_the_other_kind_under_the_name(tmp_path: Path) -> None:
    """The first bytes tell what it is, and the message says so."""
    pytest.importorskip("h5py")
    for mine, other in (("npz", "h5"), ("h5", "npz")):
        path = tmp_path / f"run.{mine}"
        fastadam.save(path, make())
        renamed = path.rename(tmp_path / f"renamed.{other}")
        for read in readers(renamed, make()):
            with pytest.raises((ValueError, OSError)) as raised:
                read()
            assert f"end its name with .{mine}, or use load_" in str(raised.value)


def test_files_of_others_may_be_longer(tmp_path: Path) -> None:
    """Only those that say what is in them are known to have been shorter."""
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "other.h5"
    for libver in ("earliest", "v110"):
        with h5py.File(path, "w", libver=libver) as file:
            file["w"] = np.arange(3.0)
        with path.open("ab") as file:
            file.write(b"more")
        link = fastadam.Link(w=3)
        load_hdf5(path, link)
        assert link.w.array.tolist() == [0, 1, 2]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "run.npz"
    fastadam.save(path, make())
    return path


def refused(path: Path, *words: str) -> None:
    other = make(1)
    before = bits(other)
    with pytest.raises(CheckpointError) as raised:
        fastadam.load(path, other)
    for word in words:
        assert word in str(raised.value)
    assert bits(other) == before


def test_a_value_that_was_replaced(saved: Path) -> None:
    held = members(saved)
    held["target/b.npy"] = npy(np.zeros(3))
    saved.write_bytes(archive(held))
    refused(saved, "'target/b'", "damaged")
    assert listing(saved)["damaged"] == ["target/b"]


def test_a_value_that_was_taken_out_or_put_in(saved: Path) -> None:
    held = members(saved)
    saved.write_bytes(archive({k: v for k, v in held.items() if k != "target/b.npy"}))
    refused(saved, "lacks 'target/b'")
    saved.write_bytes(archive(held | {"target/c.npy": npy(np.zeros(3))}))
    refused(saved, "holds besides 'target/c'")
    assert listing(saved)["damaged"] == ["target/c"]


def test_a_manifest_that_was_taken_out_or_changed(saved: Path) -> None:
    held = members(saved)
    key = f"{manifest.KEY}.npy"
    saved.write_bytes(archive({k: v for k, v in held.items() if k != key}))
    refused(saved, "no list of its contents")
    text = np.load(io.BytesIO(held[key])).tobytes()
    for changed in (text.replace(b"float64", b"float32", 1), b"{}", b"[]", b"\xff", b"[" * 100_000):
        saved.write_bytes(archive(held | {key: npy(np.frombuffer(changed, np.uint8))}))
        refused(saved, "list of contents")
    sealed = json.loads(text)
    sealed["format"] = 99
    del sealed["sha256"]
    sealed["sha256"] = manifest._digest(sealed)
    later = json.dumps(sealed).encode()
    saved.write_bytes(archive(held | {key: npy(np.frombuffer(later, np.uint8))}))
    refused(saved, "later version")


def test_nothing_is_unpickled(saved: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return (pytest.fail, ("it was unpickled",))

    held = members(saved)
    bomb = np.empty((), object)
    bomb[()] = Bomb()
    saved.write_bytes(archive(held | {"target/b.npy": npy(bomb)}))
    refused(saved, "'target/b'", "Python objects")
    held["optimizer/t.npy"] = npy(bomb)
    saved.write_bytes(archive(held))
    refused(saved, "Python objects")


@pytest.mark.parametrize(
    "data",
    [
        header((1 << 40,)),
        header((1 << 31, 1 << 31)),
        header((1 << 62, 4)),
        header((3,), "<U100000000"),
        header((3,)) + bytes(1 << 20),
        header((3,)) + bytes(8),
        header((-1,)),
        b"\x93NUMPY\x01\x00" + b"\xff\xff" + b"(" * 65535,
        b"\x93NUMPY\x03\x00",
        b"",
    ],
)
def test_absurd_headers_take_no_memory(saved: Path, data: bytes) -> None:
    held = members(saved)
    saved.write_bytes(archive(held | {"target/b.npy": data}))
    other = make(1)
    before = bits(other)
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match="target/b"):
            fastadam.load(saved, other)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20
    assert bits(other) == before


def test_a_bomb_takes_no_memory(saved: Path) -> None:
    """64 MB of zeros that take 64 KB in the file, where there is room for 24 bytes."""
    held = members(saved)
    bomb = header((8 << 20,)) + bytes(64 << 20)
    saved.write_bytes(archive(held | {"target/b.npy": bomb}))
    assert saved.stat().st_size < 1 << 20
    tracemalloc.start()
    try:
        refused(saved, "'target/b'", "there is room for")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20


def test_memory_of_a_load_is_what_the_target_takes(tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    opt = make(n=100_000)
    fastadam.save(path, opt)
    held = sum(p.array.nbytes + 3 * p.array.nbytes for p in opt.parameters.values())
    tracemalloc.start()
    try:
        fastadam.load(path, opt)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # the values that are read, beside those that are there, and the largest of them once more
    assert peak < 1.5 * held


def test_other_files(tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    for data in (b"", b"PK", b"nonsense" * 100, npy(np.zeros(3))):
        path.write_bytes(data)
        refused(path, "no npz file, or damaged")
    np.savez(path, W=np.zeros(3))
    refused(path, "no list of its contents")
    pytest.importorskip("h5py")
    other = tmp_path / "run.h5"
    other.write_bytes(b"nonsense" * 100)
    refused(other, "no HDF5 file, or damaged")
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(IsADirectoryError):
        fastadam.load(tmp_path / "folder.npz", make())
