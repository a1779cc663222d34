"""The parameter: one array, its gradient and the rule that updates it."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from fastadam.kernels.backend import beside, copy_into, device_of, empty_like, zeros_like
from fastadam.kernels.dtypes import computing_dtype, is_half
from fastadam.model.gradient_checks import (
    check_place,
    check_shape,
    checked_grad,
    filled_like,
    unscaled,
)
from fastadam.model.initializer import Array, Initializer, Shape
from fastadam.model.lazy_array import LazyArray
from fastadam.serializers.prepared import PreparedLoad
from fastadam.serializers.remembering import remember
from fastadam.update.overrides import overrides

__all__ = ["Parameter", "is_lent", "lend", "lendable", "put_grad"]


class Parameter(LazyArray):
    """An array to be trained, with its gradient and its update rule.

    Parameters
    ----------
    initializer : array, scalar, callable or None, optional
        An array is adopted itself, without a copy, if no `shape` is given. A number
        fills a float32 array, None fills it with NaN. A callable gets the new array and
        fills it in place; the array has the callable's ``dtype`` attribute as its dtype, or
        float32 where it has none.
    shape : int or tuple of int, optional
        With a shape the array is made at once and the gradient is filled with NaN, so that a
        forgotten backward pass shows. Without one (and without an array) the parameter stays
        uninitialised until `initialize` is called.
    name : str, optional
        The parameter's name, used in messages; a link sets it on registration.

    Attributes
    ----------
    name : str or None
        The parameter's name.
    initializer : callable or None
        What fills the array in `initialize`; None for a parameter made from an array.

    Raises
    ------
    TypeError
        If `initializer` is none of the above.

    Examples
    --------
    >>> import numpy as np
    >>> from fastadam import Parameter
    >>> w = Parameter(np.zeros((2, 3), np.float32), name="W")
    >>> w
    Parameter('W', shape=(2, 3), dtype=float32)
    >>> w.grad = np.ones((2, 3), np.float32)
    >>> lazy = Parameter(0)
    >>> lazy.is_initialized
    False
    >>> lazy.initialize(4)
    >>> lazy.array
    array([0., 0., 0., 0.], dtype=float32)
    """

    __slots__ = ("_grad", "_grad_borrowed", "_grad_fill", "_loss_scale", "_update_rule")

    _copied_slots: ClassVar[tuple[str, ...]] = (*LazyArray._copied_slots, *__slots__)

    _grad: Array | None
    # The gradient belongs to a caller and must not be written.
    _grad_borrowed: bool
    # What `initialize` fills the gradient with; None for no gradient.
    _grad_fill: float | None
    _loss_scale: float | None
    _update_rule: Any

    def __init__(
        self,
        initializer: Array | complex | np.generic | Initializer | None = None,
        shape: Shape | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(initializer, shape, name)
        self._update_rule = None
        self._grad = None
        self._grad_borrowed = False
        self._grad_fill = None
        self._loss_scale = None
        if self._array is None:
            self._grad_fill = np.nan
        elif shape is not None:
            self._grad = filled_like(self._array, np.nan)

    @property
    def update_rule(self) -> Any:
        """The rule that `update` calls, or None; an optimizer's ``setup`` sets it."""
        return self._update_rule

    @update_rule.setter
    def update_rule(self, rule: Any) -> None:
        self._update_rule = rule

    @property
    def grad(self) -> Array | None:
        """The gradient: an array of the parameter's shape and dtype, or None.

        A gradient that was lent (see `lend_grad`) is replaced by a private copy in the
        parameter's dtype when it is first read here, so the returned array may be written. For
        a half-precision parameter, the copy of a gradient of another dtype is float32, and so
        is the gradient that an update has divided by its loss scale. Float32 may be assigned to
        one, too.

        Raises
        ------
        RuntimeError
            If the parameter is uninitialised, and its gradient was never cleared or is assigned.
        TypeError
            On assignment of something that is not an array, or has another dtype.
        ValueError
            On assignment of an array of another shape.
        """
        if self._array is None and self._grad_fill is not None and np.isnan(self._grad_fill):
            raise RuntimeError(
                f"{self._label} is uninitialised and has no gradient yet: call cleargrad() or "
                "initialize() first"
            )
        if self._grad_borrowed:
            self._own_grad()
        return self._grad

    @grad.setter
    def grad(self, grad: Array | None) -> None:
        if grad is None:
            self.cleargrad()
            return
        array = self._array_for_grad()
        if isinstance(grad, np.generic):
            # Arithmetic on 0-dim arrays gives NumPy scalars.
            grad = np.asarray(grad)
        check_place(grad, array, self._label)
        # hooks change and set what an update has made of a half-precision gradient
        wider = is_half(array.dtype) and grad.dtype == computing_dtype(array.dtype)
        if grad.dtype != array.dtype and not wider:
            raise TypeError(
                f"the gradient of {self._label} has dtype {grad.dtype}, the parameter "
                f"{array.dtype}: convert it with grad.astype({array.dtype.name!r})"
            )
        check_shape(grad, array, self._label)
        self._grad = grad
        self._grad_borrowed = False

    def lend_grad(self, grad: npt.ArrayLike) -> None:
        """Use a caller's gradient array without ever writing to it.

        The array is kept as it is until something reads `grad`, which then gets a private
        copy.

        Parameters
        ----------
        grad : array_like
            Anything `numpy.asarray` takes: read-only arrays, NumPy scalars, broadcast views
            and other libraries' arrays included. Any real floating dtype; the shape is the
            parameter's.

        Raises
        ------
        RuntimeError
            If the parameter is uninitialised.
        TypeError
            If the dtype is not a real floating one, or `grad` cannot be made an array.
        ValueError
            If the shape is not the parameter's.

        Examples
        --------
        >>> import numpy as np
        >>> from fastadam import Parameter
        >>> w = Parameter(np.zeros(3, np.float32), name="w")
        >>> mine = np.ones(3)
        >>> w.lend_grad(mine)
        >>> w.grad *= 2
        >>> w.grad, mine
        (array([2., 2., 2.], dtype=float32), array([1., 1., 1.]))
        """
        lend(self, lendable(self, grad))

    def initialize_with(self, array: Array) -> None:
        """Adopt an array as `initialize` would, without calling the initializer.

        Parameters
        ----------
        array : array
            The parameter's new array. It is not copied.
        """
        super().initialize_with(array)
        self._grad = filled_like(array, self._grad_fill)
        self._grad_borrowed = False

    def prepare_array(self, prepared: PreparedLoad, array: Array) -> None:
        """Let a load adopt an array as `initialize_with` does.

        Parameters
        ----------
        prepared : PreparedLoad
            What is to adopt it.
        array : array
            The parameter's first array. It is not copied.
        """
        if overrides(self, "initialize_with", Parameter):
            remembered = partial(remember, self)
            prepared.call(partial(self.initialize_with, array), remembered)
            return
        waiting = self._twins or [self]
        for twin in waiting:
            prepared.slot(twin, "_twins", None)
            prepared.slot(twin, "_array", array)
        prepared.slot(self, "_grad", filled_like(array, self._grad_fill))
        prepared.slot(self, "_grad_borrowed", False)

    def cleargrad(self) -> None:
        """Set the gradient to None; an uninitialised parameter then starts without one."""
        self._grad = None
        self._grad_borrowed = False
        self._loss_scale = None
        if self._array is None:
            self._grad_fill = None

    def zerograd(self) -> None:
        """Fill the gradient with zeros (deprecated: use `cleargrad`)."""
        warnings.warn(
            "Parameter.zerograd() is deprecated: use cleargrad()", DeprecationWarning, stacklevel=2
        )
        self._loss_scale = None
        if self._array is None:
            self._grad_fill = 0.0
        elif self._grad is None or self._grad_borrowed:
            self._grad = zeros_like(self._array)
            self._grad_borrowed = False
        else:
            self._grad.fill(0)

    def addgrad(self, var: Parameter) -> None:
        """Add another parameter's gradient to this one's.

        Nothing happens if `var` has no gradient. If this parameter has none, it shares the
        other's gradient array. An uninitialised parameter is initialised first. Gradients that
        backward passes have left multiplied by different loss scales are divided by them first.

        Parameters
        ----------
        var : Parameter
            The parameter whose gradient is added; same shape and dtype.

        Raises
        ------
        ValueError
            If the shapes differ.
        TypeError
            If the dtypes differ.
        """
        theirs = var.grad
        if theirs is None:
            return
        if self._array is None:
            self.initialize(var.shape)
        theirs = self.device.send(theirs)
        mine = self.grad
        if mine is None:
            self.grad = theirs
            self._loss_scale = var._loss_scale
            return
        check_shape(theirs, mine, self._label)
        with beside(mine):
            if self._loss_scale == var._loss_scale:
                self.grad = mine + theirs
                return
            # true gradients: what is scaled differently cannot be added
            ours = unscaled(mine, self._loss_scale)
            self.grad = ours + unscaled(theirs, var._loss_scale)
        self._loss_scale = None

    def to_device(self, device: Any) -> None:
        """Move the array, the gradient and the rule's state to a device.

        Parameters
        ----------
        device : CpuDevice, GpuDevice, str or int
            ``'@numpy'`` or a negative number for the CPU, ``'@cupy:0'`` or a number for a GPU.

        Raises
        ------
        RuntimeError
            If it is a GPU, and CuPy is not installed or does not find it.
        ValueError
            If there is no such device.
        """
        super().to_device(device)
        if self._grad is not None and device_of(self._grad) != self.device.number:
            self._grad = self.device.send(self._grad)
            self._grad_borrowed = False
        follow_device = getattr(self._update_rule, "follow_device", None)
        if follow_device is not None:
            follow_device(self)

    def update(self) -> None:
        """Let the update rule, if there is one, update the array."""
        rule = self.update_rule
        if rule is not None:
            rule.update(self)

    def _array_for_grad(self) -> Array:
        """Return the array that a gradient is checked against, or raise RuntimeError."""
        if self._array is None:
            raise RuntimeError(
                f"{self._label} is uninitialised and cannot be given a gradient: call "
                "initialize() first"
            )
        return self._array

    def _own_grad(self) -> None:
        """Replace a lent gradient by a private copy in the parameter's dtype and layout.

        What a half-precision parameter's dtype may not hold is copied to float32.
        """
        lent = self._grad
        assert lent is not None
        like = lent if self._array is None else self._array
        wider = is_half(like.dtype) and lent.dtype.newbyteorder("=") != like.dtype
        dtype = computing_dtype(like.dtype) if wider else like.dtype
        own: Array = empty_like(like, dtype)
        copy_into(own, lent)
        self._grad = own
        self._grad_borrowed = False


