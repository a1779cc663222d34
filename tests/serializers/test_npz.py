from __future__ import annotations

import io
import os
import pathlib
import pickle
import struct
import zipfile

import numpy as np
import pytest

from fastadam.link import Chain, ChainList, Link
from fastadam.model.parameter import Parameter
from fastadam.serializers import NpzDeserializer, load_npz, save_npz


def model(fill=0):
    chain = Chain(l1=Link(W=(2, 3), b=2), l2=ChainList(Link(W=((3,), "f8")), Link(lazy=None)))
    chain.l1.add_persistent("mean", np.zeros(2))
    chain.add_persistent("count", 0)
    chain.add_persistent("text", "")
    for number, param in enumerate(chain.params(include_uninit=False)):
        param.array[...] = np.arange(param.size).reshape(param.shape) + fill + 10 * number
    return chain


def trained():
    chain = model(100)
    chain.l1.mean[...] = [5, 6]
    chain.count = 7
    chain.text = "hello"
    return chain


def state(link):
    """Everything a file may change, as bytes."""
    params = {
        path: None if p.array is None else p.array.tobytes() for path, p in link.namedparams()
    }
    return params, link.l1.mean.tobytes(), link.count, link.text


def written(obj, **options):
    file = io.BytesIO()
    save_npz(file, obj, **options)
    file.seek(0)
    return file


def loaded(file, obj, **options):
    file.seek(0)
    load_npz(file, obj, **options)
    return obj


class Evil:
    ran = False

    def __reduce__(self):
        return (setattr, (Evil, "ran", True))


# Files


@pytest.mark.parametrize("compression", [True, False])
@pytest.mark.parametrize("kind", ["str", "path", "file object"])
def test_round_trip(tmp_path, kind, compression):
    path = tmp_path / "model"
    if kind == "file object":
        with path.open("wb") as file:
            save_npz(file, trained(), compression)
        other = model()
        with path.open("rb") as file:
            load_npz(file, other)
    else:
        name = str(path) if kind == "str" else path
        save_npz(name, trained(), compression)
        other = model()
        load_npz(name, other)
    assert state(other) == state(trained())
    # The name is used as given, and nothing else is left.
    assert os.listdir(tmp_path) == ["model"]
    with zipfile.ZipFile(path) as archive:
        compressed = {info.compress_type for info in archive.infolist()}
    assert compressed == {zipfile.ZIP_DEFLATED if compression else zipfile.ZIP_STORED}


def test_keys_and_values_are_those_of_the_link():
    with np.load(written(trained()), allow_pickle=True) as npz:
        assert sorted(npz.files) == [
            "count",
            "l1/W",
            "l1/b",
            "l1/mean",
            "l2/0/W",
            "l2/1/lazy",
            "text",
        ]
        np.testing.assert_array_equal(npz["l1/W"], trained().l1.W.array)
        assert npz["l1/W"].dtype == np.float32
        assert npz["l2/0/W"].dtype == np.float64
        assert npz["count"].shape == ()
        assert npz["count"] == 7
        assert npz["text"] == "hello"
        assert npz["l2/1/lazy"].dtype == object
        assert npz["l2/1/lazy"][()] is None


def test_dictionary_is_written_as_it_is():
    with np.load(written({"a/b": [1, 2], "c": np.float32(3), "n": 1})) as npz:
        assert sorted(npz.files) == ["a/b", "c", "n"]
        np.testing.assert_array_equal(npz["a/b"], [1, 2])
        assert npz["c"].dtype == np.float32
    assert NpzDeserializer(np.load(written({"n": None})))("n", 3) is None


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"x": np.array([None])}, TypeError, "'x'"),
        ({"x": {}}, TypeError, "'x'"),
        ({3: 1}, TypeError, "3"),
    ],
)
def test_what_cannot_be_written_leaves_the_old_file(tmp_path, values, error, message):
    path = tmp_path / "model.npz"
    path.write_bytes(b"old")
    with pytest.raises(error, match=message):
        save_npz(path, values)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["model.npz"]


def test_names_of_numpys_arguments_are_names():
    file = written({"file": 1, "allow_pickle": 2, "args": 3})
    with np.load(file) as npz:
        assert {key: int(npz[key]) for key in npz.files} == {
            "file": 1,
            "allow_pickle": 2,
            "args": 3,
        }


