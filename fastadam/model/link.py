"""The link: what is done to all the parameters and persistent values of a part of a model."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from fastadam.kernels.backend import copy_into, is_array
from fastadam.model.device import CpuDevice, Device, check_device
from fastadam.model.loading import prepare_param, prepare_persistent
from fastadam.model.registry import Registry
from fastadam.serializers.prepared import PreparedLoad
from fastadam.serializers.protocol import is_deserializer, read_ahead
from fastadam.update.overrides import loads_in_two_phases

if TYPE_CHECKING:
    from fastadam.model.chain import ChainList

__all__ = ["Link"]

T = TypeVar("T")


class Link(Registry):
    """A part of a model: parameters and persistent values under their attribute names.

    Subclasses make their parameters in ``__init__``, inside `init_scope`, and define ``forward``,
    which calling the link calls.

    Parameters
    ----------
    **params : int, tuple of int, None, or pair of one of these and a dtype
        Parameters to make: name and shape, or ``(shape, dtype)``. None leaves one uninitialised.

    Attributes
    ----------
    name : str or None
        The link's name in its parent; the parent sets it.

    Examples
    --------
    >>> import numpy as np
    >>> from fastadam.link import Link
    >>> from fastadam import Parameter
    >>> class Linear(Link):
    ...     def __init__(self, n_in, n_out):
    ...         super().__init__()
    ...         with self.init_scope():
    ...             self.W = Parameter(np.full((n_out, n_in), 0.5, np.float32))
    ...             self.b = Parameter(0, n_out)
    ...
    ...     def forward(self, x):
    ...         return x @ self.W.array.T + self.b.array
    >>> layer = Linear(3, 2)
    >>> [path for path, _ in layer.namedparams()]
    ['/W', '/b']
    >>> layer(np.ones((1, 3), np.float32))
    array([[1.5, 1.5]], dtype=float32)
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call ``forward`` with the same arguments."""
        self._check_init()
        forward = getattr(self, "forward", None)
        if forward is None:
            raise AttributeError(
                f"{type(self).__name__} cannot be called: it does not define forward()"
            )
        return forward(*args, **kwargs)

    def __str__(self) -> str:
        """Show the class and `printable_specs`."""
        specs = ", ".join(f"{key}={value}" for key, value in self.printable_specs)
        return f"{type(self).__name__}({specs})"

    @property
    def printable_specs(self) -> Iterator[tuple[str, object]]:
        """Pairs of name and value that ``str(link)`` shows; none unless a subclass says so."""
        return iter(())

    @property
    def xp(self) -> ModuleType:
        """The array module of this link: numpy, or cupy on a GPU."""
        return self.device.xp

    @property
    def device(self) -> Device:
        """The device that this link was moved to; the CPU to begin with."""
        device: Device = self.__dict__.get("_device") or CpuDevice()
        return device

    def to_device(self, device: Any) -> Self:
        """Move the arrays of this link and all links below it to a device.

        These are the parameters with their gradients and the states of their update rules, and the
        persistent arrays. Uninitialised parameters are made there later.

        Parameters
        ----------
        device : CpuDevice, GpuDevice, str or int
            ``'@numpy'`` or a negative number for the CPU, ``'@cupy:0'`` or a number for a GPU.

        Returns
        -------
        Link
            The link itself.

        Raises
        ------
        RuntimeError
            If it is a GPU, and CuPy is not installed or does not find it.
        ValueError
            If there is no such device.
        """
        there = check_device(device)
        for _, param in self._own_params():
            param.to_device(there)
        for name in sorted(self._persistent):
            value = getattr(self, name)
            if is_array(value):
                setattr(self, name, there.send(value))
        for _, child in self._named_children():
            child.to_device(there)
        self._device = there
        return self

    def to_cpu(self) -> Self:
        """Move the link's arrays to the CPU (deprecated: use `to_device`)."""
        warnings.warn(
            "Link.to_cpu() is deprecated: use to_device('@numpy')", DeprecationWarning, stacklevel=2
        )
        return self.to_device("@numpy")

    def to_gpu(self, device: int | None = None) -> Self:
        """Move the link's arrays to a GPU (deprecated: use `to_device`).

        Parameters
        ----------
        device : int, optional
            The GPU's number; by default the first.

        Raises
        ------
        RuntimeError
            If CuPy is not installed, or does not find it.
        """
        warnings.warn(
            f"Link.to_gpu() is deprecated: use to_device('@cupy:{device or 0}')",
            DeprecationWarning,
            stacklevel=2,
        )
        return self.to_device(f"@cupy:{device or 0}")

    def children(self) -> Iterator[Link]:
        """Iterate over the links directly below this one.

        Yields
        ------
        Link
            A child.
        """
        for _, child in self._named_children():
            yield child

    def links(self, skipself: bool = False) -> Iterator[Link]:
        """Iterate over this link and all links below it.

        Parameters
        ----------
        skipself : bool, optional
            Whether to leave this link out.

        Yields
        ------
        Link
            A link, before those below it.
        """
        if not skipself:
            yield self
        for child in self.children():
            yield from child.links()

    def namedlinks(self, skipself: bool = False) -> Iterator[tuple[str, Link]]:
        """Iterate over this link and all links below it, with their paths.

        Parameters
        ----------
        skipself : bool, optional
            Whether to leave this link, whose path is ``'/'``, out.

        Yields
        ------
        tuple of str and Link
            Path and link.
        """
        if not skipself:
            yield "/", self
        for name, child in self._named_children():
            yield f"/{name}", child
            for path, link in child.namedlinks(skipself=True):
                yield f"/{name}{path}", link

    def addgrads(self, link: Link) -> None:
        """Add another link's gradients to this one's.

        Parameters
        ----------
        link : Link
            A link with the same parameters and children.

        Raises
        ------
        KeyError
            If `link` lacks a parameter or a child of this one.
        """
        params = dict(link._own_params())
        for name, param in self._own_params():
            param.addgrad(_counterpart(params, name, "parameter", link))
        children = dict(link._named_children())
        for name, child in self._named_children():
            child.addgrads(_counterpart(children, name, "child link", link))

    def copyparams(self, link: Link, copy_persistent: bool = True) -> None:
        """Copy another link's parameters, and persistent values, into this one's.

        Gradients are not copied.

        Parameters
        ----------
        link : Link
            A link with the same parameters and children.
        copy_persistent : bool, optional
            Whether to copy the persistent values too.

        Raises
        ------
        KeyError
            If `link` lacks a parameter or a child of this one.
        AttributeError
            If `link` lacks a persistent value of this one.
        ValueError
            If shapes differ.
        """
        params = dict(link._own_params())
        for name, param in self._own_params():
            param.copydata(_counterpart(params, name, "parameter", link))
        if copy_persistent:
            for name in sorted(self._persistent):
                self._copy_persistent(name, getattr(link, name))
        children = dict(link._named_children())
        for name, child in self._named_children():
            child.copyparams(_counterpart(children, name, "child link", link), copy_persistent)

    def copy(self, mode: str = "share") -> Self:
        """Copy this link and all links below it.

        Parameters
        ----------
        mode : {'share', 'copy', 'init'}, optional
            ``'share'`` makes new `Parameter` objects without gradients that share the arrays and
            the update rules. ``'copy'`` copies everything, the rules too, which no longer follow
            an optimizer's hyperparameters then. ``'init'`` does the same and initialises the
            parameters anew.

        Returns
        -------
        Link
            The copy; its `name` is None in mode ``'share'``.

        Raises
        ------
        ValueError
            If there is no such mode.
        TypeError
            In mode ``'init'`` if a parameter was made from an array, so that it has no initializer.
        """
        if mode == "share":
            return self._share()
        if mode not in {"copy", "init"}:
            raise ValueError(f"mode must be 'share', 'copy' or 'init', not {mode!r}")
        clone = copy.deepcopy(self)
        if mode == "init":
            # Tied parameters are one.
            for param in {id(param): param for param in clone.params(False)}.values():
                # As for a new parameter, whose gradient is NaN until the first backward pass.
                param._grad_fill = math.nan
                param.initialize(param.shape)
        return clone

    def repeat(self, n_repeat: int, mode: str = "init") -> ChainList:
        """Make a list of copies of this link.

        Parameters
        ----------
        n_repeat : int
            How many.
        mode : {'init', 'copy', 'share'}, optional
            How to copy, see `copy`.

        Returns
        -------
        ChainList
            The copies.
        """
        # The list is made of links, so its module needs this one first.
        from fastadam.model.chain import ChainList

        return ChainList(*(self.copy(mode) for _ in range(n_repeat)))

    def serialize(self, serializer: Any) -> None:
        """Save or load the parameters and persistent values of this link and those below it.

        Loading reads and checks everything before it writes anything.

        Parameters
        ----------
        serializer : AbstractSerializer
            What saves or loads.
        """
        if is_deserializer(serializer):
            self.prepare_load(serializer).commit()
            return
        for name, param in self._own_params():
            serializer(name, param.array)
        for name in sorted(self._persistent):
            serializer(name, getattr(self, name))
        for name, child in self._named_children():
            child.serialize(serializer[name])

    def prepare_load(self, serializer: Any) -> PreparedLoad:
        """Read and check the values of this link and those below it; nothing changes yet.

        Parameters
        ----------
        serializer : Deserializer
            Where to read. Nothing is read from it later, but by links below with a `serialize` of
            their own and no `prepare_load`: they are called when everything has been checked.

        Returns
        -------
        PreparedLoad
            What its ``commit()`` is going to change.
        """
        prepared = PreparedLoad()
        for name, param in self._own_params():
            prepare_param(prepared, serializer, name, param)
        for name in sorted(self._persistent):
            prepare_persistent(prepared, serializer, name, self)
        for name, child in self._named_children():
            if loads_in_two_phases(child):
                prepared.extend(child.prepare_load(serializer[name]))
            else:
                prepared.serialize(child, read_ahead(serializer[name]))
        return prepared

    def _share(self) -> Self:
        """Copy the link with new parameters that share the arrays."""
        clone = copy.copy(self)
        clone._params = set(self._params)
        clone._persistent = set(self._persistent)
        clone.name = None
        for name, param in self._own_params():
            shared = copy.copy(param)
            shared.cleargrad()
            clone.__dict__[name] = shared
        return clone

    def _copy_persistent(self, name: str, value: Any) -> None:
        """Copy one persistent value from another link: into the array, or as a deep copy."""
        mine = getattr(self, name)
        if not (is_array(mine) and is_array(value)):
            setattr(self, name, copy.deepcopy(value))
            return
        if mine.shape != value.shape:
            raise ValueError(
                f"cannot copy the persistent value {name!r} of shape {value.shape} to one of "
                f"shape {mine.shape}"
            )
        copy_into(mine, value)


def _counterpart(found: dict[str, T], name: str, kind: str, link: Link) -> T:
    """Return what another link has under this name, or raise KeyError."""
    if name not in found:
        raise KeyError(f"the {type(link).__name__} given has no {kind} {name!r}")
    return found[name]
