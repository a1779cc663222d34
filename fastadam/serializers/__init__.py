"""Saving and loading: the protocol, dictionaries and npz files."""

from __future__ import annotations

from fastadam.serializers.dictionary import DictionarySerializer, serialize
from fastadam.serializers.npz import NpzDeserializer, load_npz, save_npz
from fastadam.serializers.protocol import (
    AbstractSerializer,
    Deserializer,
    Serializer,
    is_deserializer,
)

__all__ = [
    "AbstractSerializer",
    "Deserializer",
    "DictionarySerializer",
    "NpzDeserializer",
    "Serializer",
    "is_deserializer",
    "load_npz",
    "save_npz",
    "serialize",
]
