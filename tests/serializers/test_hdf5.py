"""HDF5 files: what is written, what is read, and that damage is noticed before anything changes."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import subprocess
import sys

import numpy as np
import pytest

h5py = pytest.importorskip("h5py", reason="h5py is not installed")

from saved_links import model, state, trained  # noqa: E402

from fastadam import Adam  # noqa: E402
from fastadam.link import Chain, Link  # noqa: E402
from fastadam.serializers import (  # noqa: E402
    HDF5Deserializer,
    HDF5Serializer,
    is_deserializer,
    load_hdf5,
    save_hdf5,
)

DIGEST = "fastadam_sha256"


def written(obj, **options):
    file = io.BytesIO()
    save_hdf5(file, obj, **options)
    file.seek(0)
    return file


def opened(obj, **options):
    return h5py.File(written(obj, **options), "r")


def by_hand(**values):
    """A file that another program has made."""
    file = h5py.File(io.BytesIO(), "w")
    for key, value in values.items():
        file[key] = value
    return file


def keys(group):
    found = []
    group.visititems(
        lambda key, item: found.append(key) if isinstance(item, h5py.Dataset) else None
    )
    return sorted(found)


# Files


def test_keys_and_values_are_those_of_the_link():
    with opened(trained()) as file:
        assert keys(file) == ["count", "l1/W", "l1/b", "l1/mean", "l2/0/W", "l2/1/lazy", "text"]
        np.testing.assert_array_equal(file["l1/W"], trained().l1.W.array)
        assert file["l1/W"].dtype == np.float32
        assert file["l2/0/W"].dtype == np.float64
        assert (file["count"].shape, file["count"][()]) == ((), 7)
        assert file["text"].asstr()[()] == "grüße"
        assert file["l2/1/lazy"].shape is None
        assert file["l2/1/lazy"].dtype == np.float32


@pytest.mark.parametrize(
    ("compression", "expected"), [({}, 4), ({"compression": 9}, 9), ({"compression": 0}, 0)]
)
def test_compression_and_checksums(compression, expected):
    values = {"a/x": np.zeros((50, 60)), "one": np.ones(1), "n": 3, "none": None, "e": np.ones(0)}
    with opened(values, **compression) as file:
        dataset = file["a/x"]
        assert (dataset.compression, dataset.compression_opts) == ("gzip", expected)
        assert dataset.fletcher32
        assert file["one"].compression is None
        assert file["one"].fletcher32
        for key in ("n", "e", "none"):
            assert file[key].chunks is None
    assert sorted(values) == ["a/x", "e", "n", "none", "one"]


def test_without_compression():
    with opened({"x": np.zeros(5000)}, compression=None) as file:
        assert file["x"].compression is None
        assert file["x"].fletcher32
        np.testing.assert_array_equal(file["x"], np.zeros(5000))


@pytest.mark.parametrize("compression", [-1, 10, "gzip", 2.5])
def test_impossible_compression(tmp_path, compression):
    with pytest.raises(ValueError, match="compression must be a gzip level"):
        save_hdf5(tmp_path / "x", {"x": 1}, compression)
    assert os.listdir(tmp_path) == []


def test_the_same_object_gives_the_same_bytes():
    assert written(trained()).getvalue() == written(trained()).getvalue()


def test_groups_without_values_are_there():
    """Chainer's loader needs them for links without parameters below links without parameters."""
    with opened(Chain(a=Chain(b=Link()), c=Link())) as file:
        assert isinstance(file["a/b"], h5py.Group)
        assert isinstance(file["c"], h5py.Group)


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"x": np.zeros(2, "i4,f4")}, TypeError, "'x'.*no counterpart"),
        ({"x": np.zeros(2, "V3")}, TypeError, "'x'.*no counterpart"),
        ({"x": "\ud800"}, ValueError, "'x'"),
        ({"": 1}, ValueError, "''"),
        ({"a/": 1}, ValueError, "'a/'"),
        ({"a/.": 1}, ValueError, "'a/.'"),
        ({"a\0b": 1}, ValueError, "no name"),
        ({"a": 1, "a/b": 2}, ValueError, "below 'a'.*an array of that name"),
        ({"a/b/c": 1, "a/b": 2}, ValueError, "'a/b'.*a group of that name already"),
        ({"a": 1, "/a": 2}, ValueError, "'a'.*a dataset of that name already"),
    ],
)
def test_what_cannot_be_written_leaves_the_old_file(tmp_path, values, error, message):
    path = tmp_path / "model.h5"
    path.write_bytes(b"old")
    with pytest.raises(error, match=message):
        save_hdf5(path, values)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["model.h5"]