def peek_grad(param: Any) -> Any:
    """Return a gradient as it is, without the private copy that reading ``grad`` may make.

    For code that only reads it; any other library's parameters are read through ``grad``.
    """
    return param._grad if isinstance(param, Parameter) else param.grad


def lendable(param: Parameter, grad: npt.ArrayLike) -> Array:
    """Return a caller's gradient as an array that fits a parameter, or raise; nothing changes."""
    return checked_grad(grad, param._array_for_grad(), param._label)


def lend(param: Parameter, lent: Array) -> None:
    """Lend a parameter, until its next gradient, what `lendable` has returned."""
    param._grad = lent
    param._grad_borrowed = True


def is_lent(param: Any) -> bool:
    """Tell whether a parameter's gradient is a caller's, which is never written."""
    return bool(getattr(param, "_grad_borrowed", False))


def put_grad(param: Any, grad: Any) -> None:
    """Set a gradient as it is, a caller's or the parameter's own."""
    if isinstance(param, Parameter):
        param._grad = grad
    else:
        replace_grad(param, grad)


def replace_grad(param: Any, grad: Array) -> None:
    """Put another array in the place of a gradient: in the parameter's dtype, or wider.

    A gradient wider than its half-precision parameter is not what the setter of ``grad`` takes,
    in this library or in Chainer: it is for true gradients on their way to the update.
    """
    dtype = param.array.dtype
    wide = computing_dtype(dtype) or dtype
    if grad.dtype not in (dtype, wide):
        grad = grad.astype(wide)
    if isinstance(param, Parameter):
        param._grad = grad
        param._grad_borrowed = False
    elif grad.dtype == dtype:
        param.grad = grad
    elif hasattr(param, "_set_grad_without_check"):
        param._set_grad_without_check(grad)
    else:
        param.grad = grad.astype(dtype)
