"""What objects read a file by that is being loaded."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

from fastadam.checkpoint.source import Source
from fastadam.files.entries import is_none
from fastadam.serializers._templates import IgnoreNames, fill_template
from fastadam.serializers.npz import NpzDeserializer
from fastadam.serializers.protocol import Deserializer

__all__ = ["ReadAhead", "SourceDeserializer"]


class ReadAhead(NpzDeserializer):
    """What objects read by whose `serialize` reads and writes in one: all is there already.

    Parameters
    ----------
    npz : mapping of str to numpy.ndarray
        What has been read.
    path : str
        What every key begins with.
    strict : bool
        Whether a missing key is an error.
    ignore_names : callable, optional
        Tells whether a key stays as it is.
    complete : bool
        Whether the file holds everything that was there, hyperparameters with it.
    stateless : set of str, optional
        As for `SourceDeserializer`.
    """

    # they have been read from a file
    gives_new_arrays = True

    def __init__(
        self,
        npz: Any,
        path: str,
        strict: bool,
        ignore_names: IgnoreNames = None,
        complete: bool = False,
        stateless: Set[str] | None = None,
    ) -> None:
        super().__init__(npz, path, strict, ignore_names)
        self.complete = complete
        self.stateless = stateless


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
        self.source, self.path, self.strict, self.complete = source, path, strict, complete
        self.stateless = stateless

    def __getitem__(self, key: str) -> SourceDeserializer:
        """Return the deserializer of a child."""
        path = f"{self.path}{key.strip('/')}/"
        return SourceDeserializer(self.source, path, self.strict, self.complete, self.stateless)

    def has(self, key: str) -> bool:
        """Tell whether the file has a key, or something that it is made of."""
        return self.path + key in self.source

    def read_ahead(self) -> Deserializer:
        """Return a deserializer of the same, for which all has been read and compared already.

        What has a `serialize` method of its own reads and writes in one, and can only be called
        when everything else has been checked.
        """
        stored = self.source.values_under(self.path)
        ignored = self.source.is_ignored
        return ReadAhead(stored, self.path, self.strict, ignored, self.complete, self.stateless)

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
        if not self.source.demand(key, self.strict):
            return value
        stored = self.source.value(key)
        return fill_template(None if is_none(stored) else stored, value, key)
