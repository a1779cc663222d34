"""What npz and HDF5 files have in common: values, keys, and a load that is refused."""

from __future__ import annotations

import io
import itertools
import os

import numpy as np
import pytest
from saved_links import model, state, trained

from fastadam.link import Chain, Link
from fastadam.model.parameter import Parameter
from fastadam.serializers import (
    HDF5Deserializer,
    NpzDeserializer,
    load_hdf5,
    load_npz,
    save_hdf5,
    save_npz,
)


class Format:
    """What both formats have, under one name."""

    def __init__(self, name):
        hdf5 = name == "hdf5"
        self.name = name
        self.save, self.load = (save_hdf5, load_hdf5) if hdf5 else (save_npz, load_npz)
        self.missing_group = ValueError if hdf5 else KeyError

    def written(self, obj):
        file = io.BytesIO()
        self.save(file, obj)
        file.seek(0)
        return file

    def deserializer(self, values, *arguments, **options):
        file = self.written(values)
        if self.name == "hdf5":
            import h5py

            return HDF5Deserializer(h5py.File(file, "r"), *arguments, **options)
        return NpzDeserializer(np.load(file), "", *arguments, **options)


@pytest.fixture(params=["hdf5", "npz"])
def format(request):
    if request.param == "hdf5":
        pytest.importorskip("h5py", reason="h5py is not installed")
    return Format(request.param)


@pytest.mark.parametrize("kind", ["str", "path", "file object"])
def test_round_trip(tmp_path, kind, format):
    path = tmp_path / "model"
    other = model()
    if kind == "file object":
        with path.open("wb") as file:
            format.save(file, trained())
        with path.open("rb") as file:
            format.load(file, other)
    else:
        name = str(path) if kind == "str" else path
        format.save(name, trained())
        format.load(name, other)
    assert state(other) == state(trained())
    # The name is used as given, and nothing else is left.
    assert os.listdir(tmp_path) == ["model"]


def test_dictionary_is_written_as_it_is(format):
    deserializer = format.deserializer({"a/b": [1, 2], "c": np.float32(3), "n": None})
    np.testing.assert_array_equal(deserializer("a/b", None), [1, 2])
    assert deserializer("c", None).dtype == np.float32
    assert deserializer("n", 3) is None


def test_failing_serialize_leaves_the_old_file(tmp_path, format):
    class Failing(Link):
        def serialize(self, serializer):
            super().serialize(serializer)
            raise ZeroDivisionError

    path = tmp_path / "model"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError):
        format.save(path, Failing(W=2))
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["model"]


def test_load_from_a_path_in_the_file(format):
    file = format.written({"updater/model:main/W": np.ones(2, np.float32)})
    link = Link(W=2)
    format.load(file, link, path="updater/model:main/")
    np.testing.assert_array_equal(link.W.array, [1, 1])
    file.seek(0)
    with pytest.raises(KeyError, match="end the path with a slash"):
        format.load(file, Link(W=2), path="updater/model:main")


def test_missing_keys_and_groups_are_named_with_the_file(tmp_path, format):
    path = tmp_path / "model"
    format.save(path, Chain(l1=Link(W=2)))
    with pytest.raises(KeyError, match=r"no key 'l1/b' in .*model"):
        format.load(path, Chain(l1=Link(W=2, b=2)))
    with pytest.raises(format.missing_group, match=r"'l2/W'"):
        format.load(path, Chain(l1=Link(W=2), l2=Link(W=2)))


def test_not_strict_keeps_what_is_missing(format):
    target = Chain(l1=Link(W=2, b=2), l2=Link(lazy=None))
    target.add_persistent("mean", np.full(2, 4.0))
    target.add_persistent("count", 5)
    target.l1.b.array[...] = 3
    format.load(format.written({"l1/W": np.ones(2)}), target, strict=False)
    np.testing.assert_array_equal(target.l1.W.array, [1, 1])
    np.testing.assert_array_equal(target.l1.b.array, [3, 3])
    np.testing.assert_array_equal(target.mean, [4, 4])
    assert target.count == 5
    assert target.l2.lazy.array is None
    deserializer = format.deserializer({"x": 1}, strict=False)
    for value in (None, 3, np.ones(1)):
        assert deserializer["a"]["b"]("x", value) is value
        assert deserializer("y", value) is value
        assert deserializer["x"]("y", value) is value


@pytest.mark.parametrize(
    "ignore_names",
    [
        "l1/W",
        ("other", "l1/W"),
        lambda key: key == "l1/W",
        ["other", lambda key: key.endswith("W")],
    ],
)
def test_ignored_keys_are_kept(ignore_names, format):
    source, target = Chain(l1=Link(W=2, b=2)), Chain(l1=Link(W=2, b=2))
    for link, value in ((source, 1), (target, 0)):
        for param in link.params():
            param.array[...] = value
    format.load(format.written(source), target, ignore_names=ignore_names)
    np.testing.assert_array_equal(target.l1.W.array, [0, 0])
    np.testing.assert_array_equal(target.l1.b.array, [1, 1])


def test_ignored_keys_are_full_keys_and_may_be_missing(format):
    file = format.written({"main/l1/W": np.ones(2)})
    target = Chain(l1=Link(W=2, b=2))
    names = ["W", "l1/W", "/main/l1/W", "main/l1/b"]
    format.load(file, target, path="main/", ignore_names=names)
    np.testing.assert_array_equal(target.l1.W.array, [1, 1])


@pytest.mark.parametrize("ignore_names", [3, [3], ["a", None], {"a"}])
def test_impossible_ignore_names(ignore_names, format):
    with pytest.raises(ValueError, match="ignore_names"):
        format.load(format.written(Link(W=2)), Link(W=2), ignore_names=ignore_names)


