"""Where arrays live: on the CPU, or on a GPU."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType
from typing import Any, Self

import numpy as np

from fastadam.kernels.backend import CPU, device_of, is_array, move, require_cupy

__all__ = ["CpuDevice", "GpuDevice", "check_device", "device_holding"]


class Device:
    """Base class of the two kinds of device; their numbers are as `device_of` tells them."""

    name: str
    number: int

    @classmethod
    def from_array(cls, array: Any) -> Self | None:
        """Return the device that an array is on, None if it is on none of this kind.

        Parameters
        ----------
        array : object
            The array.
        """
        there = device_holding(array) if is_array(array) else None
        return there if isinstance(there, cls) else None

    @property
    def xp(self) -> ModuleType:
        """The array module: numpy, or cupy on a GPU."""
        module: ModuleType = np if self.number == CPU else require_cupy()
        return module

    @property
    def supported_array_types(self) -> tuple[type[Any], ...]:
        """The types of arrays that may be on it."""
        return (self.xp.ndarray,)

    def is_array_supported(self, array: Any) -> bool:
        """Tell whether an array is on this device.

        Parameters
        ----------
        array : object
            The array; anything else is on no device.
        """
        return is_array(array) and device_of(array) == self.number

    def create_context(self) -> AbstractContextManager[Any]:
        """Return a context in which this device is the current one."""
        return nullcontext()

    def send(self, arrays: Any) -> Any:
        """Return the same values as arrays on this device; None for None.

        Parameters
        ----------
        arrays : array_like, None, or list or tuple of arrays and None
            The values. An array that a list holds twice is sent once.
        """
        several = isinstance(arrays, (list, tuple))
        if not several or not all(array is None or is_array(array) for array in arrays):
            return self.send_array(arrays)
        sent: dict[int, Any] = {}
        for array in arrays:
            if id(array) not in sent:
                sent[id(array)] = self.send_array(array)
        return type(arrays)(sent[id(array)] for array in arrays)

    def send_array(self, array: Any) -> Any:
        """Return the same values as an array on this device; None for None.

        Parameters
        ----------
        array : array_like or None
            The values.
        """
        if array is None:
            return None
        moved = move(array if hasattr(array, "dtype") else np.asarray(array), self.number)
        return np.asarray(moved) if self.number == CPU else moved

    def use(self) -> None:
        """Make this device the current one of this thread."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, type(self)) and other.number == self.number

    def __hash__(self) -> int:
        return hash(self.name)

    def __str__(self) -> str:
        return self.name


class CpuDevice(Device):
    """The CPU, whose arrays are NumPy's.

    Attributes
    ----------
    name : str
        Chainer's name for it: ``'@numpy'``.
    number : int
        -1.

    Examples
    --------
    >>> import numpy as np
    >>> from fastadam import Link
    >>> link = Link(W=(2, 3))
    >>> link.device
    <CpuDevice (numpy)>
    >>> link.device.is_array_supported(link.W.array)
    True
    """

    name = "@numpy"
    number = CPU

    def __repr__(self) -> str:
        return "<CpuDevice (numpy)>"


class GpuDevice(Device):
    """A GPU, whose arrays are CuPy's.

    Parameters
    ----------
    number : int or cupy.cuda.Device
        Which one; they count from 0.

    Raises
    ------
    RuntimeError
        If CuPy is not installed, or there is no such GPU.

    Attributes
    ----------
    name : str
        Chainer's name for it, such as ``'@cupy:0'``.
    number : int
        Which one.
    """

    def __init__(self, number: Any = 0) -> None:
        there = require_cupy().cuda.runtime.getDeviceCount()
        number = getattr(number, "id", number)
        if not 0 <= number < there:
            raise RuntimeError(f"there is no GPU {number}; CuPy finds {there}, counted from 0")
        self.number = number
        self.name = f"@cupy:{number}"

    @property
    def device(self) -> Any:
        """CuPy's ``cuda.Device``."""
        return require_cupy().cuda.Device(self.number)

    @staticmethod
    def from_device_id(device_id: int) -> GpuDevice:
        """Return a GPU by its number.

        Parameters
        ----------
        device_id : int
            Which one; they count from 0.
        """
        return GpuDevice(device_id)

    def create_context(self) -> AbstractContextManager[Any]:
        """Return a context in which this GPU is the current one."""
        context: AbstractContextManager[Any] = self.device
        return context

    def use(self) -> None:
        """Make this GPU the current one of this thread."""
        self.device.use()

    def __repr__(self) -> str:
        return f"<GpuDevice (cupy):{self.number}>"


# Chainer's, PyTorch's and ChainerX's names of a GPU.
_GPU = re.compile(r"(?:@cupy|cuda|native:cuda|cuda:native)(?::(\d+))?")


def check_device(device: Any) -> Device:
    """Return the device that a specification means, or say why it cannot be had.

    The CPU is ``'@numpy'`` or a negative number, a GPU ``'@cupy:0'``, ``'cuda:0'``, ``'cuda'`` or a
    number; a device of Chainer's, or CuPy's ``cuda.Device``, is taken as well.
    """
    name = getattr(device, "name", device)
    if not isinstance(name, (str, int)):
        name = getattr(device, "id", name)
    if isinstance(name, str) and name.lstrip("-").isdigit():
        name = int(name)
    if isinstance(name, int) and not isinstance(name, bool):
        return CpuDevice() if name < 0 else GpuDevice(name)
    if name == CpuDevice.name:
        return CpuDevice()
    found = _GPU.fullmatch(name) if isinstance(name, str) else None
    if found is None:
        raise ValueError(
            f"there is no device {device!r}; the CPU is '@numpy', the first GPU '@cupy:0'"
        )
    return GpuDevice(int(found[1] or 0))


def device_holding(array: Any) -> Device:
    """Return the device that an array is on."""
    number = device_of(array)
    return CpuDevice() if number == CPU else GpuDevice(number)
