"""npz files of ours and of others, whole and damaged, at both doors."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from npz_parts import archive, members

import fastadam
from fastadam.files import npz
from fastadam.files.limits import PIECE
from fastadam.serializers import NpzDeserializer, load_npz, save_npz, serialize


def make(seed: int) -> Any:
    params = {"w": np.full((3, 2), float(seed)), "b": np.full(4, seed, np.float32)}
    opt = fastadam.Adam(alpha=0.1 * seed).setup(params)
    opt.apply_gradients({k: np.full_like(p, seed) for k, p in params.items()})
    return opt


def state(opt: Any) -> list[Any]:
    arrays = [p.array.tobytes() for p in opt.parameters.values()]
    return [opt.t, opt.alpha, arrays, {k: v.tobytes() for k, v in serialize(opt).items()}]


def refused_by_both(path: Path, data: bytes, *words: str) -> None:
    """A damaged checkpoint is refused by `load` and by `load_npz`, which name the file."""
    path.write_bytes(data)
    other = make(2)
    before = state(other)
    for load in (
        lambda: fastadam.load(path, other),
        lambda: load_npz(path, other, path="optimizer/"),
    ):
        with pytest.raises((ValueError, EOFError, zipfile.BadZipFile)) as raised:
            load()
        for word in (str(path), *words):
            assert word in str(raised.value)
        assert state(other) == before


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "run.npz"
    fastadam.save(path, make(1))
    return path


def end_of(data: bytes) -> tuple[int, int, int]:
    """Where the end record is, and what it says of the directory."""
    at = data.rindex(b"PK\x05\x06")
    size, start = struct.unpack_from("<2L", data, at + 12)
    return at, size, start


def with_start(data: bytes, start: int) -> bytes:
    at, _, _ = end_of(data)
    return data[: at + 16] + struct.pack("<L", start) + data[at + 20 :]


def test_two_members_of_one_name(saved: Path) -> None:
    held = members(saved)
    good = held["optimizer/w/m.npy"]
    for parts in (
        (held, {"optimizer/w/m.npy": good}),
        (held, {"optimizer/w/m": good}),
        ({"optimizer/w/m": good}, held),
    ):
        refused_by_both(saved, archive(*parts), "optimizer/w/m", "twice")


def test_damaged_ends(saved: Path) -> None:
    data = saved.read_bytes()
    at, size, start = end_of(data)
    for changed in (
        with_start(data, 2 * start),
        with_start(data, start - 1),
        with_start(data, 0),
        with_start(data, 0xFFFFFFFF),
        data[: at + 12] + struct.pack("<L", size - 46) + data[at + 16 :],
        data[: at + 8] + struct.pack("<2H", 1, 1) + data[at + 12 :],
        data[: at + 4] + struct.pack("<2H", 1, 1) + data[at + 8 :],
        data[:at],
        data[:-1],
        data[: len(data) // 2],
        data[:100],
        data + data,
    ):
        refused_by_both(saved, changed, "damaged or cut off")
    refused_by_both(saved, data + b"more", "longer than")
    refused_by_both(saved, b"", "is empty")
    refused_by_both(saved, b"before" + data, "is not an npz file")
    refused_by_both(saved, data[:4] + data, "damaged or cut off")
    saved.write_bytes(data)
    assert fastadam.load(saved, make(2)).verified


def test_what_stands_twice_must_be_the_same(saved: Path) -> None:
    """Every byte around the values: in front of each, and in the directory."""
    data = saved.read_bytes()
    before = state(make(1))
    start = end_of(data)[2]
    with zipfile.ZipFile(saved) as archive:
        info = archive.getinfo("optimizer/w/m.npy")
    name = len(info.filename)
    record = data.index(info.filename.encode(), start) - 46
    fronts = [info.header_offset + i for i in (*range(4), *range(6, 30 + name))]
    # not the version, which says nothing, and not what is told of files on disks
    records = [record + i for i in (*range(4), *range(8, 34), *range(42, 46 + name))]
    for place in [*fronts, *records]:
        changed = bytearray(data)
        changed[place] ^= 1
        saved.write_bytes(changed)
        other = make(2)
        for load in (
            lambda: fastadam.load(saved, other),  # noqa: B023 - called at once
            lambda: load_npz(saved, other, path="optimizer/"),  # noqa: B023
        ):
            with pytest.raises((ValueError, zipfile.BadZipFile, KeyError)):
                load()
            assert state(other) == state(make(2)), place
    assert before == state(make(1))


@pytest.mark.parametrize("damage", ["flip", "cut", "insert", "duplicate", "zeros"])
def test_any_damage_is_refused(saved: Path, damage: str) -> None:
    data = saved.read_bytes()
    random = np.random.default_rng(len(damage))
    before = state(make(2))
    wanted = state(make(1))
    refused = 0
    for _ in range(150):
        changed = bytearray(data)
        at, n = int(random.integers(len(data))), int(random.integers(1, 80))
        if damage == "flip":
            changed[at] ^= 1 << int(random.integers(8))
        elif damage == "cut":
            del changed[at : at + n]
        elif damage == "insert":
            changed[at:at] = random.bytes(n)
        elif damage == "duplicate":
            changed[at:at] = changed[at : at + n]
        else:
            changed[at : at + n] = bytes(len(changed[at : at + n]))
        if bytes(changed) == data:
            continue
        saved.write_bytes(changed)
        for load in (fastadam.load, lambda path, opt: load_npz(path, opt, path="optimizer/")):
            other = make(2)
            try:
                load(saved, other)
            except (ValueError, EOFError, KeyError, zipfile.BadZipFile):
                assert state(other) == before
                refused += 1
            else:
                # bytes of no meaning, or those of what this does not read
                found = state(other)
                assert found[0] == wanted[0]
                assert found[3] == wanted[3]
    assert refused > 150


def plain_members(archive: zipfile.ZipFile, values: dict[str, np.ndarray]) -> None:
    for key, value in values.items():
        with archive.open(f"{key}.npy", "w") as member:
            np.lib.format.write_array(member, value)


class OneWay(io.RawIOBase):
    """What cannot go back, as a pipe."""

    def __init__(self) -> None:
        self.data = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.data += data
        return len(data)


VALUES = {
    "a/x": np.arange(6.0).reshape(2, 3),
    "ü": np.asfortranarray(np.ones((2, 3), np.float32)),
    "large": np.arange(PIECE, dtype=np.float32),
    "n": np.array(3),
    "none": np.array(None, dtype=object),
    "empty": np.zeros((0, 2)),
    "text": np.array("hello"),
}


def by_savez(file: Any) -> None:
    np.savez(file, **VALUES)


def by_savez_compressed(file: Any) -> None:
    np.savez_compressed(file, **VALUES)


def by_zipfile(file: Any) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.comment = b"a comment"
        plain_members(opened, VALUES)


def by_zipfile_appended(file: Any) -> None:
    first = dict(list(VALUES.items())[:3])
    with zipfile.ZipFile(file, "w") as archive:
        plain_members(archive, first)
    with zipfile.ZipFile(file, "a") as archive:
        plain_members(archive, {k: v for k, v in VALUES.items() if k not in first})


def by_us(file: Any) -> None:
    save_npz(file, VALUES, compression=False)


def by_us_compressed(file: Any) -> None:
    save_npz(file, VALUES)


WRITERS: list[Callable[[Any], None]] = [
    *(by_savez, by_savez_compressed, by_zipfile, by_zipfile_appended, by_us, by_us_compressed)
]


@pytest.mark.parametrize("one_way", [False, True])
@pytest.mark.parametrize("write", WRITERS)
def test_files_of_every_writer_in_every_reader(
    tmp_path: Path, write: Callable[[Any], None], one_way: bool
) -> None:
    if one_way and write is by_zipfile_appended:
        pytest.skip("to append one has to go back")
    if one_way:
        sink = OneWay()
        write(sink)
        data = bytes(sink.data)
    else:
        file = io.BytesIO()
        write(file)
        data = file.getvalue()
    path = tmp_path / "a.npz"
    path.write_bytes(data)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
    with npz.opened(path) as reader:
        assert set(reader.keys()) == set(VALUES)
        for key, value in VALUES.items():
            found = reader.read(key, None)
            assert found.dtype == value.dtype, key
            np.testing.assert_array_equal(found, value)
            assert found.flags.writeable
    with np.load(path, allow_pickle=True) as opened:
        assert set(opened.files) == set(VALUES)
        for key, value in VALUES.items():
            np.testing.assert_array_equal(opened[key], value)
            mine = NpzDeserializer(opened)(key, None)
            assert mine is None if key == "none" else np.array_equal(mine, value)


def test_more_members_than_a_plain_end_can_tell(tmp_path: Path) -> None:
    values = {f"k{i}": np.array(i) for i in range(66_000)}
    path = tmp_path / "many.npz"
    save_npz(path, values, compression=False)
    with npz.opened(path) as reader:
        assert reader.keys() == list(values)
        for key in ("k0", "k65534", "k65535", "k65999"):
            assert reader.read(key, 8) == values[key]
    with zipfile.ZipFile(path) as archive:
        assert len(archive.namelist()) == 66_000
    with np.load(path) as opened:
        assert opened["k65999"] == 65_999


def test_the_same_values_make_the_same_bytes() -> None:
    files = [io.BytesIO(), io.BytesIO()]
    for file in files:
        save_npz(file, VALUES)
    assert files[0].getvalue() == files[1].getvalue()


def test_behind_something_else_in_a_file_object() -> None:
    file = io.BytesIO()
    file.write(b"a header")
    save_npz(file, {"W": np.ones(2)})
    file.seek(8)
    link = fastadam.Link(W=2)
    load_npz(file, link)
    assert link.W.array.tolist() == [1, 1]


@pytest.mark.parametrize("n", [10, PIECE])
def test_a_flip_in_values_without_digests(n: int) -> None:
    file = io.BytesIO()
    save_npz(file, {"W": np.ones(n, np.float32)}, compression=False)
    data = bytearray(file.getvalue())
    data[300 if n > 10 else 170] ^= 1
    link = fastadam.Link(W=n)
    link.W.array[...] = 3
    with pytest.raises(zipfile.BadZipFile, match=r"'W' .*checksum"):
        load_npz(io.BytesIO(bytes(data)), link)
    assert np.all(link.W.array == 3)


def test_bytes_between_two_members() -> None:
    file = io.BytesIO()
    save_npz(file, {"W": np.ones(3, np.float32), "b": np.ones(2, np.float32)}, compression=False)
    data = file.getvalue()
    _, _, start = end_of(data)
    second = data.index(b"PK\x03\x04", 4)
    record = data.index(b"PK\x01\x02", start + 4)
    changed = bytearray(data)
    changed[record + 42 : record + 46] = struct.pack("<L", second + 5)
    changed[second:second] = b"hello"
    link = fastadam.Link(W=3, b=2)
    with pytest.raises(zipfile.BadZipFile, match=r"'W' .*does not end where"):
        load_npz(io.BytesIO(with_start(bytes(changed), start + 5)), link)
