"""A deserializer that changes nothing, to find out what a `serialize` method asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fastadam.files.entries import Value, is_none
from fastadam.kernels.backend import is_array
from fastadam.serializers._templates import fill_template
from fastadam.serializers.protocol import Deserializer

__all__ = ["Rehearsal"]


class Rehearsal(Deserializer):
    """Goes through a `serialize` method, and returns what it is given: only the keys are compared.

    Parameters
    ----------
    stored : mapping of str to numpy.ndarray
        What the file holds.
    path : str
        What every key begins with.
    strict : bool
        Whether a missing key is an error.
    is_ignored : callable
        Tells whether a key stays as it is.
    """

    def __init__(
        self,
        stored: Mapping[str, Value],
        path: str,
        strict: bool,
        is_ignored: Callable[[str], bool],
    ) -> None:
        self._stored, self.path, self._strict = stored, path, strict
        self._is_ignored = is_ignored

    def __getitem__(self, key: str) -> Rehearsal:
        """Return the deserializer of a child."""
        path = f"{self.path}{key.strip('/')}/"
        return Rehearsal(self._stored, path, self._strict, self._is_ignored)

    def __call__(self, key: str, value: Any) -> Any:
        """Compare one key.

        Raises
        ------
        KeyError
            If it is missing, and `strict` is true.
        ValueError, TypeError
            If what is stored does not fit an array or a number.
        """
        key = self.path + key.lstrip("/")
        if self._is_ignored(key):
            return value
        if key not in self._stored:
            if self._strict:
                raise KeyError(f"there is no {key!r} in the file")
            return value
        stored = self._stored[key]
        if value is not None and not is_none(stored):
            # into a copy, which is dropped
            fill_template(stored, value.copy() if is_array(value) else value, key)
        return value
