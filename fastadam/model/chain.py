"""Links made of links: by name, and in a list."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableSequence
from typing import Any, Self, SupportsIndex, overload

from fastadam.model.link import Link
from fastadam.model.parameter import Parameter
from fastadam.update.overrides import stores_plainly

__all__ = ["Chain", "ChainList"]


class Chain(Link):
    """A link whose children are attributes.

    Children are registered by assignment inside ``init_scope``, by `add_link`, or as keyword
    arguments.

    Parameters
    ----------
    **links : Link
        Children under their names.

    Examples
    --------
    >>> from fastadam.link import Chain, Link
    >>> model = Chain(l1=Link(W=(2, 3), b=2), l2=Link(W=(1, 2)))
    >>> [path for path, _ in model.namedparams()]
    ['/l1/W', '/l1/b', '/l2/W']
    >>> model["l1"] is model.l1
    True
    """

    def __init__(self, **links: Link) -> None:
        super().__init__()
        self._children: set[str] = set()
        for name, link in links.items():
            self.add_link(name, link)

    def __str__(self) -> str:
        """Show the tree."""
        return _tree(self)

    def __getitem__(self, name: str) -> Any:
        """Return the attribute of this name.

        Parameters
        ----------
        name : str
            A child's name, or any attribute's.

        Returns
        -------
        object
            The child or attribute.
        """
        return getattr(self, name)

    @stores_plainly
    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; inside ``init_scope`` a `Link` or `Parameter` is registered."""
        if self._within_init_scope and isinstance(value, Link):
            if hasattr(self, name):
                raise AttributeError(
                    f"cannot register the link {name!r}: {type(self).__name__} has an attribute "
                    "of that name"
                )
            value.name = name
            self._children.add(name)
        elif self._within_init_scope and isinstance(value, Parameter):
            self._children.discard(name)
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        """Delete an attribute, and its registration."""
        self._children.discard(name)
        super().__delattr__(name)

    def add_link(self, name: str, link: Link) -> None:
        """Register a child.

        Parameters
        ----------
        name : str
            Its name, and the attribute it is set to.
        link : Link
            The child.

        Raises
        ------
        AttributeError
            If the chain has an attribute of that name.
        TypeError
            If `link` is not a `Link`.
        """
        _check_link(link)
        with self.init_scope():
            setattr(self, name, link)

    def _named_children(self) -> list[tuple[str, Link]]:
        """Return the children by sorted name."""
        return [(name, self.__dict__[name]) for name in sorted(self._children)]

    def _share(self) -> Self:
        """Copy the chain, and each child, with new parameters that share the arrays."""
        clone = super()._share()
        clone._children = set(self._children)
        for name, child in self._named_children():
            shared = child.copy("share")
            shared.name = name
            clone.__dict__[name] = shared
        return clone


class ChainList(Link, MutableSequence[Link]):
    """A link whose children are the items of a list.

    It is a `collections.abc.MutableSequence`: indices, slices, ``append``, ``insert``,
    ``extend``, ``pop``, ``remove``, ``clear``, ``reverse``, ``index`` and ``count`` work. An empty
    one is false.

    Parameters
    ----------
    *links : Link
        Children.

    Examples
    --------
    >>> from fastadam.link import ChainList, Link
    >>> layers = ChainList(Link(W=(2, 3)), Link(W=(1, 2)))
    >>> [path for path, _ in layers.namedparams()]
    ['/0/W', '/1/W']
    >>> layers.append(Link(W=1))
    >>> len(layers), layers[-1].name
    (3, '2')
    """

    def __init__(self, *links: Link) -> None:
        super().__init__()
        self._children: list[Link] = []
        self.extend(links)

    def __str__(self) -> str:
        """Show the tree."""
        return _tree(self)

    @stores_plainly
    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; children are added to the list, not as attributes."""
        if self._within_init_scope and isinstance(value, Link):
            raise TypeError(
                f"cannot register the link {name!r} as an attribute of a "
                f"{type(self).__name__}: use append()"
            )
        super().__setattr__(name, value)

    @overload
    def __getitem__(self, index: SupportsIndex) -> Link: ...
    @overload
    def __getitem__(self, index: slice) -> list[Link]: ...
    def __getitem__(self, index: SupportsIndex | slice) -> Link | list[Link]:
        """Return a child, or a list of the children in a slice.

        Parameters
        ----------
        index : int or slice
            Which.

        Returns
        -------
        Link or list of Link
            The child or children.
        """
        return self._children[index]

    @overload
    def __setitem__(self, index: SupportsIndex, value: Link) -> None: ...
    @overload
    def __setitem__(self, index: slice, value: Iterable[Link]) -> None: ...
    def __setitem__(self, index: SupportsIndex | slice, value: Link | Iterable[Link]) -> None:
        """Replace a child, or the children in a slice.

        Parameters
        ----------
        index : int or slice
            Which.
        value : Link or iterable of Link
            What to put there.

        Raises
        ------
        TypeError
            If something that is not a `Link` is put there.
        """
        if isinstance(index, slice):
            links = list(value)  # type: ignore[arg-type]
            for link in links:
                _check_link(link)
            self._children[index] = links
        else:
            self._children[index] = _check_link(value)
        self._number_children()

    def __delitem__(self, index: SupportsIndex | slice) -> None:
        """Remove a child, or the children in a slice.

        Parameters
        ----------
        index : int or slice
            Which.
        """
        del self._children[index]
        self._number_children()

    def __len__(self) -> int:
        """Return the number of children."""
        return len(self._children)

    def __iter__(self) -> Iterator[Link]:
        """Iterate over the children."""
        return iter(self._children)

    def insert(self, index: SupportsIndex, link: Link) -> None:
        """Insert a child.

        Parameters
        ----------
        index : int
            Before which child.
        link : Link
            The child.

        Raises
        ------
        TypeError
            If `link` is not a `Link`.
        """
        self._children.insert(index, _check_link(link))
        self._number_children()

    def add_link(self, link: Link) -> None:
        """Append a child.

        Parameters
        ----------
        link : Link
            The child.
        """
        self.append(link)

    def _named_children(self) -> list[tuple[str, Link]]:
        """Return the children with their indices as names."""
        return [(str(index), child) for index, child in enumerate(self._children)]

    def _share(self) -> Self:
        """Copy the list, and each child, with new parameters that share the arrays."""
        clone = super()._share()
        clone._children = [child.copy("share") for child in self._children]
        clone._number_children()
        return clone

    def _number_children(self) -> None:
        """Name every child by its index."""
        for name, child in self._named_children():
            child.name = name


def _check_link(link: Any) -> Link:
    """Return what is a link; raise TypeError for anything else."""
    if not isinstance(link, Link):
        raise TypeError(f"a child must be a fastadam Link, not {type(link).__name__}")
    return link


def _tree(link: Link) -> str:
    """Show a link and its children, each on lines of its own."""
    lines = "".join(
        f"  {line}\n"
        for name, child in link._named_children()
        for line in f"({name}): {child},".splitlines()
    )
    return f"{type(link).__name__}({chr(10) if lines else ''}{lines})"
