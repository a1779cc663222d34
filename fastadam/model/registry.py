"""What a link is made of: parameters and persistent values by name, and what all of them do."""

from __future__ import annotations

import contextlib
import operator
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fastadam.model.initializer import Constant, Shape
from fastadam.model.parameter import Parameter
from fastadam.update.overrides import stores_plainly

__all__ = ["Registry", "registered"]


class Registry:
    """Parameters and persistent values registered by attribute name: the base of every link."""

    name: str | None
    _within_init_scope = False

    def __init__(self, **params: Any) -> None:
        self._params: set[str] = set()
        self._persistent: set[str] = set()
        self.name = None
        for name, spec in params.items():
            shape, dtype = _shape_and_dtype(spec)
            self.add_param(name, shape, dtype)

    @stores_plainly
    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; inside `init_scope` a `Parameter` is registered."""
        if self._within_init_scope and isinstance(value, Parameter):
            value.name = name
            self._params.add(name)
            self._persistent.discard(name)
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        """Delete an attribute, and its registration."""
        self._params.discard(name)
        self._persistent.discard(name)
        super().__delattr__(name)

    @property
    def within_init_scope(self) -> bool:
        """Whether an `init_scope` of this link is open."""
        return self._within_init_scope

    @contextlib.contextmanager
    def init_scope(self) -> Iterator[None]:
        """Register the parameters, and in a `Chain` the links, assigned in a ``with`` block.

        Raises
        ------
        RuntimeError
            If the subclass has not called ``super().__init__()``.
        """
        self._check_init()
        outer = self._within_init_scope
        self._within_init_scope = True
        try:
            yield
        finally:
            self._within_init_scope = outer

    def add_param(
        self,
        name: str,
        shape: Shape | None = None,
        dtype: npt.DTypeLike = np.float32,
        initializer: Any = None,
    ) -> None:
        """Make and register a parameter.

        Parameters
        ----------
        name : str
            Its name, and the attribute it is set to.
        shape : int or tuple of int, optional
            Its shape; None leaves it uninitialised, unless `initializer` is an array.
        dtype : dtype-like, optional
            Its dtype, where `initializer` is not given.
        initializer : array, scalar or callable, optional
            What fills it, as `Parameter` takes it; by default NaN.

        Raises
        ------
        AttributeError
            If the link has an attribute of that name.
        ValueError
            If there is a shape, an integer dtype and no initializer.
        """
        self._check_init()
        self._check_free("parameter", name)
        if initializer is None:
            if shape is not None and np.dtype(dtype).kind in "iu":
                raise ValueError(
                    f"parameter {name!r} needs an initializer: without one it is filled with NaN, "
                    f"which {np.dtype(dtype)} cannot hold"
                )
            initializer = Constant(float("nan"), dtype)
        with self.init_scope():
            setattr(self, name, Parameter(initializer, shape))

    def add_persistent(self, name: str, value: Any) -> None:
        """Set an attribute that is saved and loaded with the parameters.

        Parameters
        ----------
        name : str
            The attribute's name.
        value : numpy.ndarray, scalar, str or None
            Its value.

        Raises
        ------
        AttributeError
            If the link has an attribute of that name.
        """
        self._check_init()
        self._check_free("persistent value", name)
        super().__setattr__(name, value)
        self.register_persistent(name)

    def register_persistent(self, name: str) -> None:
        """Save and load an attribute that exists; a parameter of that name is one no longer.

        Parameters
        ----------
        name : str
            The attribute's name.

        Raises
        ------
        AttributeError
            If the link has no such attribute.
        """
        if not hasattr(self, name):
            raise AttributeError(
                f"{type(self).__name__} has no attribute {name!r} to register as a persistent value"
            )
        self._persistent.add(name)
        self._params.discard(name)

    def params(self, include_uninit: bool = True) -> Iterator[Parameter]:
        """Iterate over the parameters of this link and all links below it.

        Own parameters come first, by sorted name, then the children's.

        Parameters
        ----------
        include_uninit : bool, optional
            Whether to include uninitialised parameters.

        Yields
        ------
        Parameter
            A parameter.
        """
        for _, param in self._own_params():
            if include_uninit or param.array is not None:
                yield param
        for _, child in self._named_children():
            yield from child.params(include_uninit)

    def namedparams(self, include_uninit: bool = True) -> Iterator[tuple[str, Parameter]]:
        """Iterate over the parameters and their paths, such as ``'/l1/W'``.

        Parameters
        ----------
        include_uninit : bool, optional
            Whether to include uninitialised parameters.

        Yields
        ------
        tuple of str and Parameter
            Path and parameter, in the order of `params`.
        """
        for name, param in self._own_params():
            if include_uninit or param.array is not None:
                yield f"/{name}", param
        for name, child in self._named_children():
            for path, param in child.namedparams(include_uninit):
                yield f"/{name}{path}", param

    @property
    def update_enabled(self) -> bool:
        """Whether any parameter has an update rule that is enabled."""
        return any(rule.enabled for rule in self._rules())

    def cleargrads(self) -> None:
        """Set all gradients to None."""
        for param in self.params():
            param.cleargrad()

    def zerograds(self) -> None:
        """Fill all gradients with zeros (deprecated: use `cleargrads`)."""
        warnings.warn(
            "Link.zerograds() is deprecated: use cleargrads()", DeprecationWarning, stacklevel=2
        )
        with warnings.catch_warnings():
            # one warning says it; a subclass of Parameter may override zerograd()
            warnings.simplefilter("ignore", DeprecationWarning)
            for param in self.params():
                param.zerograd()

    def enable_update(self) -> None:
        """Enable the update rules of all parameters that have one."""
        for rule in self._rules():
            rule.enabled = True

    def disable_update(self) -> None:
        """Disable the update rules of all parameters that have one."""
        for rule in self._rules():
            rule.enabled = False

    def count_params(self) -> int:
        """Count the elements of all parameters.

        Returns
        -------
        int
            The number of elements; an uninitialised parameter gives a UserWarning and counts
            as none.
        """
        count = 0
        for path, param in self.namedparams():
            if param.array is None:
                warnings.warn(
                    f"parameter {path!r} is uninitialised and not counted",
                    UserWarning,
                    stacklevel=2,
                )
            else:
                count += param.size
        return count

    def _own_params(self) -> list[tuple[str, Parameter]]:
        """Return this link's own parameters by sorted name."""
        self._check_init()
        return [(name, self.__dict__[name]) for name in sorted(self._params)]

    def _named_children(self) -> Sequence[tuple[str, Any]]:
        """Return the children with their names in paths; a plain link has none."""
        return []

    def _rules(self) -> Iterator[Any]:
        """Iterate over the update rules of all parameters that have one."""
        for param in self.params():
            if param.update_rule is not None:
                yield param.update_rule

    def _check_init(self) -> None:
        """Raise RuntimeError unless ``__init__`` has run."""
        if "_persistent" not in self.__dict__:
            raise RuntimeError(
                f"{type(self).__name__} is not ready: call super().__init__() first in its __init__"
            )

    def _check_free(self, kind: str, name: str) -> None:
        """Raise AttributeError if the link has an attribute of this name."""
        if name in self.__dict__:
            raise AttributeError(
                f"cannot register the {kind} {name!r}: {type(self).__name__} has an attribute of "
                "that name"
            )


def _shape_and_dtype(spec: Any) -> tuple[Shape | None, npt.DTypeLike]:
    """Split what ``Link(name=...)`` takes into shape and dtype."""
    if isinstance(spec, tuple | list) and len(spec) == 2:
        shape, dtype = spec
        if shape is None or isinstance(shape, tuple | list) or not _is_integer(dtype):
            return _as_shape(shape), dtype
    return _as_shape(spec), np.float32


def _as_shape(shape: Any) -> Shape | None:
    """Return a shape given as None, a number or a sequence of numbers."""
    if shape is None or _is_integer(shape):
        return shape  # type: ignore[no-any-return]
    return tuple(shape)


def _is_integer(value: Any) -> bool:
    """Tell whether a value is an integer, NumPy's included, and not a type such as ``int``."""
    try:
        operator.index(value)
    except TypeError:
        return False
    return True


def registered(link: Any) -> tuple[set[str], Sequence[tuple[str, Any]]]:
    """Return the names of a link's own parameters, as it holds them, and its children by name."""
    return link._params, link._named_children()
