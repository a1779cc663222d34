from __future__ import annotations

import io
import pickle
import zipfile

import numpy as np
import pytest
from npz_parts import archive, npy
from saved_links import model, state, trained

from fastadam.link import Chain, Link
from fastadam.model.parameter import Parameter
from fastadam.serializers import NpzDeserializer, load_npz, save_npz


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
def test_compression(compression):
    with zipfile.ZipFile(written(trained(), compression=compression)) as archive:
        found = {info.compress_type for info in archive.infolist()}
    assert found == {zipfile.ZIP_DEFLATED if compression else zipfile.ZIP_STORED}


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
        assert npz["text"] == "grüße"
        assert npz["l2/1/lazy"].dtype == object
        assert npz["l2/1/lazy"][()] is None


def test_names_of_numpys_arguments_are_names():
    file = written({"file": 1, "allow_pickle": 2, "args": 3})
    with np.load(file) as npz:
        assert {key: int(npz[key]) for key in npz.files} == {
            "file": 1,
            "allow_pickle": 2,
            "args": 3,
        }


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


def of_member(data):
    """An archive with one member, W."""
    return io.BytesIO(archive({"W.npy": data}))


def test_object_arrays_are_refused_and_not_unpickled(case):
    for template in [None, 3, np.zeros(1)]:
        for allow_pickle in [True, False]:
            for value in [Evil(), 1, "x", [None], np.array([None, None], dtype=object)]:
                with case(template=template, allow_pickle=allow_pickle, value=value):
                    array = np.empty((), object)
                    array[()] = value
                    file = of_member(npy(value if isinstance(value, np.ndarray) else array))
                    deserializer = NpzDeserializer(np.load(file, allow_pickle=allow_pickle))
                    with pytest.raises(ValueError, match="'W' in the npz file cannot be loaded"):
                        deserializer("W", template)
                    assert not Evil.ran


def test_a_pickle_that_says_none_but_more_is_refused():
    data = npy(None)
    assert NpzDeserializer(np.load(of_member(data)))("W", 1) is None
    one_element = data.replace(b"'shape': (), }  ", b"'shape': (1,), }")
    assert len(one_element) == len(data)
    for other in (data + b"N.", data[:-1], one_element):
        with pytest.raises(ValueError, match="'W'"):
            NpzDeserializer(np.load(of_member(other)))("W", 1)


def test_members_that_are_no_arrays():
    for data in (b"", b"hello", npy(np.ones(3))[:-1], npy(np.ones(3)) + b"x"):
        with pytest.raises(ValueError, match="'W'"):
            NpzDeserializer(np.load(of_member(data)))("W", None)


def test_members_are_read_only_when_asked_for():
    good = npy(np.arange(3.0))
    deserializer = NpzDeserializer(
        np.load(io.BytesIO(archive({"good.npy": good, "bad.npy": b"no array"})))
    )
    np.testing.assert_array_equal(deserializer("good", None), [0, 1, 2])


# Values


def test_bytes_are_no_text():
    with pytest.raises(TypeError, match="'x' has dtype"):
        NpzDeserializer(np.load(written({"x": b"a"})))("x", "")


def test_none_asks_for_the_stored_array():
    deserializer = NpzDeserializer(np.load(written({"x": np.arange(3)})))
    stored = deserializer("x", None)
    assert stored.dtype == np.int64
    np.testing.assert_array_equal(stored, [0, 1, 2])


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
