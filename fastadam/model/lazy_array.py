"""An array that may come into being later: the half of a parameter that is not its gradient."""

from __future__ import annotations

from types import ModuleType
from typing import Any, ClassVar, Self, cast

import numpy as np

from fastadam.kernels.arrays import refuse_masked
from fastadam.kernels.backend import copy_into, is_array
from fastadam.kernels.dtypes import type_name
from fastadam.model.device import CpuDevice, Device, check_device, device_holding
from fastadam.model.initializer import Array, Initializer, Shape, as_initializer, new_array

__all__ = ["LazyArray"]


class LazyArray:
    """A named array, made at once or by `initialize`.

    Attributes
    ----------
    frozen : bool
        Whether no update touches it, as whoever has the array says: of a tensor of PyTorch's, that
        it requires no gradient.
    """

    __slots__ = ("__dict__", "__weakref__", "_array", "_device", "_twins", "initializer", "name")

    # all but what every object may have
    _copied_slots: ClassVar[tuple[str, ...]] = __slots__[2:]

    _array: Array | None
    # Where the array is to be made; None is the CPU.
    _device: Any
    # Uninitialised copies of one another: the first array any of them gets is every one's.
    _twins: list[LazyArray] | None
    initializer: Initializer | None
    name: str | None
    frozen: bool = False

    def __init__(
        self,
        initializer: Array | complex | np.generic | Initializer | None = None,
        shape: Shape | None = None,
        name: str | None = None,
    ) -> None:
        self.name = name
        self._array = None
        self._twins = None
        self._device: Any = None
        if is_array(initializer) and shape is None:
            refuse_masked(f"the array of {self._label}", initializer)
            self.initializer = None
            self._array = cast("Array", initializer)
            return
        self.initializer = as_initializer(initializer, self._label)
        if shape is not None:
            self._array = new_array(self.initializer, shape)

    def __repr__(self) -> str:
        """Tell name, shape and dtype."""
        name = "" if self.name is None else f"{self.name!r}, "
        if self._array is None:
            return f"{type(self).__name__}({name}uninitialised)"
        return f"{type(self).__name__}({name}shape={self.shape}, dtype={self.dtype})"

    def __copy__(self) -> Self:
        """Make another of the same kind that shares the array and everything else.

        Copies of an uninitialised one share the array as soon as one of them gets it.
        """
        twin = type(self).__new__(type(self))
        if self._array is None and self._twins is None:
            self._twins = [self]
        for slot in self._copied_slots:
            setattr(twin, slot, getattr(self, slot))
        twin.__dict__.update(self.__dict__)
        if twin._twins is not None:
            twin._twins.append(twin)
        return twin

    @property
    def array(self) -> Array | None:
        """The array, or None while it is uninitialised.

        Raises
        ------
        TypeError
            On assignment of anything but a `numpy.ndarray`, a `cupy.ndarray` or None.
        """
        return self._array

    @array.setter
    def array(self, array: Array | None) -> None:
        if array is None:
            self._array = None
        elif isinstance(array, (np.ndarray, np.generic)):
            refuse_masked(f"the array of {self._label}", array)
            # arithmetic on 0-dim arrays gives NumPy scalars
            self._adopt(np.asarray(array))
        elif is_array(array):
            self._adopt(array)
        else:
            raise TypeError(
                f"the array of {self._label} must be a numpy.ndarray or None, "
                f"not {type_name(array)}; on a GPU, a cupy.ndarray"
            )

    @property
    def data(self) -> Array | None:
        """Alias of `array`."""
        return self._array

    @data.setter
    def data(self, array: Array | None) -> None:
        self.array = array

    @property
    def is_initialized(self) -> bool:
        """Whether there is an array."""
        return self._array is not None

    @property
    def shape(self) -> tuple[int, ...]:
        """The array's shape; AttributeError while it is uninitialised."""
        return self._require_array("shape").shape

    @property
    def ndim(self) -> int:
        """The array's number of axes; AttributeError while it is uninitialised."""
        return self._require_array("ndim").ndim

    @property
    def size(self) -> int:
        """The array's number of elements; AttributeError while it is uninitialised."""
        return self._require_array("size").size

    @property
    def dtype(self) -> np.dtype[Any]:
        """The array's dtype, or while it is uninitialised what the initializer says.

        An initializer whose ``dtype`` is None reads as float64 here, as in Chainer, although the
        array it will fill is float32.

        Raises
        ------
        RuntimeError
            While it is uninitialised and the initializer has no ``dtype`` attribute.
        """
        if self._array is not None:
            return self._array.dtype
        if self.initializer is None or not hasattr(self.initializer, "dtype"):
            raise RuntimeError(
                f"{self._label} is uninitialised and its initializer has no dtype attribute, so "
                "its dtype is not known yet"
            )
        dtype: np.dtype[Any] = np.dtype(self.initializer.dtype)
        return dtype

    @property
    def xp(self) -> ModuleType:
        """The array module: numpy, or cupy on a GPU."""
        return self.device.xp

    @property
    def device(self) -> Device:
        """The device of the array, or the one on which it is to be made."""
        if self._array is not None:
            return device_holding(self._array)
        return self._device or CpuDevice()

    def copydata(self, var: LazyArray) -> None:
        """Copy another parameter's array into this one's.

        If one of the two is uninitialised it is initialised with the other's shape first; if
        both are, nothing happens.

        Parameters
        ----------
        var : LazyArray
            The parameter to copy from.

        Raises
        ------
        ValueError
            If the shapes differ.
        TypeError
            If the values cannot be cast to this parameter's kind of dtype.
        """
        if var.array is None:
            if self._array is None:
                return
            var.initialize(self.shape)
        elif self._array is None:
            self.initialize(var.shape)
        target, source = self._require_array("array"), var._require_array("array")
        if source.shape != target.shape:
            raise ValueError(
                f"cannot copy an array of shape {source.shape} to {self._label} of shape "
                f"{target.shape}"
            )
        copy_into(target, source)

    def to_device(self, device: Any) -> None:
        """Move the array to a device; an uninitialised one is made there later."""
        there = check_device(device)
        self._device = there
        if self._array is not None and device_holding(self._array) != there:
            self._adopt(there.send(self._array))

    def to_cpu(self) -> None:
        """Move the array and the gradient to the CPU."""
        self.to_device("@numpy")

    def to_gpu(self, device: int | None = None) -> None:
        """Move the array and the gradient to a GPU.

        Parameters
        ----------
        device : int, optional
            The GPU's number; by default the first.

        Raises
        ------
        RuntimeError
            If CuPy is not installed, or does not find it.
        """
        self.to_device(f"@cupy:{device or 0}")

    def initialize(self, shape: Shape) -> None:
        """Make the array and fill it with the initializer.

        Parameters
        ----------
        shape : int or tuple of int
            Shape of the new array.

        Raises
        ------
        TypeError
            If it was made from an array, so that there is no initializer.
        """
        if self.initializer is None:
            raise TypeError(
                f"{self._label} was made from an array and has no initializer to fill a new "
                "array with: assign to its array instead"
            )
        device = self._device or CpuDevice()
        self.initialize_with(device.send(new_array(self.initializer, shape)))

    def initialize_with(self, array: Array) -> None:
        """Adopt an array as `initialize` would, without calling the initializer."""
        self._adopt(array)

    @property
    def _label(self) -> str:
        """The parameter as messages call it."""
        return "an unnamed parameter" if self.name is None else f"parameter {self.name!r}"

    def _require_array(self, wanted: str) -> Array:
        """Return the array, or raise AttributeError saying what is not there yet."""
        if self._array is None:
            raise AttributeError(f"{self._label} is uninitialised and has no {wanted} yet")
        return self._array

    def _adopt(self, array: Array) -> None:
        """Set the array, also on copies that wait for their first one."""
        waiting, self._twins = self._twins, None
        self._array = array
        for twin in waiting or ():
            twin._twins = None
            if twin._array is None:
                twin._array = array
