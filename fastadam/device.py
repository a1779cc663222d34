"""Where arrays live: on the CPU, for now."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["CpuDevice", "check_device"]


class CpuDevice:
    """The CPU, whose arrays are NumPy's.

    Attributes
    ----------
    name : str
        Chainer's name for it: ``'@numpy'``.
    xp : module
        The array module: numpy.

    Examples
    --------
    >>> from fastadam import Link
    >>> Link(W=(2, 3)).device
    <CpuDevice (numpy)>
    """

    name = "@numpy"
    xp: ModuleType = np

    def send(self, array: npt.ArrayLike | None) -> npt.NDArray[Any] | None:
        """Return the same values as a NumPy array; None for None.

        Parameters
        ----------
        array : array_like or None
            The values.
        """
        return None if array is None else np.asarray(array)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CpuDevice)

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        return "<CpuDevice (numpy)>"


def check_device(device: Any) -> CpuDevice:
    """Return the device that a specification means, or say why it cannot be had.

    Parameters
    ----------
    device : CpuDevice, str, int or object with a name
        ``'@numpy'``, a negative number, or a device of Chainer's for the CPU.

    Raises
    ------
    RuntimeError
        If it means a GPU: there are no GPU updates yet.
    ValueError
        If it means nothing known.
    """
    name = getattr(device, "name", device)
    if isinstance(name, str) and name.lstrip("-").isdigit():
        name = int(name)
    if name == CpuDevice.name or (isinstance(name, int) and name < 0):
        return CpuDevice()
    on_gpu = isinstance(name, str) and name.startswith(("@cupy", "cuda", "native:cuda"))
    if on_gpu or (isinstance(name, int) and not isinstance(name, bool)):
        raise RuntimeError(
            f"cannot move to the device {name!r}: fastadam updates arrays on the CPU only so far"
        )
    raise ValueError(f"there is no device {device!r}; the CPU is '@numpy'")
