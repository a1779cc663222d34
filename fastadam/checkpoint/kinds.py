"""The kinds of optimizers that are saved and loaded: what each of them does in its own way."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping
from functools import singledispatch
from typing import Any

from fastadam.checkpoint.contents import TARGET
from fastadam.checkpoint.source import Source
from fastadam.files.entries import is_none
from fastadam.kernels.dtypes import type_name
from fastadam.serializers.prepared import PreparedLoad

__all__ = ["Checkpointed", "checkpointed", "is_checkpointed"]


class Checkpointed(ABC):
    """An optimizer of one kind, as it is saved and loaded.

    Attributes
    ----------
    aliases : collection of str
        Further names of parameters, whose states a file may hold once more.
    """

    aliases: Collection[str] = ()

    @abstractmethod
    def contents(self, parameters: bool) -> dict[str, Any]:
        """Return what is saved, by key, with the values of parameters or not; not copied.

        Parameters
        ----------
        parameters : bool
            Whether the values of parameters are saved, too.
        """

    @abstractmethod
    def values(self) -> dict[str, Any]:
        """Return what there is to load the values of parameters into, by key."""

    @abstractmethod
    def prepare(
        self, source: Source, values: Mapping[str, Any], hyperparam: bool, strict: bool
    ) -> tuple[PreparedLoad, tuple[str, ...], tuple[str, ...]]:
        """Read and check everything that is loaded.

        Parameters
        ----------
        source : Source
            The file.
        values : mapping of str to object
            What `values` has returned; empty if these are not loaded.
        hyperparam, strict : bool
            As for `fastadam.load`.

        Returns
        -------
        tuple
            What is going to change; the names of hooks that it was saved with and that are not
            here; and of those that are here, and it was saved without.

        Raises
        ------
        CheckpointError, KeyError, ValueError, TypeError
            If the file does not fit.
        """

    def versions(self) -> dict[str, str]:
        """Return with which versions of other libraries it is saved."""
        return {}

    def names(self) -> Iterable[str]:
        """Return what `rename` may call something here, beside the keys of `values`."""
        return ()

    def uninitialised(self) -> Iterable[str]:
        """Return what has no shape yet, and no place for values of a file."""
        return ()

    def room(self, values: Mapping[str, Any]) -> dict[str, int | None]:
        """Return how many bytes each array may take, by name; None where it is not known.

        Parameters
        ----------
        values : mapping of str to object
            What `values` has returned.
        """
        return {
            key.removeprefix(TARGET): None if is_none(value) else int(value.nbytes)
            for key, value in values.items()
        }

    def wide(self) -> Collection[str]:
        """Return the names of parameters into which a float32 master may be loaded."""
        return ()


@singledispatch
def checkpointed(optimizer: Any) -> Checkpointed:
    """Return an optimizer as it is saved and loaded; a kind of optimizers registers its own way.

    Parameters
    ----------
    optimizer : object
        The optimizer.

    Raises
    ------
    TypeError
        If it is none of this library's.
    """
    raise TypeError(
        f"an optimizer of fastadam's is wanted, and not {type_name(optimizer)}: its parameters are "
        "saved and loaded with it. For a link alone there are save_npz and load_npz of "
        "fastadam.serializers; a dict of arrays is saved by save_npz, and read by numpy.load"
    )


def is_checkpointed(obj: object) -> bool:
    """Tell whether something is an optimizer that is saved and loaded."""
    return checkpointed.dispatch(type(obj)) is not checkpointed.dispatch(object)
