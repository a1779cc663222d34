"""What a file may be and take: anything else is refused at once, by name, without the memory."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from npz_parts import header

import fastadam
from fastadam.checkpoint.listing import listing
from fastadam.files.limits import DEPTH, SMALL
from fastadam.serializers import NpzDeserializer, load_hdf5, load_npz, save_hdf5, save_npz


def make() -> Any:
    return fastadam.Adam().setup({"w": np.ones(3)})


def doors(suffix: str) -> list[Any]:
    load = load_npz if suffix == "npz" else load_hdf5
    return [
        lambda path: fastadam.load(path, make()),
        lambda path: load(path, make()),
        lambda path: load(os.fsencode(path), make()),
        listing,
    ]


def test_only_regular_files_are_read(tmp_path: Path, suffix: str) -> None:
    pipe = tmp_path / f"pipe.{suffix}"
    os.mkfifo(pipe)
    for device in ("/dev/zero", "/dev/full", "/dev/null", "/dev/random", str(pipe)):
        link = tmp_path / f"{Path(device).name}-link.{suffix}"
        link.symlink_to(device)
        for load in doors(suffix):
            with pytest.raises((ValueError, OSError), match=r"is no regular file") as raised:
                load(link)
            assert str(link) in str(raised.value)
    folder = tmp_path / f"folder.{suffix}"
    folder.mkdir()
    missing = tmp_path / f"missing.{suffix}"
    for load in doors(suffix):
        with pytest.raises(IsADirectoryError):
            load(folder)
        with pytest.raises(FileNotFoundError):
            load(missing)
    real = tmp_path / f"real.{suffix}"
    fastadam.save(real, make())
    link = tmp_path / f"link.{suffix}"
    link.symlink_to(real)
    assert fastadam.load(link, make()).verified
    assert fastadam.load(os.fsencode(link), make()).verified


def test_names_may_be_bytes(tmp_path: Path, suffix: str) -> None:
    opt, other = make(), make()
    opt.apply_gradients({"w": np.ones(3)})
    name = os.fsencode(tmp_path / f"run.{suffix}")
    fastadam.save(name, opt)
    fastadam.load(name, other)
    assert other == opt
    save, load = (save_npz, load_npz) if suffix == "npz" else (save_hdf5, load_hdf5)
    save(name, opt)
    load(name, other)
    with pytest.raises(ValueError, match=r"the name 'x.txt' does not say"):
        fastadam.save(b"x.txt", opt)


def test_devices_are_written_to(tmp_path: Path, suffix: str) -> None:
    null, full = tmp_path / f"null.{suffix}", tmp_path / f"full.{suffix}"
    null.symlink_to("/dev/null")
    full.symlink_to("/dev/full")
    fastadam.save(null, make())
    with pytest.raises(OSError, match=r"No space left") as raised:
        fastadam.save(full, make())
    assert raised.value.errno == errno.ENOSPC
    assert null.is_symlink()
    assert full.is_symlink()


def peak_of(load: Any) -> int:
    tracemalloc.start()
    try:
        load()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def archive(path: Path, key: str, header: bytes, n_bytes: int) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:  # noqa: SIM117
        with file.open(f"{key}.npy", "w") as member:
            member.write(header)
            for _ in range(n_bytes >> 20):
                member.write(bytes(1 << 20))


def persistent() -> Any:
    link = fastadam.Link(W=2)
    for name, value in (("array", np.zeros(3)), ("number", 1), ("text", "")):
        link.add_persistent(name, value)
    return link


def rule_target() -> Any:
    opt = make()
    opt.apply_gradients({"w": np.ones(3)})
    return opt


@pytest.mark.parametrize(
    ("key", "target"),
    [
        ("W", lambda: fastadam.Link(W=3)),
        ("array", persistent),
        ("number", persistent),
        ("text", persistent),
        ("w/m", rule_target),
        ("w/fp32_param", rule_target),
        ("fastadam/loss_scale", rule_target),
    ],
)
def test_what_has_no_room_takes_no_memory(
    tmp_path: Path, suffix: str, key: str, target: Any
) -> None:
    """96 MB of zeros that take 100 KB in the file, at the place of three numbers."""
    obj, path = target(), tmp_path / f"a.{suffix}"
    n = 96 << 20
    if suffix == "npz":
        archive(path, key, header((n // 8,)), n)
        load = load_npz
    else:
        h5py = pytest.importorskip("h5py")
        load = load_hdf5
        with h5py.File(path, "w") as file:
            file.create_dataset(key, (n // 8,), "f8", compression=9, data=np.zeros(n // 8))
    assert path.stat().st_size < 1 << 20

    def refused() -> None:
        with pytest.raises(
            (ValueError, TypeError), match=rf"'{key}' .*(room for|single)"
        ) as raised:
            load(path, obj, strict=False)
        assert str(path) in str(raised.value)

    assert peak_of(refused) < 8 << 20


def test_a_sealed_bomb_is_compared_in_pieces(tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    path = tmp_path / "a.h5"
    save_hdf5(path, {"W": np.zeros(12 << 20), "b": np.ones(2)}, 9)

    def refused() -> None:
        with pytest.raises(ValueError, match=r"'W' .*room for"):
            load_hdf5(path, fastadam.Link(W=3, b=2))

    assert peak_of(refused) < 24 << 20
    link = fastadam.Link(W=12 << 20, b=2)
    load_hdf5(path, link)
    assert not link.W.array.any()


@pytest.mark.parametrize("n", [1 << 40, (1 << 60) // 8])
def test_headers_that_promise_terabytes(tmp_path: Path, n: int) -> None:
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("W.npy", header((n,)))
    for obj in (fastadam.Link(W=3), fastadam.Link(W=None)):
        with pytest.raises(ValueError, match=r"'W' .*bytes"):
            load_npz(path, obj)
    with np.load(path) as npz, pytest.raises(ValueError, match=r"'W' .*bytes"):
        NpzDeserializer(npz)("W", None)
    # the directory, too, may promise
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02")
    data[at + 20 : at + 28] = data[22:26] = data[18:22] = b"\xfe\xff\xff\xff" * 1
    path.write_bytes(data)
    with pytest.raises((ValueError, zipfile.BadZipFile)):
        load_npz(path, fastadam.Link(W=None))


def test_hdf5_files_that_promise_terabytes(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("W", (1 << 40,), "f8", chunks=(1 << 10,))
        file.create_dataset("small", (SMALL // 8,), "f8", chunks=(1 << 10,))
    for obj in (fastadam.Link(W=3), fastadam.Link(W=None)):
        with pytest.raises(ValueError, match=r"'W' .*(room for|cannot be in)"):
            load_hdf5(path, obj)
    link = fastadam.Link(small=SMALL // 8)
    load_hdf5(path, link)


@pytest.mark.parametrize(
    "depth", [DEPTH - 1, DEPTH + 1, pytest.param(30_000, marks=pytest.mark.slow)]
)
def test_groups_in_one_another(tmp_path: Path, depth: int) -> None:
    """Without end, or as many as there may be: in a process of its own, in case of a crash."""
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "deep.h5"
    with h5py.File(path, "w", libver="latest") as file:
        group = file.id
        for _ in range(depth):
            group = h5py.h5g.create(group, b"g")
        del group
    script = (
        "import sys, numpy as np, fastadam\n"
        "from fastadam.serializers import load_hdf5\n"
        "for load in (lambda o: fastadam.load(sys.argv[1], o),\n"
        "             lambda o: load_hdf5(sys.argv[1], o)):\n"
        "    try: load(fastadam.Adam().setup({'w': np.ones(3)}))\n"
        "    except (ValueError, KeyError) as error: print(error)\n"
    )
    argv = [sys.executable, "-c", script, str(path)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-2000:]
    assert ("groups in one another" in done.stdout) == (depth >= DEPTH), done.stdout


def test_a_locked_file_is_said_to_be_locked(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "run.h5"
    fastadam.save(path, make())
    script = "import h5py, sys\nf = h5py.File(sys.argv[1], 'r+')\nprint(1, flush=True)\ninput()"
    argv = [sys.executable, "-c", script, str(path)]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "1\n"
        for load in doors("h5"):
            with pytest.raises(
                (ValueError, OSError), match=r"is locked: another program"
            ) as raised:
                load(path)
            assert "damaged" not in str(raised.value)
            assert str(path) in str(raised.value)
        process.communicate("\n")
    del h5py
    assert fastadam.load(path, make()).verified
