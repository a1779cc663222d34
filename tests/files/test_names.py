"""Which names values may have: the same for every writer, before a file is touched."""

from __future__ import annotations

import enum
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastadam
from fastadam.files.limits import DEPTH, NAME
from fastadam.files.names import check_groups, check_key, check_keys
from fastadam.serializers import load_hdf5, load_npz, save_hdf5, save_npz, serialize

BAD = {
    "": "is empty",
    ".": "'.' is no name",
    "a//b": "is empty",
    "a/": "is empty",
    "a/./b": "'.' is no name",
    "a\0b": "null character",
    "a\ud800": "surrogate",
    "w" * (NAME + 1): "bytes in UTF-8",
    "ü" * (NAME // 2 + 1): "bytes in UTF-8",
    "a/" * DEPTH + "a": "names deep",
}
GOOD = ["a", "..", "a b", "file", "allow_pickle", "W.npy", "ü/☃/𝄞", "a/..b", "x" * 5000, "\x1b[0m"]


class Color(str, enum.Enum):  # noqa: UP042 - as programs have them
    RED = "red"


def link_with(name: str) -> fastadam.Link:
    link = fastadam.Link(W=2)
    link.W.array[...] = 1
    link.add_persistent(name, 1)
    return link


def doors() -> dict[str, Callable[[Path, str], object]]:
    found: dict[str, Callable[[Path, str], object]] = {
        "save_npz dict": lambda path, name: save_npz(path / "old.npz", {name: 1}),
        "save_npz link": lambda path, name: save_npz(path / "old.npz", link_with(name)),
        "save npz": lambda path, name: fastadam.save(
            path / "old.npz", fastadam.Adam().setup(link_with(name))
        ),
    }
    try:
        import h5py  # noqa: F401
    except ImportError:
        return found
    return found | {
        "save_hdf5 dict": lambda path, name: save_hdf5(path / "old.h5", {name: 1}),
        "save_hdf5 link": lambda path, name: save_hdf5(path / "old.h5", link_with(name)),
        "save h5": lambda path, name: fastadam.save(
            path / "old.h5", fastadam.Adam().setup(link_with(name))
        ),
    }


def test_every_writer_refuses_the_same_names(tmp_path: Path) -> None:
    for file in ("old.npz", "old.h5"):
        (tmp_path / file).write_bytes(b"old")
    for name, words in BAD.items():
        with pytest.raises(ValueError, match="is no name for a value") as raised:
            check_key(name)
        assert words in str(raised.value)
        assert len(str(raised.value)) < 600
        for door, save in doors().items():
            with pytest.raises(ValueError, match=r"cannot save: .* is no name") as refused:
                save(tmp_path, name)
            assert words in str(refused.value), (door, name)
            assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"old", b"old"], door
        if "/" not in name:
            with pytest.raises(ValueError, match=r"is empty|is no name for a value"):
                fastadam.Adam().setup({"layer": {name: np.ones(2)}})


def test_every_writer_takes_the_same_names(tmp_path: Path) -> None:
    for name in GOOD:
        assert check_key(name) == name
        values = {name: np.arange(3.0), "other": np.ones(1)}
        for save, load, suffix in ((save_npz, load_npz, "npz"), (save_hdf5, load_hdf5, "h5")):
            if suffix == "h5":
                pytest.importorskip("h5py")
            file = io.BytesIO()
            save(file, values)
            file.seek(0)

            class Reads:
                def serialize(self, serializer: Any, name: str = name) -> None:
                    self.found = serializer(name, None)

            reads = Reads()
            load(file, reads)
            np.testing.assert_array_equal(reads.found, values[name], err_msg=repr(name))
            if "/" in name:
                continue
            path = tmp_path / f"run.{suffix}"
            opt = fastadam.Adam().setup({name: np.arange(2.0)})
            opt.apply_gradients({name: np.ones(2)})
            fastadam.save(path, opt)
            other = fastadam.Adam().setup({name: np.zeros(2)})
            fastadam.load(path, other)
            assert other == opt, name


def test_members_of_enumerations_are_their_values(tmp_path: Path) -> None:
    top, below = {Color.RED: np.ones(2)}, {"layer": {Color.RED: np.ones(2)}}
    for target, path, grads in (
        (top, "red", {Color.RED: np.ones(2)}),
        (below, "layer/red", {"layer": {Color.RED: np.ones(2)}}),
        (top, "red", {"red": np.ones(2)}),
    ):
        opt = fastadam.Adam().setup(target)
        assert list(opt.parameters) == [path]
        assert all(type(key) is str for key in opt.parameters)
        opt.apply_gradients(grads)
        assert set(serialize(opt)) == {"t", "epoch", *(f"{path}/{k}" for k in "tmv")}
        fastadam.save(tmp_path / "run.npz", opt)
        other = fastadam.Adam().setup({"red": np.ones(2)} if target is top else target)
        fastadam.load(tmp_path / "run.npz", other)
        assert other == opt


def test_keys_are_strings_and_each_there_once() -> None:
    assert check_keys(["/a", "b/c", Color.RED]) == ["a", "b/c", "red"]
    assert check_groups(["a/b/c", "a/d", "e"]) == ["a/b", "a"]
    with pytest.raises(TypeError, match="the key 3: keys must be strings"):
        check_keys([3])  # type: ignore[list-item]
    for keys in (["a", "/a"], [Color.RED, "red"]):
        with pytest.raises(ValueError, match="of that name already"):
            check_keys(keys)
    for keys in (["a", "a/b"], ["a/b/c", "a/b"], ["a/b", "a"]):
        with pytest.raises(ValueError, match=r"below 'a'|a group of that name already"):
            check_groups(keys)
    with pytest.raises(ValueError, match="'a': there is a group of that name"):
        check_groups(["a"], ["a"])
