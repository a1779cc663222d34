"""Arrays of every layout and dtype, through every writer and every reader."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastadam
from fastadam.files.entries import describe, pieces
from fastadam.files.limits import PIECE
from fastadam.serializers import (
    HDF5Deserializer,
    NpzDeserializer,
    load_hdf5,
    load_npz,
    save_hdf5,
    save_npz,
)

KINDS = ["?", "i1", "<i2", ">i4", "u8", "f2", "f4", "f8", ">f8", "c8", "U5", "S3", "bfloat16"]


def dtypes() -> Iterator[np.dtype[Any]]:
    for kind in KINDS:
        if kind != "bfloat16":
            yield np.dtype(kind)
            continue
        try:
            import ml_dtypes
        except ImportError:
            continue
        yield np.dtype(ml_dtypes.bfloat16)


def values(dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray:
    numbers = np.resize(np.array([1.5, 0, 3, -7, 120, 2.25]), shape)
    if dtype.kind == "u":
        numbers = abs(numbers)
    if dtype.kind in "US":
        texts = np.resize(np.array(["a", "", "xyz", "é" if dtype.kind == "U" else "e"]), shape)
        return texts.astype(dtype)
    return numbers.astype(dtype)


def layouts(dtype: np.dtype[Any]) -> Iterator[tuple[str, np.ndarray]]:
    """Arrays of every layout."""
    square = values(dtype, (6, 4))
    yield "column", square[:, 0]
    yield "one column", square[:, :1]
    yield "every other", square[::2]
    yield "backwards", square[::-1]
    yield "both backwards", square[::-1, ::-2]
    yield "fortran", np.asfortranarray(square)
    yield "fortran row", np.asfortranarray(square)[:1]
    yield "transposed", values(dtype, (2, 3, 4)).transpose(1, 2, 0)
    yield "one value", values(dtype, ())
    yield "one element", values(dtype, (1, 1))
    yield "empty", values(dtype, (0,))
    yield "empty in two axes", values(dtype, (3, 0, 2))
    yield "broadcast", np.broadcast_to(values(dtype, (3,)), (4, 3))
    fields = np.zeros((3, 2), [("a", "i1"), ("b", dtype)])
    fields["b"] = values(dtype, (3, 2))
    yield "field", fields["b"]
    memory = np.zeros(7 * dtype.itemsize + 1, np.uint8)[1:].view(dtype)
    memory[...] = values(dtype, (7,))
    yield "misaligned", memory
    fixed = values(dtype, (5,))
    fixed.flags.writeable = False
    yield "read-only", fixed
    yield "subclass", values(dtype, (4,)).view(Subclass)


class Subclass(np.ndarray):
    pass


def same(found: Any, wanted: np.ndarray) -> bool:
    found = np.asarray(found)
    if found.dtype == np.dtype("V2"):
        found = found.view(wanted.dtype)
    if wanted.dtype.kind in "US":
        return found.shape == wanted.shape and found.tolist() == wanted.tolist()
    return (found.dtype, found.shape, found.tobytes()) == (
        wanted.dtype,
        wanted.shape,
        wanted.tobytes(),
    )


class Holds:
    """A link in all but name."""

    def __init__(self, array: Any = None) -> None:
        self.array = array

    def serialize(self, serializer: Any) -> None:
        self.array = serializer("a/x", self.array)


def hdf5() -> bool:
    try:
        import h5py  # noqa: F401
    except ImportError:
        return False
    return True


def test_pieces_are_the_bytes_in_c_order() -> None:
    large = np.arange(PIECE // 2, dtype=np.float32).reshape(8, -1)
    cases = [a for dtype in dtypes() for _, a in layouts(dtype)]
    cases += [large, large.T, large[:, ::-1], large.reshape(1, 1, -1), large.astype(">f4")[::2]]
    for array in cases:
        found = list(pieces(array))
        assert b"".join(found) == array.tobytes()
        assert all(type(piece) is bytes and len(piece) <= PIECE for piece in found)
        # a digest is of values, whatever their layout
        assert describe(array) == describe(np.array(array, order="C"))


def test_every_layout_through_every_plain_writer() -> None:
    formats: list[tuple[Callable[..., None], Callable[..., None], list[Any]]]
    formats = [(save_npz, load_npz, [True, False])]
    if hdf5():
        formats.append((save_hdf5, load_hdf5, [4, None]))
    for dtype in dtypes():
        for name, array in layouts(dtype):
            for save, load, compressions in formats:
                for compression in compressions:
                    for obj in (Holds(array), {"a/x": array}):
                        file, other = io.BytesIO(), Holds()
                        save(file, obj, compression)
                        file.seek(0)
                        load(file, other)
                        assert same(other.array, array), (save.__name__, dtype, name)
                    if save is save_npz and dtype.name != "bfloat16":
                        file.seek(0)
                        with np.load(file) as npz:
                            assert same(npz["a/x"], array), (dtype, name)
                            assert same(NpzDeserializer(npz)("a/x", None), array), (dtype, name)
                    elif save is save_hdf5:
                        import h5py

                        file.seek(0)
                        with h5py.File(file) as opened:
                            found = HDF5Deserializer(opened)("a/x", None)
                        assert same(found, array), (dtype, name)


def test_every_layout_through_checkpoints(tmp_path: Path, suffix: str) -> None:
    """As a persistent value, and as a parameter with its states where it can be one."""
    path = tmp_path / f"run.{suffix}"
    for dtype in dtypes():
        for compression in (False, True):
            saved, other = fastadam.Link(W=2), fastadam.Link(W=2)
            saved.W.array[...], other.W.array[...] = 1, 2
            wanted = dict(layouts(dtype))
            for key, array in wanted.items():
                saved.add_persistent(key, array)
                other.add_persistent(key, np.zeros(array.shape, array.dtype))
            fastadam.save(path, fastadam.Adam().setup(saved), compression=compression)
            assert fastadam.load(path, fastadam.Adam().setup(other)).verified
            for key, array in wanted.items():
                assert same(getattr(other, key), array), (dtype, key)


def test_parameters_of_every_layout(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"run.{suffix}"
    for dtype in ("f2", "f4", "f8"):

        def made(dtype: str = dtype) -> dict[str, np.ndarray]:
            return {
                "column": np.ones((6, 2), dtype)[:, 0],
                "every other": np.ones(8, dtype)[::2],
                "backwards": np.ones(8, dtype)[::-1],
                "one column": np.ones((6, 2), dtype)[:, :1],
                "fortran": np.asfortranarray(np.ones((3, 4), dtype)),
                "field": np.ones(4, [("a", "i1"), ("b", dtype)])["b"],
                "one value": np.ones((), dtype),
                "empty": np.ones((0, 2), dtype),
            }

        opt = fastadam.AMSGrad().setup(made())
        for _ in range(2):
            opt.apply_gradients({k: np.full(p.shape, 0.5) for k, p in made().items()})
        fastadam.save(path, opt)
        other = fastadam.AMSGrad().setup(made())
        fastadam.load(path, other)
        assert other == opt, dtype


def test_what_has_no_bytes_or_no_counterpart(tmp_path: Path) -> None:
    empty = np.zeros(3, dtype=[])
    for save, suffix in ((save_npz, "npz"), (save_hdf5, "h5")):
        if suffix == "h5" and not hdf5():
            continue
        with pytest.raises(TypeError, match=r"'x': dtype .* no bytes"):
            save(tmp_path / f"a.{suffix}", {"x": empty})
        link = fastadam.Link(W=2)
        link.W.array[...] = 1
        link.add_persistent("x", empty)
        with pytest.raises(TypeError, match=r"'target/x': dtype .* no bytes"):
            fastadam.save(tmp_path / f"a.{suffix}", fastadam.Adam().setup(link))
    assert not list(tmp_path.iterdir())


def test_structured_arrays_are_for_npz_files(tmp_path: Path) -> None:
    dtype = np.dtype([("a", "<f4"), ("b", ">i2", (2,)), ("c", "S3")], align=True)
    array = np.full((4, 2 * dtype.itemsize), 0xAA, np.uint8).view(dtype)
    array["b"] = 3
    array["a"], array["c"] = 1.5, b"xy"
    for value in (array, array[::2, ::-1], np.asfortranarray(array)):
        file, other = io.BytesIO(), Holds()
        save_npz(file, Holds(value))
        file.seek(0)
        load_npz(file, other)
        assert other.array.dtype == dtype
        assert np.array_equal(other.array, value)
        saved, loaded = fastadam.Link(W=2), fastadam.Link(W=2)
        for link, held in ((saved, value), (loaded, np.zeros_like(value))):
            link.W.array[...] = 1
            link.add_persistent("x", held)
        fastadam.save(tmp_path / "run.npz", fastadam.Adam().setup(saved))
        fastadam.load(tmp_path / "run.npz", fastadam.Adam().setup(loaded))
        assert np.array_equal(loaded.x, value)
        if hdf5():
            with pytest.raises(TypeError, match=r"'a/x'.*no counterpart in HDF5"):
                save_hdf5(io.BytesIO(), Holds(value))
            with pytest.raises(TypeError, match=r"'target/x'.*no counterpart in HDF5"):
                fastadam.save(tmp_path / "run.h5", fastadam.Adam().setup(saved))