def test_failing_serialize_leaves_the_old_file(tmp_path):
    class Failing(Link):
        def serialize(self, serializer):
            super().serialize(serializer)
            raise ZeroDivisionError

    path = tmp_path / "model.npz"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError):
        save_npz(path, Failing(W=2))
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["model.npz"]


def test_what_is_no_npz_file(tmp_path):
    array = io.BytesIO()
    np.save(array, np.ones(2))
    array.seek(0)
    with pytest.raises(ValueError, match="not an npz file"):
        load_npz(array, Link())
    path = tmp_path / "pickle"
    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ValueError, match=r"pickle' is not an npz file.* not read") as caught:
        load_npz(path, Link())
    assert "allow_pickle" not in str(caught.value)
    assert not Evil.ran
    path.write_bytes(b"")
    with pytest.raises(EOFError, match=r"pickle' is empty"):
        load_npz(path, Link())
    path.write_bytes(written(trained()).getvalue()[:-30])
    with pytest.raises(zipfile.BadZipFile, match=r"pickle' is damaged or cut off"):
        load_npz(path, Link())
    with pytest.raises(FileNotFoundError):
        load_npz(tmp_path / "missing", Link())


def test_load_from_a_path_in_the_file():
    file = written({"updater/model:main/W": np.ones(2, np.float32)})
    link = loaded(file, Link(W=2), path="updater/model:main/")
    np.testing.assert_array_equal(link.W.array, [1, 1])
    with pytest.raises(KeyError, match="end the path with a slash"):
        loaded(file, Link(W=2), path="updater/model:main")


# Uninitialised parameters


def test_uninitialised_parameter_takes_the_stored_array():
    source = Link(W=((2, 2), "f8"))
    source.W.array[...] = 1.5
    calls = []

    def initializer(array):
        calls.append(array)
        array.fill(0)

    target = Link()
    target.add_param("W", initializer=initializer)
    loaded(written(source), target)
    np.testing.assert_array_equal(target.W.array, np.full((2, 2), 1.5, np.float32))
    assert target.W.array.dtype == np.float32
    assert np.isnan(target.W.grad).all()
    # Loading draws no random numbers.
    assert calls == []


def test_cleared_uninitialised_parameter_gets_no_gradient():
    target = Link(W=None)
    target.cleargrads()
    loaded(written(Link(W=2)), target)
    assert target.W.grad is None


def test_stored_none_changes_nothing():
    target = Link(W=2, b=None)
    target.W.array[...] = 3
    loaded(written(Link(W=None, b=None)), target)
    np.testing.assert_array_equal(target.W.array, [3, 3])
    assert target.b.array is None


def test_shared_copies_stay_shared():
    link = Link(W=None)
    model = Chain(a=link, b=link.copy("share"))
    loaded(written(Chain(a=Link(W=2), b=Link(W=2))), model)
    assert model.a.W.array is model.b.W.array


def test_tied_uninitialised_parameter_with_two_shapes_in_the_file():
    link = Link(W=None)
    loaded(written({"a/W": np.ones(2), "b/W": np.ones((2, 2))}), Chain(a=link, b=link))
    np.testing.assert_array_equal(link.W.array, np.ones((2, 2)))


# Pickles


