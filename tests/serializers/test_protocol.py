from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastadam.serializers import (
    AbstractSerializer,
    Deserializer,
    DictionarySerializer,
    NpzDeserializer,
    Serializer,
    is_deserializer,
)
from fastadam.serializers.protocol import check_stored_array, entry_name


class Recorder:
    def serialize(self, serializer):
        self.given = serializer


def test_save_and_load_call_serialize():
    for serializer, call in ((Serializer(), Serializer.save), (Deserializer(), Deserializer.load)):
        obj = Recorder()
        call(serializer, obj)
        assert obj.given is serializer


def test_base_class_does_nothing():
    with pytest.raises(NotImplementedError, match="Serializer"):
        Serializer()("key", 1)
    with pytest.raises(NotImplementedError, match="AbstractSerializer"):
        AbstractSerializer()["key"]


def test_is_deserializer():
    class ForeignReader:
        def load(self, obj):
            pass

    class ForeignWriter:
        def save(self, obj):
            pass

    class Both(ForeignReader, ForeignWriter):
        pass

    class NotCallable:
        load = 3

    assert is_deserializer(NpzDeserializer({}))
    assert is_deserializer(Deserializer())
    assert is_deserializer(ForeignReader())
    for other in (DictionarySerializer(), Serializer(), ForeignWriter(), Both(), NotCallable(), {}):
        assert not is_deserializer(other)


def test_entry_name():
    assert entry_name(NpzDeserializer({}, "l1/"), "/W") == "l1/W"
    assert entry_name(object(), "W") == "W"


@pytest.mark.parametrize(
    ("stored", "wanted"),
    [
        ("f8", "f4"),
        ("f4", "f8"),
        ("i8", "f4"),
        ("?", "f4"),
        ("f2", "f2"),
        ("i8", "i4"),
        (">f8", "f8"),
    ],
)
def test_check_allows_casts_within_a_kind(stored, wanted):
    array = np.ones((2, 3), stored)
    assert check_stored_array(array, (2, 3), wanted, "W") is array
    assert check_stored_array(array, None, wanted, "W") is array


@pytest.mark.parametrize(
    ("stored", "wanted"), [("f4", "i4"), ("c8", "f4"), ("U3", "f4"), ("f4", "?")]
)
def test_check_refuses_other_casts(stored, wanted):
    with pytest.raises(TypeError, match="'l1/W' has dtype"):
        check_stored_array(np.ones(2, stored), (2,), wanted, "l1/W")


@pytest.mark.parametrize("shape", [(), (3,), (1, 3), (3, 2), (2, 3, 1)])
def test_check_broadcasts_nothing(shape):
    with pytest.raises(ValueError, match=r"'W' has shape .*, but shape \(2, 3\)"):
        check_stored_array(np.ones(shape), (2, 3), "f8", "W")


@pytest.mark.parametrize(
    ("stored", "dtype"),
    [
        (np.array([300]), "int8"),
        (np.array([-129]), "int8"),
        (np.array([2**40]), "int32"),
        (np.array([2**63], np.uint64), "int64"),
        (np.array([1, 70000], np.uint32), "uint16"),
        (np.array(2**62), "float16"),
        (np.array([1e300]), "float32"),
        (np.array([1e300j]), "complex64"),
    ],
)
def test_numbers_beyond_the_range_are_refused(stored: Any, dtype: str) -> None:
    with pytest.raises(ValueError, match=rf"'a/b' has values .* beyond the range of {dtype}"):
        check_stored_array(stored, stored.shape, dtype, "a/b")


@pytest.mark.parametrize(
    ("stored", "dtype"),
    [
        (np.array([127, -128]), "int8"),
        (np.array([], np.int64), "int8"),
        (np.array([2**63 - 1], np.uint64), "int64"),
        (np.array([65504, -65504]), "float16"),
        (np.array([np.inf, np.nan]), "float16"),
        (np.array([True]), "int8"),
        (np.array([255], np.uint8), "int16"),
    ],
)
def test_numbers_within_the_range_are_taken(stored: Any, dtype: str) -> None:
    assert check_stored_array(stored, stored.shape, dtype, "a/b") is stored
