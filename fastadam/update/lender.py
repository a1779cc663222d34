"""Another library whose objects have the parameters' arrays and gradients."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable

from fastadam.serializers.prepared import PreparedLoad

__all__ = ["Lender"]


class Lender(ABC):
    """Who has the arrays and gradients of a target: the parameters have them for an update."""

    @abstractmethod
    def clear_gradients(self, to_none: bool) -> None:
        """Make room for the gradients of a backward pass.

        Parameters
        ----------
        to_none : bool
            Whether there are none then; else they are filled with zeros.
        """

    @abstractmethod
    def take_gradients(self, hooked: bool) -> None:
        """Give the parameters the gradients that there are, for one update.

        Parameters
        ----------
        hooked : bool
            Whether hooks may write them. (Who divides by a loss scale may, too.)
        """

    @abstractmethod
    def written(self, paths: Iterable[str]) -> None:
        """Tell the library that an update has, or may have, written arrays.

        Parameters
        ----------
        paths : iterable of str
            Those of the parameters. Of all others nothing has been written.
        """

    @abstractmethod
    def release(self) -> None:
        """Take the gradients from the parameters again: the update is done, or was refused."""

    @abstractmethod
    def prepare_written(self, prepared: PreparedLoad) -> None:
        """Let a load tell the library that it writes the arrays.

        Parameters
        ----------
        prepared : PreparedLoad
            What is going to write them.
        """
