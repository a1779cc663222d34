"""Where arrays live: on the CPU, or on a GPU."""

from __future__ import annotations

import re
from types import ModuleType
from typing import Any

import numpy as np

from fastadam.kernels.backend import CPU, device_of, move, require_cupy

__all__ = ["CpuDevice", "GpuDevice", "check_device", "device_holding"]


class CpuDevice:
    """The CPU, whose arrays are NumPy's.

    Attributes
    ----------
    name : str
        Chainer's name for it: ``'@numpy'``.
    number : int
        -1.
    xp : module
        The array module: numpy.

    Examples
    --------
    >>> from fastadam import Link
    >>> Link(W=(2, 3)).device
    <CpuDevice (numpy)>
    """

    name = "@numpy"
    number = CPU
    xp: ModuleType = np

    def send(self, array: Any) -> Any:
        """Return the same values as a NumPy array; None for None.

        Parameters
        ----------
        array : array_like or None
            The values.
        """
        return None if array is None else np.asarray(move(array, CPU))

    def use(self) -> None:
        """Do nothing: the CPU is always there."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CpuDevice)

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        return "<CpuDevice (numpy)>"


class GpuDevice:
    """A GPU, whose arrays are CuPy's.

    Parameters
    ----------
    number : int
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

    def __init__(self, number: int = 0) -> None:
        there = require_cupy().cuda.runtime.getDeviceCount()
        if not 0 <= number < there:
            raise RuntimeError(f"there is no GPU {number}; CuPy finds {there}, counted from 0")
        self.number = number
        self.name = f"@cupy:{number}"

    @property
    def xp(self) -> ModuleType:
        """The array module: cupy."""
        module: ModuleType = require_cupy()
        return module

    def send(self, array: Any) -> Any:
        """Return the same values as an array on this GPU; None for None.

        Parameters
        ----------
        array : array_like or None
            The values.
        """
        if array is None:
            return None
        return move(array if hasattr(array, "dtype") else np.asarray(array), self.number)

    def use(self) -> None:
        """Make this GPU the current one of this thread."""
        require_cupy().cuda.Device(self.number).use()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GpuDevice) and other.number == self.number

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        return f"<GpuDevice (cupy):{self.number}>"


Device = CpuDevice | GpuDevice

# Chainer's, PyTorch's and ChainerX's names of a GPU.
_GPU = re.compile(r"(?:@cupy|cuda|native:cuda|cuda:native)(?::(\d+))?")


def check_device(device: Any) -> Device:
    """Return the device that a specification means, or say why it cannot be had.

    Parameters
    ----------
    device : CpuDevice, GpuDevice, str, int or object with a name or an id
        ``'@numpy'`` or a negative number for the CPU; ``'@cupy:0'``, ``'cuda:0'``, ``'cuda'`` or a
        number for a GPU; a device of Chainer's, or CuPy's ``cuda.Device``.

    Raises
    ------
    RuntimeError
        If it means a GPU, and CuPy is not installed or does not find it.
    ValueError
        If it means nothing known.
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