def raw_npz(**members):
    """Write an archive from the bytes of its members."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            archive.writestr(name + ".npy", data)
    file.seek(0)
    return file


def npy(array):
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asarray(array), allow_pickle=True)
    return file.getvalue()


@pytest.mark.parametrize(
    "value",
    [Evil(), 1, "x", [None], np.array([None, None], dtype=object)],
    ids=["code", "int", "str", "list", "array"],
)
@pytest.mark.parametrize("allow_pickle", [True, False])
@pytest.mark.parametrize("template", [None, 3, np.zeros(1)], ids=["None", "int", "array"])
def test_object_arrays_are_refused_and_not_unpickled(value, allow_pickle, template):
    array = np.empty((), object)
    array[()] = value
    file = raw_npz(W=npy(value if isinstance(value, np.ndarray) else array))
    deserializer = NpzDeserializer(np.load(file, allow_pickle=allow_pickle))
    with pytest.raises(ValueError, match="'W' in the npz file cannot be loaded"):
        deserializer("W", template)
    assert not Evil.ran


def test_a_pickle_that_says_none_but_more_is_refused():
    data = npy(None)
    assert NpzDeserializer(np.load(raw_npz(W=data)))("W", 1) is None
    one_element = data.replace(b"'shape': (), }  ", b"'shape': (1,), }")
    assert len(one_element) == len(data)
    for other in (data + b"N.", data[:-1], one_element):
        with pytest.raises(ValueError, match="'W'"):
            NpzDeserializer(np.load(raw_npz(W=other)))("W", 1)


def test_members_that_are_no_arrays():
    for data in (b"", b"hello", npy(np.ones(3))[:-1], npy(np.ones(3)) + b"x"):
        with pytest.raises(ValueError, match="'W'"):
            NpzDeserializer(np.load(raw_npz(W=data)))("W", None)


def test_damaged_member_is_noticed():
    data = bytearray(written(Link(W=(64,)), compression=False).getvalue())
    position = data.rindex(b"PK\x01\x02") - 1
    data[position] ^= 1
    link = Link(W=(64,))
    link.W.array[...] = 3
    with pytest.raises(zipfile.BadZipFile):
        load_npz(io.BytesIO(bytes(data)), link)
    np.testing.assert_array_equal(link.W.array, np.full(64, 3, np.float32))


def test_members_are_read_only_when_asked_for():
    good = npy(np.arange(3.0))
    deserializer = NpzDeserializer(np.load(raw_npz(good=good, bad=b"no array")))
    np.testing.assert_array_equal(deserializer("good", None), [0, 1, 2])


# Values


def test_none_asks_for_the_stored_array():
    deserializer = NpzDeserializer(np.load(written({"x": np.arange(3)})))
    stored = deserializer("x", None)
    assert stored.dtype == np.int64
    np.testing.assert_array_equal(stored, [0, 1, 2])


def test_array_is_written_in_place():
    deserializer = NpzDeserializer(np.load(written({"x": np.array([1.0, 2.0])})))
    value = np.zeros(2, np.float32)
    assert deserializer("x", value) is value
    np.testing.assert_array_equal(value, [1, 2])
    # Any layout.
    value = np.zeros(4)[::2]
    assert deserializer("x", value) is value
    np.testing.assert_array_equal(value, [1, 2])


def test_array_of_another_shape_or_kind_is_refused():
    deserializer = NpzDeserializer(np.load(written({"l1/x": np.ones(3)})))["l1"]
    for shape in ((), (1,), (2, 3)):
        value = np.zeros(shape)
        with pytest.raises(ValueError, match=r"'l1/x' has shape \(3,\).*shape \("):
            deserializer("x", value)
        assert not value.any()
    with pytest.raises(TypeError, match="'l1/x' has dtype float64"):
        deserializer("x", np.zeros(3, int))


@pytest.mark.parametrize(
    ("stored", "value", "expected"),
    [
        (3, 0, 3),
        (np.int16(3), 0, 3),
        (np.uint64(2**64 - 1), 0, 2**64 - 1),
        (True, 0, 1),
        (True, False, True),
        (3, 0.0, 3.0),
        (np.float32(0.5), 0.0, 0.5),
        (2.5, 0j, 2.5 + 0j),
        (np.int8(3), np.int32(0), np.int32(3)),
        (np.float16(0.5), np.float32(0), np.float32(0.5)),
        ("abc", "", "abc"),
        (b"ab", b"", b"ab"),
    ],
)
def test_scalars(stored, value, expected):
    result = NpzDeserializer(np.load(written({"x": stored})))("x", value)
    assert type(result) is type(expected)
    assert result == expected


@pytest.mark.parametrize(
    ("stored", "value"),
    [
        (0.5, 0),
        (1j, 0.0),
        (3, False),
        (np.float64(1), np.float32(0)),
        (np.int64(1), np.int32(0)),
        ("3", 0),
        ("3", 0.5),
        (3, ""),
        (b"a", ""),
        (3, [3]),
        (3, (3,)),
    ],
)
def test_unsafe_scalars_are_refused(stored, value):
    with pytest.raises(TypeError, match="'x' has dtype"):
        NpzDeserializer(np.load(written({"x": stored})))("x", value)


def test_array_where_a_scalar_belongs_is_refused():
    with pytest.raises(ValueError, match=r"'x' has shape \(1,\).*int"):
        NpzDeserializer(np.load(written({"x": np.ones(1, int)})))("x", 3)


def test_missing_key_is_named_with_the_file(tmp_path):
    path = tmp_path / "model.npz"
    save_npz(path, Chain(l1=Link(W=2)))
    with pytest.raises(KeyError, match=r"no key 'l1/b' in .*model\.npz"):
        load_npz(path, Chain(l1=Link(W=2, b=2)))


def test_not_strict_keeps_what_is_missing():
    target = Chain(l1=Link(W=2, b=2), l2=Link(lazy=None))
    target.add_persistent("mean", np.full(2, 4.0))
    target.add_persistent("count", 5)
    target.l1.b.array[...] = 3
    loaded(written({"l1/W": np.ones(2)}), target, strict=False)
    np.testing.assert_array_equal(target.l1.W.array, [1, 1])
    np.testing.assert_array_equal(target.l1.b.array, [3, 3])
    np.testing.assert_array_equal(target.mean, [4, 4])
    assert target.count == 5
    assert target.l2.lazy.array is None
    deserializer = NpzDeserializer(np.load(written({})), strict=False)
    for value in (None, 3, np.ones(1)):
        assert deserializer["a"]("x", value) is value


@pytest.mark.parametrize(
    "ignore_names",
    [
        "l1/W",
        ["l1/W"],
        ("other", "l1/W"),
        lambda key: key == "l1/W",
        [lambda key: key.endswith("W")],
        ["other", lambda key: key == "l1/W"],
    ],
)
def test_ignored_keys_are_kept(ignore_names):
    source, target = Chain(l1=Link(W=2, b=2)), Chain(l1=Link(W=2, b=2))
    for link, value in ((source, 1), (target, 0)):
        for param in link.params():
            param.array[...] = value
    loaded(written(source), target, ignore_names=ignore_names)
    np.testing.assert_array_equal(target.l1.W.array, [0, 0])
    np.testing.assert_array_equal(target.l1.b.array, [1, 1])


def test_ignored_keys_are_full_keys_and_may_be_missing():
    file = written({"l1/W": np.ones(2)})
    target = loaded(file, Chain(l1=Link(W=2)), ignore_names=["W", "l1", "/l1/W"])
    np.testing.assert_array_equal(target.l1.W.array, [1, 1])
    loaded(file, Chain(l1=Link(W=2, b=2)), ignore_names="l1/b")


@pytest.mark.parametrize("ignore_names", [3, [3], ["a", None], {"a"}])
def test_impossible_ignore_names(ignore_names):
    with pytest.raises(ValueError, match="ignore_names"):
        loaded(written(Link(W=2)), Link(W=2), ignore_names=ignore_names)


def test_deserializer_takes_a_mapping():
    deserializer = NpzDeserializer({"a/x": np.ones(2), "n": np.asarray(None), "o": [None, {}]})
    np.testing.assert_array_equal(deserializer["/a/"]("/x", None), [1, 1])
    assert deserializer("n", 3) is None
    with pytest.raises(ValueError, match="'o' in the dict"):
        deserializer("o", None)
    with pytest.raises(KeyError, match="'x' in the dict"):
        deserializer("x", None)


def test_children_keep_the_settings():
    child = NpzDeserializer({}, "p/", False, ["p/a/x"])["a"]
    assert (child.path, child.strict, child.ignore_names) == ("p/a/", False, ["p/a/x"])


def test_keys_that_end_like_members():
    with np.load(written({"W.npy": np.ones(1), "W": np.zeros(1)})) as npz:
        deserializer = NpzDeserializer(npz)
        np.testing.assert_array_equal(deserializer("W.npy", None), [1])
        np.testing.assert_array_equal(deserializer("W", None), [0])


def test_numpy_written_file_loads():
    file = io.BytesIO()
    np.savez(file, **{"W": np.ones(2, np.float64)})
    np.testing.assert_array_equal(loaded(file, Link(W=2)).W.array, [1, 1])


# Nothing changes if anything is wrong


@pytest.mark.parametrize(
    ("key", "bad", "error"),
    [
        ("l2/0/W", np.ones(4), ValueError),
        ("l2/0/W", np.ones((1, 3)), ValueError),
        ("l2/0/W", np.ones(3, complex), TypeError),
        ("l2/0/W", np.array(["a", "b", "c"]), TypeError),
        ("l2/1/lazy", np.ones(3, complex), TypeError),
        ("l1/mean", np.ones(1), ValueError),
        ("l1/mean", np.ones(2, complex), TypeError),
        ("text", np.asarray(3), TypeError),
        ("count", np.asarray(0.5), TypeError),
        ("count", np.ones(2, int), ValueError),
        ("count", None, KeyError),
        ("l2/1/lazy", None, KeyError),
    ],
)
def test_bad_value_anywhere_changes_nothing(key, bad, error):
    with np.load(written(trained()), allow_pickle=True) as npz:
        values = dict(npz)
    if bad is None:
        del values[key]
    else:
        values[key] = bad
    target = model()
    before = state(target)
    with pytest.raises(error, match=key):
        loaded(written(values), target)
    assert state(target) == before


def test_arrays_are_filled_in_place():
    target = model()
    arrays = [param.array for param in target.params(False)] + [target.l1.mean]
    loaded(written(trained()), target)
    now = [param.array for param in target.params(False)] + [target.l1.mean]
    assert all(old is new for old, new in zip(arrays, now, strict=True))


@pytest.mark.parametrize("key", ["l2/0/W", "l1/mean"])
def test_read_only_array_is_refused_before_anything_changes(key):
    target = model()
    array = target.l1.mean if key == "l1/mean" else target.l2[0].W.array
    array.flags.writeable = False
    before = state(target)
    with pytest.raises(ValueError, match=f"'{key}'.*read-only"):
        loaded(written(trained()), target)
    assert state(target) == before


def test_children_with_their_own_serialize_come_last():
    seen = []

    class Special(Link):
        def serialize(self, serializer):
            super().serialize(serializer)
            seen.append(float(self.W.array[0]))

    file = written(Chain(a=Link(W=2), b=Link(W=2)))
    with np.load(file) as npz:
        values = {key: np.ones(2) for key in npz.files}
    loaded(written(values), Chain(a=Special(W=2), b=Link(W=2)))
    assert seen == [1.0]
    values["b/W"] = np.ones(3)
    with pytest.raises(ValueError, match="'b/W'"):
        loaded(written(values), Chain(a=Special(W=2), b=Link(W=2)))
    assert seen == [1.0]


def test_persistent_none_and_stored_none():
    source, target = Link(), Link()
    for link, a, b in ((source, np.ones(2), None), (target, None, np.zeros(2))):
        link.add_persistent("a", a)
        link.add_persistent("b", b)
    loaded(written(source), target)
    np.testing.assert_array_equal(target.a, [1, 1])
    assert target.b is None


def test_truncated_archive(tmp_path):
    data = written(trained()).getvalue()
    target = model()
    before = state(target)
    for length in (0, 10, len(data) // 2, len(data) - 30):
        with pytest.raises((zipfile.BadZipFile, EOFError, ValueError, OSError, struct.error)):
            load_npz(io.BytesIO(data[:length]), target)
        assert state(target) == before


def test_paths_may_be_path_like(tmp_path):
    class Name:
        def __fspath__(self):
            return str(tmp_path / "x")

    save_npz(Name(), Link(W=1))
    assert pathlib.Path(tmp_path, "x").exists()


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f8"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_every_value_survives(dtype, shape, order):
    values = np.resize(np.array([1.5, -0.0, np.nan, np.inf, 6e-8, -2.0]), shape)
    source = Link()
    with source.init_scope():
        source.W = Parameter(np.array(values, dtype, order=order))
    target = Link()
    with target.init_scope():
        target.W = Parameter(np.zeros(shape, dtype, order=order))
    loaded(written(source), target)
    assert target.W.array.tobytes() == source.W.array.tobytes()
    assert target.W.array.dtype == np.dtype(dtype)


class TestBfloat16:
    """NumPy saves it as raw bytes, which are bfloat16 again only where that is waited for."""

    def test_comes_back(self) -> None:
        bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
        values = np.array([[1.0, -2.5, 3e38], [0.0, np.inf, 1e-40]]).astype(bfloat16)
        buffer = io.BytesIO()
        save_npz(buffer, {"W": values})
        other = Link()
        with other.init_scope():
            other.W = Parameter(np.zeros((2, 3), bfloat16))
        buffer.seek(0)
        load_npz(buffer, other)
        assert other.W.array.tobytes() == values.tobytes()

    @pytest.mark.parametrize("dtype", ["f2", "f4", "i2"])
    def test_is_nothing_else(self, dtype: str) -> None:
        bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
        buffer = io.BytesIO()
        save_npz(buffer, {"W": np.ones(3, bfloat16)})
        other = Link()
        with other.init_scope():
            other.W = Parameter(np.full(3, 7, dtype))
        buffer.seek(0)
        with pytest.raises(TypeError, match="'W' has dtype"):
            load_npz(buffer, other)
        assert np.all(other.W.array == 7)