def test_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "model.h5"
    save_hdf5(path, Link(W=2))
    old = path.read_bytes()

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        save_hdf5(path, Link(W=2, b=3))
    assert path.read_bytes() == old
    assert os.listdir(tmp_path) == ["model.h5"]


def test_what_is_no_hdf5_file(tmp_path):
    path = tmp_path / "text"
    path.write_text("hello" * 1000)
    with pytest.raises(OSError, match="text' cannot be opened as an HDF5 file"):
        load_hdf5(path, Link())
    with pytest.raises(OSError, match="the file object cannot be opened"):
        load_hdf5(io.BytesIO(b""), Link())
    with pytest.raises(FileNotFoundError):
        load_hdf5(tmp_path / "missing", Link())
    with pytest.raises(FileNotFoundError):
        save_hdf5(tmp_path / "missing" / "x", Link())


def test_h5py_is_needed_only_when_it_is_used(tmp_path):
    script = (
        "import sys; sys.modules['h5py'] = None\n"
        "import fastadam\n"
        "from fastadam.serializers import *\n"
        "link = fastadam.Link(W=2)\n"
        "for call in (lambda: save_hdf5('x', link), lambda: load_hdf5('x', link),\n"
        "             lambda: HDF5Serializer(None), lambda: HDF5Deserializer(None)):\n"
        "    try: call()\n"
        "    except RuntimeError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 4
    assert all('pip install "h5py>=3.10"' in line for line in lines)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_files_of_other_programs(tmp_path, libver):
    with h5py.File(tmp_path / "x", "w", libver=libver) as file:
        file["l1/W"] = np.ones(2)
        file["l1/n"] = 3
        file["l1/none"] = h5py.Empty("f")
    link = Chain(l1=Link(W=2))
    link.l1.add_persistent("n", 0)
    link.l1.add_persistent("none", 1)
    load_hdf5(tmp_path / "x", link)
    np.testing.assert_array_equal(link.l1.W.array, [1, 1])
    assert (link.l1.n, link.l1.none) == (3, None)


# A path, missing keys, ignored keys


# Values


NUMBERS = ["?", "i1", "u2", ">i4", "u8", "f2", "f4", ">f4", "f8", "g", "c8", "c16", "m8[s]"]


def test_every_number_survives(case):
    for shape in [(), (0,), (0, 2), (1,), (3,), (2, 3)]:
        for dtype in NUMBERS:
            with case(shape=shape, dtype=dtype):
                values = np.resize(np.array([1, 0, 3, 7, 120, 1]), shape).astype(dtype)
                stored = HDF5Deserializer(opened({"x": values}))("x", None)
                assert (stored.dtype, stored.shape) == (np.dtype(dtype), shape)
                assert stored.tobytes() == values.tobytes()


def test_bfloat16(case):
    for order in ["C", "F", "strided"]:
        for shape in [(), (0,), (1,), (4,), (2, 3)]:
            with case(order=order, shape=shape):
                ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")
                bits = np.resize(np.array([0x3FC0, 0x8000, 0x7FC1, 0x0001], np.uint16), shape)
                if order == "strided":
                    bits = np.repeat(bits[..., None], 2, axis=-1)[..., 0]
                else:
                    bits = np.asarray(bits, order=order)
                values = bits.view(ml_dtypes.bfloat16)
                with opened({"x": values}) as file:
                    stored = HDF5Deserializer(file)("x", None)
                    # Other readers take it for a small float32.
                    assert file["x"].dtype == np.float32
                    np.testing.assert_array_equal(file["x"][()], values.astype(np.float32))
                assert stored.dtype == ml_dtypes.bfloat16
                np.testing.assert_array_equal(stored.view(np.uint16), bits)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
def test_bfloat16_into_arrays(dtype):
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")
    values = np.array([1.5, -0.0, 3e38, 1e-40], ml_dtypes.bfloat16)
    source, target = Link(), Link()
    source.add_persistent("x", values)
    target.add_persistent("x", np.zeros(4, ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype))
    load_hdf5(written(source), target)
    assert target.x.tobytes() == values.astype(target.x.dtype).tobytes()
    # And the other way: rounded.
    target.x[...] = [1.5, 2.0, 0.1, 1.0]
    source = Link()
    source.add_persistent("x", np.zeros(4, ml_dtypes.bfloat16))
    load_hdf5(written(target), source)
    np.testing.assert_array_equal(source.x, target.x.astype(ml_dtypes.bfloat16))


def test_bfloat16_without_its_package(monkeypatch):
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")
    file = opened({"x": np.array([1.5, -2.0], ml_dtypes.bfloat16)})
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    stored = HDF5Deserializer(file)("x", None)
    assert stored.dtype == np.float32
    np.testing.assert_array_equal(stored, [1.5, -2.0])


def test_other_extension_dtypes_are_refused():
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")
    for name in ("float8_e4m3fn", "float8_e5m2", "int4"):
        with pytest.raises(TypeError, match=f"'x': dtype {name} has no counterpart"):
            save_hdf5(io.BytesIO(), {"x": np.ones(2, getattr(ml_dtypes, name))})


@pytest.mark.parametrize(
    "stored",
    [
        np.bytes_("log"),  # Python 2, and fixed-length strings of other programs
        "log",  # h5py's own
        np.array("log", "O").astype(h5py.string_dtype("ascii")),
        np.array(b"log", h5py.string_dtype("utf-8", 3)),
        np.array(b"log", h5py.string_dtype("utf-8", 9)),
    ],
    ids=["bytes", "variable", "variable ASCII", "UTF-8", "padded UTF-8"],
)
def test_strings_that_others_have_written(stored):
    file = by_hand(x=stored)
    assert HDF5Deserializer(file)("x", "") == "log"
    loaded = HDF5Deserializer(file)("x", None)
    assert loaded.shape == ()
    assert loaded.dtype.kind in "US"


def test_what_is_no_string():
    file = by_hand(x=np.bytes_(b"\xff"), y=np.array(b"\xff", h5py.string_dtype("utf-8", 1)))
    with pytest.raises(TypeError, match="'x' has dtype"):
        HDF5Deserializer(file)("x", "")
    with pytest.raises(ValueError, match=r"'y' in the HDF5 file cannot be loaded.*utf-8"):
        HDF5Deserializer(file)("y", "")


def test_objects_are_refused():
    file = by_hand()
    file.create_dataset("ints", (1,), h5py.vlen_dtype(int))[0] = np.arange(2)
    file["reference"] = file["ints"].ref
    for key in ("ints", "reference"):
        for template in (None, 3, np.zeros(1)):
            with pytest.raises(ValueError, match=f"'{key}' in the HDF5 file holds objects"):
                HDF5Deserializer(file)(key, template)


# Open files


def test_serializers_on_a_group(tmp_path):
    with h5py.File(tmp_path / "x", "w") as file:
        serializer = HDF5Serializer(file.create_group("run/model"), 7)
        serializer.save(trained())
        assert serializer["l1"].group == file["run/model/l1"]
        assert (serializer["/l1/"].path, serializer["l1"].compression) == ("l1/", 7)
        value = np.ones(2)
        assert serializer["/new/"]("/x", value) is value
        assert file["run/model/l1/W"].compression_opts == 7
    assert not is_deserializer(serializer)
    with h5py.File(tmp_path / "x", "r+") as file:
        other = model()
        deserializer = HDF5Deserializer(file["run/model"])
        assert is_deserializer(deserializer)
        deserializer.load(other)
        assert state(other) == state(trained())
        np.testing.assert_array_equal(deserializer["new"]("x", None), [1, 1])
        assert deserializer["l1"].group == file["run/model/l1"]
        # Reading makes no groups, even in a file that can be written to.
        assert deserializer["other"].group is None
        with pytest.raises(ValueError, match=r"no group 'other/a' in .*x'.*'other/a/b'"):
            deserializer["other"]["a"]("b", 1)
        assert "other" not in file["run/model"]


def test_names_that_are_taken(tmp_path):
    with h5py.File(tmp_path / "x", "w") as file:
        serializer = HDF5Serializer(file)["a"]
        serializer("b", 1)
        for refused in (lambda: serializer["b"], lambda: serializer["b"]["c"]):
            with pytest.raises(ValueError, match=r"below 'a/b'.*x' holds an array of that name"):
                refused()
        with pytest.raises(ValueError, match=r"cannot save 'a/b'.*a dataset of that name already"):
            serializer("b", 2)
        with pytest.raises(ValueError, match=r"cannot save 'a'.*a group of that name already"):
            HDF5Serializer(file)("a", 2)
        with pytest.raises(ValueError, match=r"'a' in .* is a group, not an array"):
            HDF5Deserializer(file)("a", 2)
        with pytest.raises(ValueError, match="no group 'a/b'"):
            HDF5Deserializer(file)["a"]["b"]("c", 2)
        assert keys(file) == ["a/b"]
        assert HDF5Deserializer(file)["a"]("b", 0) == 1


@pytest.mark.parametrize("value", [[1], (1,), {}, object()])
def test_values_that_are_neither_arrays_nor_numbers(value):
    with (
        h5py.File(io.BytesIO(), "w") as file,
        pytest.raises(TypeError, match=r"'a/x'.*only arrays, numbers, strings and None"),
    ):
        HDF5Serializer(file)["a"]("x", value)


def test_missing_group_by_hand():
    with pytest.raises(ValueError, match="no group"):
        HDF5Deserializer(None)("x", 1)
    assert HDF5Deserializer(None, strict=False)["a"]("x", 1) == 1


def test_children_keep_the_settings():
    child = HDF5Deserializer(by_hand(), False, path="/p/", ignore_names=["p/a/x"])["a"]
    assert (child.path, child.strict, child.ignore_names) == ("p/a/", False, ["p/a/x"])


# Damage


def changed(obj, change):
    """Save an object, change the file with h5py, and return it."""
    file = written(obj)
    with h5py.File(file, "r+") as opened:
        change(opened)
    file.seek(0)
    return file


def swap(file, a, b):
    file.move(a, "other")
    file.move(b, a)
    file.move("other", b)


def replace(file, key, value):
    """Put other values under a key, with the old digest."""
    digest = file[key].attrs[DIGEST]
    del file[key]
    file[key] = value
    file[key].attrs[DIGEST] = digest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: replace(file, "l1/W", np.ones((2, 3), "f4")), "'l1/W' in .* is damaged"),
        (lambda file: replace(file, "l1/b", file["l1/b"][()].astype("f8")), "'l1/b' in"),
        (lambda file: replace(file, "l1/b", file["l1/b"][()].reshape(1, 2)), "'l1/b' in"),
        (lambda file: replace(file, "l1/b", h5py.Empty("f")), "'l1/b' in"),
        (lambda file: replace(file, "l2/1/lazy", np.ones(2)), "'l2/1/lazy' in"),
        (lambda file: replace(file, "text", "grüssen"), "'text' in"),
        (lambda file: replace(file, "count", 8), "'count' in"),
        (lambda file: file["count"].write_direct(np.array(8)), "'count' in"),
        (lambda file: swap(file, "l1/b", "l1/mean"), "of its keys"),
        (lambda file: file.move("l1/b", "l1/c"), "of its keys"),
        (lambda file: file.__delitem__("l2"), "of its keys"),
        (lambda file: file.__setitem__("new", 1), "of its keys"),
        (lambda file: file.attrs.__setitem__(DIGEST, np.bytes_("0" * 64)), "of its keys"),
        (lambda file: file["count"].attrs.__setitem__(DIGEST, 3), "'count' in"),
    ],
)
@pytest.mark.parametrize("strict", [True, False])
def test_other_values_are_noticed_before_anything_changes(change, message, strict):
    target = model()
    before = state(target)
    calls = []

    class Watched(Link):
        def serialize(self, serializer):
            calls.append(serializer)

    for one in (target, Watched()):
        with pytest.raises(ValueError, match=message):
            load_hdf5(changed(trained(), change), one, strict=strict)
    assert state(target) == before
    assert calls == []


