"""What objects read a file by that is being loaded."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

from fastadam.checkpoint.source import Source
from fastadam.files.entries import is_none
from fastadam.kernels.backend import is_array
from fastadam.serializers._reading import FileDeserializer
from fastadam.serializers.npz import NpzDeserializer
from fastadam.serializers.protocol import Deserializer

__all__ = ["ReadAhead", "Rehearsal", "SourceDeserializer"]


class Rehearsal(NpzDeserializer):
    """Goes through a `serialize` method, and returns what it is given: only the keys are compared.

    What does not fit an array or a number is refused, as is a missing key if `strict` is true.
    """

    def _fill(self, stored: Any, value: Any, key: str) -> Any:
        # into a copy, which is dropped
        super()._fill(stored, value.copy() if is_array(value) else value, key)
        return value

    def _missing(self, key: str, hint: str) -> Exception:
        return KeyError(f"there is no {key!r} in the file")


class ReadAhead(NpzDeserializer):
    """What objects read by whose `serialize` reads and writes in one: all is there already.

    Attributes
    ----------
    complete, stateless
        As for `SourceDeserializer`.
    """

    # they have been read from a file
    gives_new_arrays = True
    complete = False
    stateless: Set[str] | None = None


class SourceDeserializer(FileDeserializer):
    """What objects read a source by.

    Parameters
    ----------
    source : Source
        The file.
    path : str
        What every key begins with.
    strict : bool
        Whether a missing key is an error.
    complete : bool
        Whether the file holds everything that was there, hyperparameters with it: then a state
        that it does not hold was not there.
    stateless : set of str, optional
        What the keys of rules begin with that were counted and had no state, where the file says
        that of all rules.
    """

    # arrays of a file belong to no other object
    gives_new_arrays = True

    def __init__(
        self,
        source: Source,
        path: str,
        strict: bool,
        complete: bool = False,
        stateless: Set[str] | None = None,
    ) -> None:
        super().__init__(source, path, strict, None)
        self.complete = complete
        self.stateless = stateless

    def has(self, key: str) -> bool:
        """Tell whether the file has a key, or something that it is made of."""
        return self.path + key in self._reader

    def read_ahead(self) -> Deserializer:
        """Return a deserializer of the same, for which all has been read and compared already.

        What has a `serialize` method of its own reads and writes in one, and can only be called
        when everything else has been checked.
        """
        stored = self._reader.values_under(self.path)
        ahead = ReadAhead(stored, self.path, self.strict, self._reader.is_ignored)
        ahead.complete, ahead.stateless = self.complete, self.stateless
        return ahead

    def _load(self, key: str, value: Any, like: Any) -> Any:
        key = self.path + key.lstrip("/")
        if not self._reader.demand(key, self.strict):
            return value
        stored = self._reader.value(key)
        return self._fill(None if is_none(stored) else stored, value, key)
