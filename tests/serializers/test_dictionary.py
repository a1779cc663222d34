from __future__ import annotations

import numpy as np
import pytest

from fastadam.link import Chain, Link
from fastadam.serializers import DictionarySerializer, save_npz, serialize
from fastadam.serializers.dictionary import storable_array


def test_paths():
    serializer = DictionarySerializer()
    assert serializer.path == ""
    assert serializer["/x/"].path == "x/"
    assert serializer["x"]["y"].path == "x/y/"
    assert serializer["x"].target is serializer.target
    serializer["x"]("/y", 1)
    serializer("z", 2)
    assert list(serializer.target) == ["x/y", "z"]


def test_given_target_and_path_are_used():
    target = {}
    DictionarySerializer(target, "here/")("x", 1)
    assert list(target) == ["here/x"]


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (3, np.int64),
        (2.5, np.float64),
        (True, np.bool_),
        (np.float16(2), np.float16),
        ("abc", np.dtype("U3")),
        (b"ab", np.dtype("S2")),
    ],
)
def test_scalars_become_0_dim_arrays(value, dtype):
    serializer = DictionarySerializer()
    assert serializer("x", value) is value
    stored = serializer.target["x"]
    assert stored.shape == ()
    assert stored.dtype == dtype
    assert stored[()] == value


def test_none_becomes_a_0_dim_object_array():
    serializer = DictionarySerializer()
    assert serializer("x", None) is None
    stored = serializer.target["x"]
    assert stored.shape == ()
    assert stored.dtype == object
    assert stored[()] is None


def test_arrays_are_not_copied():
    array = np.ones(2)
    serializer = DictionarySerializer()
    assert serializer("x", array) is array
    assert serializer.target["x"] is array


@pytest.mark.parametrize("value", [[1], (1,), {}, object(), np.array([None]), np.array({})])
def test_what_would_be_pickled_is_refused(value):
    serializer = DictionarySerializer()["l1"]
    with pytest.raises(TypeError, match="'l1/x'"):
        serializer("x", value)
    assert serializer.target == {}


def test_masked_arrays_are_refused(tmp_path):
    masked = np.ma.masked_array([1.0, 2.0], mask=[0, 1])
    link = Link()
    link.add_persistent("seen", masked)
    for save in (
        lambda: storable_array("a", masked),
        lambda: DictionarySerializer()("a", masked),
        lambda: save_npz(tmp_path / "a.npz", {"a": masked}),
        lambda: save_npz(tmp_path / "a.npz", link),
    ):
        with pytest.raises(TypeError, match="is a masked array"):
            save()
    assert list(tmp_path.iterdir()) == []


def test_serialize_lists_a_link():
    model = Chain(l2=Link(W=None), l1=Link(W=2))
    model.l1.add_persistent("count", 3)
    values = serialize(model)
    assert list(values) == ["l1/W", "l1/count", "l2/W"]
    assert values["l1/W"] is model.l1.W.array
    assert values["l1/count"] == 3
    assert values["l2/W"][()] is None