def test_a_file_that_was_changed_on_purpose_can_be_read():
    def change(file):
        file["new"] = 1
        del file.attrs[DIGEST]

    target = model()
    load_hdf5(changed(trained(), change), target)
    assert state(target) == state(trained())


def test_values_without_the_files_digest_are_compared_with_their_own():
    def change(file):
        file["count"].write_direct(np.array(8))
        del file.attrs[DIGEST]

    class Greedy:
        """Takes one value after the other."""

        def serialize(self, serializer):
            self.weight = serializer["l1"]("W", None)
            self.count = serializer("count", 0)

    file = changed(trained(), change)
    target, greedy = model(), Greedy()
    before = state(target)
    for one in (target, greedy):
        file.seek(0)
        with pytest.raises(ValueError, match=r"'count' in .* is damaged"):
            load_hdf5(file, one)
    assert vars(greedy) == {}
    with pytest.raises(ValueError, match=r"'count' in .* is damaged"):
        HDF5Deserializer(h5py.File(file, "r"))("count", 0)
    assert state(target) == before


def test_the_digest_is_over_kind_shape_and_bytes():
    values = np.arange(6.0).reshape(2, 3)
    elements = hashlib.sha256(values.tobytes()).hexdigest()
    expected = hashlib.sha256(f"<f8 (2, 3) {elements}\n".encode()).hexdigest()
    for array in (values, np.asfortranarray(values)):
        with opened({"a/x": array.astype("<f8")}) as file:
            assert file["a/x"].attrs[DIGEST] == expected.encode()
            both = hashlib.sha256(f"3 a/x {expected}\n".encode()).hexdigest()
            assert file.attrs[DIGEST] == both.encode()


