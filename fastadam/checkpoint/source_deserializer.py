"""What objects read a file by that is being loaded."""

from __future__ import annotations

from typing import Any

from fastadam.checkpoint.source import Source
from fastadam.files.entries import is_none
from fastadam.serializers._templates import fill_template
from fastadam.serializers.npz import NpzDeserializer
from fastadam.serializers.protocol import Deserializer

__all__ = ["SourceDeserializer"]


class SourceDeserializer(Deserializer):
    """What objects read a source by.

    Parameters
    ----------
    source : Source
        The file.
    path : str
        What every key begins with.
    strict : bool
        Whether a missing key is an error.
    """

    def __init__(self, source: Source, path: str, strict: bool) -> None:
        self.source, self.path, self.strict = source, path, strict

    def __getitem__(self, key: str) -> SourceDeserializer:
        """Return the deserializer of a child."""
        return SourceDeserializer(self.source, f"{self.path}{key.strip('/')}/", self.strict)

    def read_ahead(self) -> Deserializer:
        """Return a deserializer of the same, for which all has been read and compared already.

        What has a `serialize` method of its own reads and writes in one, and can only be called
        when everything else has been checked.
        """
        stored = self.source.values_under(self.path)
        return NpzDeserializer(stored, self.path, self.strict, self.source.is_ignored)

    def __call__(self, key: str, value: Any) -> Any:
        """Load one value.

        Raises
        ------
        KeyError
            If it is missing, and `strict` is true.
        CheckpointError
            If it is damaged.
        ValueError, TypeError
            If it does not fit.
        """
        key = self.path + key.lstrip("/")
        if self.source.is_ignored(key):
            return value
        if key not in self.source:
            self.source.note_missing(key)
            if self.strict:
                raise KeyError(self.source.about_missing(key))
            return value
        stored = self.source.value(key)
        return fill_template(None if is_none(stored) else stored, value, key)
