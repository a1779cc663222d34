"""Saving and loading: the protocol, dictionaries, npz and HDF5 files."""

from __future__ import annotations

from fastadam.serializers.dictionary import DictionarySerializer, serialize
from fastadam.serializers.hdf5 import HDF5Deserializer, HDF5Serializer, load_hdf5, save_hdf5
from fastadam.serializers.npz import NpzDeserializer, load_npz, save_npz
from fastadam.serializers.prepared import PreparedLoad
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
    "HDF5Deserializer",
    "HDF5Serializer",
    "NpzDeserializer",
    "PreparedLoad",
    "Serializer",
    "is_deserializer",
    "load_hdf5",
    "load_npz",
    "save_hdf5",
    "save_npz",
    "serialize",
]