def test_damaged_data_is_named_with_file_and_key(tmp_path):
    path = tmp_path / "model.h5"
    link, target = Chain(l1=Link(W=64)), Chain(l1=Link(W=64))
    link.l1.W.array[...] = 3
    target.l1.W.array[...] = 4
    save_hdf5(path, link, compression=None)
    data = bytearray(path.read_bytes())
    position = data.index(np.full(64, 3, np.float32).tobytes())
    data[position + 100] ^= 1
    path.write_bytes(data)
    with pytest.raises(
        OSError, match=r"'l1/W' in .*model\.h5' cannot be read: the file is damaged"
    ):
        load_hdf5(path, target)
    np.testing.assert_array_equal(target.l1.W.array, np.full(64, 4))


def test_optimizer_in_a_group_beside_its_model(tmp_path):
    params = {"w": np.array([1.0, 2.0]), "b": np.zeros(())}
    opt = Adam(0.1).setup(params)
    opt.apply_gradients({"w": np.ones(2), "b": 1.0})
    with h5py.File(tmp_path / "x", "w") as file:
        serializer = HDF5Serializer(file)
        for name, array in params.items():
            serializer["model"](name, array)
        serializer["optimizer"].save(opt)
    restored = {"w": np.zeros(2), "b": np.zeros(())}
    other = Adam(0.1).setup(restored)
    load_hdf5(tmp_path / "x", other, path="optimizer/")
    with h5py.File(tmp_path / "x") as file:
        for name, array in restored.items():
            HDF5Deserializer(file)["model"](name, array)
    for one in (opt, other):
        one.apply_gradients({"w": np.array([3.0, 4.0]), "b": 5.0})
    np.testing.assert_array_equal(restored["w"], params["w"])
    np.testing.assert_array_equal(restored["b"], params["b"])
