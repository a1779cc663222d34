"""Small values of HDF5 files with a list of contents, read where headers say that they are."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastadam
from fastadam.files import hdf5
from fastadam.files.entries import describe
from fastadam.files.errors import NoRoomError
from fastadam.files.hdf5_group import Hdf5Group
from fastadam.files.manifest import KEY, Manifest, pack
from fastadam.files.verified import read_listed, read_manifest
from fastadam.serializers import load_hdf5

h5py = pytest.importorskip("h5py")

NUMBERS = ["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16"]


def made(seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    params = {f"p{i}": rng.standard_normal((2, 1 + i % 3)) for i in range(40)}
    opt = fastadam.Adam(alpha=0.1 + seed).setup(params)
    opt.apply_gradients({key: np.ones_like(array) for key, array in params.items()})
    return opt


def opened_keys(patch: pytest.MonkeyPatch) -> list[str]:
    """What libhdf5 is asked to open from now on."""
    keys: list[str] = []
    opens = Hdf5Group._open

    def noted(self: Any, key: str) -> Any:
        keys.append(key)
        return opens(self, key)

    patch.setattr(Hdf5Group, "_open", noted)
    return keys


def test_parameters_and_states_are_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opt, other = made(), made(1)
    fastadam.save(tmp_path / "run.h5", opt)
    keys = opened_keys(monkeypatch)
    fastadam.load(tmp_path / "run.h5", other)
    assert other == opt
    assert KEY in keys
    assert not [key for key in keys if "/p" in key]
    keys.clear()
    other = made(2)
    load_hdf5(tmp_path / "run.h5", other, path="optimizer/")
    assert not [key for key in keys if "/p" in key]
    for path, param in opt.parameters.items():
        for name, value in param.update_rule.state.items():
            found = other.parameters[path].update_rule.state[name]
            np.testing.assert_array_equal(found, value)


def values() -> dict[str, np.ndarray]:
    found = {kind: np.arange(6).reshape(2, 3).astype(kind) for kind in NUMBERS}
    found["one"] = np.array(2.5)
    try:
        import ml_dtypes
    except ImportError:
        return found
    return found | {"half": np.arange(5).astype(ml_dtypes.bfloat16)}


def others() -> dict[str, np.ndarray]:
    return {
        "other byte order": np.arange(3, dtype=">f8"),
        "long": np.arange(20_000.0),
        "empty": np.zeros((0, 2)),
        "text": np.array("é"),
        "texts": np.array(["a", "bc"]),
        "wide": np.arange(3, dtype=np.longdouble),
        "day": np.array(["2020-01-01"], "M8[D]"),
    }


def test_every_kind_of_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = values()
    every = {**quick, **others()}
    entries = {key: describe(value) for key, value in every.items()}
    path = tmp_path / "a.h5"
    hdf5.write(path, {**every, KEY: pack(Manifest(entries, {}))}, False, lambda n: None)
    keys = opened_keys(monkeypatch)
    with hdf5.opened(path) as reader:
        manifest = read_manifest(reader)
        assert manifest is not None
        keys.clear()
        for key, value in every.items():
            found = read_listed(reader, key, manifest.entries[key], value.nbytes or None)
            assert describe(found) == entries[key], key
            assert found.dtype.name == value.dtype.name, key
            assert found.flags.writeable, key
        assert keys == list(others())
        for key, value in quick.items():
            with pytest.raises(NoRoomError, match="room for"):
                read_listed(reader, key, manifest.entries[key], value.nbytes - 1)


def test_bfloat16_without_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    value = np.array([[1.5, -2], [0, 3]], ml_dtypes.bfloat16)
    listed = describe(value)
    path = tmp_path / "a.h5"
    hdf5.write(path, {"a": value, KEY: pack(Manifest({"a": listed}, {}))}, False, lambda n: None)
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with hdf5.opened(path) as reader:
        found = read_listed(reader, "a", listed, None)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, [[1.5, -2], [0, 3]])


FORMS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "something before it": ({"userblock_size": 512}, {}),
    "the oldest format": ({"libver": "earliest"}, {}),
    "the newest format": ({"libver": "latest"}, {}),
    "chunks": ({"libver": "v110"}, {"chunks": (1, 1)}),
    "packed": ({"libver": "v110"}, {"chunks": (2, 1), "compression": 4, "shuffle": True}),
    "in the header": ({"libver": "v110"}, {"dcpl": "compact"}),
    "with attributes": ({"libver": "v110"}, {"track_order": True}),
}


@pytest.mark.parametrize("form", FORMS)
def test_files_that_another_program_has_written_anew(tmp_path: Path, form: str) -> None:
    """The values are those that were saved, wherever they are now."""
    file_options, options = FORMS[form]
    opt, other = made(), made(1)
    fastadam.save(tmp_path / "run.h5", opt)
    path = tmp_path / "anew.h5"
    with h5py.File(tmp_path / "run.h5") as old, h5py.File(path, "w", **file_options) as new:

        def copy(key: str, item: Any) -> None:
            if isinstance(item, h5py.Group):
                return
            new.require_group(key.rpartition("/")[0])
            if item.ndim < 2:
                old.copy(item, new, key)
                return
            how = dict(options)
            if how.get("dcpl") == "compact":
                how["dcpl"] = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
                how["dcpl"].set_layout(h5py.h5d.COMPACT)
            dataset = new.create_dataset(key, data=item[()], **how)
            # what looks like the message that is looked for, and says another place
            misleading = b"\x08\x12\0.\3\1" + bytes(8) + item.nbytes.to_bytes(8, "little")
            dataset.attrs["note"] = np.frombuffer(misleading, np.uint8)

        old.visititems(copy)
    assert fastadam.load(path, other).verified
    assert other == opt


@pytest.mark.parametrize("seed", range(3))
def test_a_wrong_guess_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    opt, other = made(), made(1)
    path = tmp_path / "run.h5"
    fastadam.save(path, opt)
    length = path.stat().st_size
    rng = np.random.default_rng(seed)
    places: list[Callable[[bytes], Any]] = [
        lambda header: None,
        lambda header: (int(rng.integers(length)), 8),
        lambda header: (length - 3, 8),
        lambda header: ((1 << 64) - 1, 8),
        lambda header: (1 << 62, 8),
    ]
    for place in places:
        monkeypatch.setattr(hdf5, "place_of", place)
        fastadam.load(path, other)
        assert other == opt
        other = made(1)