def laid_out(values, order):
    """A copy of values: in C or Fortran order, or strided."""
    if order == "strided" and values.shape:
        return np.repeat(values, 2, axis=0)[::2]
    return np.array(values, order="C" if order == "strided" else order)


def test_every_value_survives_in_a_link(format, case):
    numbers = np.array([1.5, -0.0, np.nan, np.inf, 6e-8, -2.0])
    for order, shape, dtype in itertools.product(
        ("C", "F", "strided"), ((), (0,), (3,), (2, 3)), ("f2", "f4", "f8", ">f8")
    ):
        with case(order=order, shape=shape, dtype=dtype):
            values = np.resize(numbers, shape).astype(dtype)
            source, target = Link(), Link()
            with source.init_scope(), target.init_scope():
                source.W = Parameter(laid_out(values, order))
                target.W = Parameter(laid_out(np.zeros(shape, dtype), order))
            array = target.W.array
            format.load(format.written(source), target)
            assert target.W.array is array
            assert array.tobytes() == values.tobytes()


@pytest.mark.parametrize(
    "value", ["abc", "", "grüße", "x" * 70000, np.str_("abc"), b"ab", b"", b"\xff\x00x"]
)
def test_strings_are_strings(value, format):
    stored = format.deserializer({"x": value, "y": np.array(value)})
    for key in ("x", "y"):
        loaded = stored(key, type(value)())
        assert type(loaded) is type(value)
        assert loaded == value
        assert stored(key, None)[()] == value


@pytest.mark.parametrize("shape", [(3,), (1, 3), (0,)])
def test_arrays_of_strings(shape, format):
    for dtype in ("U5", "S5"):
        values = np.resize(np.array(["a", "bcd", ""], dtype), shape)
        stored = format.deserializer({"x": values})("x", None)
        assert stored.dtype.kind == values.dtype.kind
        np.testing.assert_array_equal(stored, values)
    values = np.array([["ä", "日本語"]])
    np.testing.assert_array_equal(format.deserializer({"x": values})("x", None), values)


def test_array_is_written_in_place(format):
    deserializer = format.deserializer({"x": np.array([1.0, 2.0]), "n": None})
    for value in (np.zeros(2, np.float32), np.zeros(4)[::2]):
        assert deserializer("x", value) is value
        np.testing.assert_array_equal(value, [1, 2])
        assert deserializer("n", value) is None
        np.testing.assert_array_equal(value, [1, 2])


def test_array_of_another_shape_or_kind_is_refused(format):
    deserializer = format.deserializer({"l1/x": np.ones(3)})["l1"]
    for shape in ((), (1,), (2, 3)):
        value = np.zeros(shape)
        with pytest.raises(ValueError, match=r"'l1/x' has shape \(3,\).*shape \("):
            deserializer("x", value)
        assert not value.any()
    with pytest.raises(TypeError, match="'l1/x' has dtype float64"):
        deserializer("x", np.zeros(3, int))


def test_scalars(format, case):
    for stored, value, expected in [
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
    ]:
        with case(stored=stored, value=value, expected=expected):
            result = format.deserializer({"x": stored})("x", value)
            assert type(result) is type(expected)
            assert result == expected


def test_unsafe_scalars_are_refused(format, case):
    for stored, value in [
        (0.5, 0),
        (1j, 0.0),
        (3, False),
        (np.float64(1), np.float32(0)),
        (np.int64(1), np.int32(0)),
        ("3", 0),
        ("3", 0.5),
        (3, ""),
        ("a", b""),
        (3, [3]),
        (3, (3,)),
    ]:
        with case(stored=stored, value=value), pytest.raises(TypeError, match="'x' has dtype"):
            format.deserializer({"x": stored})("x", value)


def test_array_where_a_scalar_belongs_is_refused(format):
    with pytest.raises(ValueError, match=r"'x' has shape \(1,\).*int"):
        format.deserializer({"x": np.ones(1, int)})("x", 3)


def test_truncated_file(tmp_path, format):
    data = format.written(trained()).getvalue()
    target = model()
    before = state(target)
    for length in (0, 10, len(data) // 2, len(data) - 30):
        with pytest.raises(Exception):  # noqa: B017, PT011 - whatever the format says
            format.load(io.BytesIO(data[:length]), target)
        assert state(target) == before


def test_bad_value_anywhere_changes_nothing(format, case):
    for key, bad, error in [
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
    ]:
        with case(key=key, bad=bad, error=error):
            values = {
                "l1/W": np.ones((2, 3)),
                "l1/b": np.ones(2),
                "l1/mean": np.ones(2),
                "count": 1,
            }
            values |= {"l2/0/W": np.ones(3), "l2/1/lazy": np.ones(2), "l2/1/x": 1, "text": "text"}
            if bad is None:
                del values[key]
            else:
                values[key] = bad
            target = model()
            before = state(target)
            with pytest.raises(error, match=key):
                format.load(format.written(values), target)
            assert state(target) == before


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"x": np.array([None])}, TypeError, "'x'"),
        ({"x": {}}, TypeError, "'x'"),
        ({3: 1}, TypeError, "3"),
    ],
)
def test_what_cannot_be_written_leaves_the_old_file(tmp_path, values, error, message, format):
    path = tmp_path / "model"
    path.write_bytes(b"old")
    with pytest.raises(error, match=message):
        format.save(path, values)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["model"]


def test_paths_may_be_path_like(tmp_path, format):
    class Name:
        def __fspath__(self):
            return str(tmp_path / "x")

    link, other = Link(W=1), Link(W=1)
    link.W.array[...] = 4
    format.save(Name(), link)
    assert os.listdir(tmp_path) == ["x"]
    format.load(Name(), other)
    assert other.W.array[0] == 4
