"""HDF5 files whose large arrays libhdf5 never writes, beside those that it writes itself."""

from __future__ import annotations

import io
import random
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import fastadam
from fastadam.files.hdf5_image import Image
from fastadam.serializers import load_hdf5

h5py = pytest.importorskip("h5py")


def test_as_a_file_it_is_a_bytes_io() -> None:
    rng = random.Random(0)
    ours, theirs = Image(), io.BytesIO()
    for _ in range(3000):
        at, n = rng.randrange(30_000), rng.choice([0, 1, 100, 4096, 9000])
        what = rng.choice(["write", "write", "read", "truncate"])
        at = min(at, len(theirs.getvalue())) if what == "truncate" else at
        assert ours.seek(at) == theirs.seek(at)
        if what == "write":
            data = rng.randbytes(n)
            assert ours.write(data) == theirs.write(data)
        elif what == "read":
            assert ours.read(n) == theirs.read(n)
        elif at >= ours.seek(0, io.SEEK_END):  # shorter files keep what BytesIO forgets
            ours.truncate(at)
            theirs.truncate(at)
        assert ours.tell() == theirs.tell() or what == "truncate"
        assert ours.seek(0, io.SEEK_END) == theirs.seek(0, io.SEEK_END)
    whole = io.BytesIO()
    ours.write_to(whole)
    assert whole.getvalue() == theirs.getvalue()


@pytest.mark.parametrize("seed", range(5))
def test_h5py_reads_what_was_placed(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    params = {
        f"w{i}": rng.standard_normal(shape).astype(dtype)
        for i, (shape, dtype) in enumerate(
            (tuple(rng.integers(0, 40, rng.integers(0, 4))), rng.choice(["f4", "f8", "f2"]))
            for _ in range(30)
        )
    }
    opt = fastadam.Adam().setup(params)
    fastadam.save(tmp_path / "run.h5", opt)
    with h5py.File(tmp_path / "run.h5") as file:
        for key, value in params.items():
            found = file[f"target/{key}"]
            assert found.dtype == value.dtype
            np.testing.assert_array_equal(found[()], value)


def test_other_byte_orders_and_layouts(tmp_path: Path) -> None:
    params = {"a": np.arange(12.0).reshape(3, 4), "b": np.arange(6, dtype=">f8")}

    def made(a: np.ndarray, b: np.ndarray) -> fastadam.Link:
        link = fastadam.Link()
        with link.init_scope():
            link.a = fastadam.Parameter(a)
        link.add_persistent("b", b)
        return link

    opt = fastadam.Adam().setup(made(np.asfortranarray(params["a"]), params["b"]))
    for name in ("run.h5", "run.npz"):
        fastadam.save(tmp_path / name, opt)
        link = made(np.zeros((3, 4)), np.zeros(6))
        fastadam.load(tmp_path / name, fastadam.Adam().setup(link))
        np.testing.assert_array_equal(link.a.array, params["a"])
        np.testing.assert_array_equal(link.b, params["b"])


def test_saving_takes_no_second_copy(tmp_path: Path) -> None:
    opt = fastadam.Adam().setup({"w": np.ones(1_000_000)})
    opt.apply_gradients({"w": np.ones(1_000_000)})
    for name in ("run.h5", "run.npz"):
        fastadam.save(tmp_path / name, opt)
        tracemalloc.start()
        fastadam.save(tmp_path / name, opt)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 8_000_000


def test_load_hdf5_compares_what_was_placed(tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    opt = fastadam.Adam().setup({"w": np.arange(1000.0)})
    opt.apply_gradients({"w": np.ones(1000)})
    fastadam.save(path, opt)
    load_hdf5(path, fastadam.Adam().setup({"w": np.zeros(1000)}), path="optimizer/")
    with h5py.File(path) as file:
        offset = file["optimizer/w/m"].id.get_offset()
    data = bytearray(path.read_bytes())
    data[offset + 77] ^= 1
    path.write_bytes(data)
    other = fastadam.Adam().setup({"w": np.zeros(1000)})
    with pytest.raises(ValueError, match=r"'optimizer/w/m' in .* is damaged"):
        load_hdf5(path, other, path="optimizer/")
    assert other.t == 0
