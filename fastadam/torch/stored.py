"""Tensors, and the values of groups, as files hold them: NumPy's arrays.

What refuses something takes its ``name`` in messages, or its ``key`` in a file.
"""

from __future__ import annotations

import numbers
from typing import Any

import numpy as np
import torch

from fastadam.files.entries import is_none, text_of
from fastadam.kernels.dtypes import is_bfloat16
from fastadam.serializers.dictionary import storable_array
from fastadam.serializers.prepared import PreparedLoad
from fastadam.torch.tensors import Array, is_freed, is_wrapped, no_memory, reader, refuse_lazy

__all__ = [
    "TensorFills",
    "array_over",
    "numpy_dtype",
    "stored_number",
    "stored_value",
    "tensor_of",
    "widened",
]

# What a file calls bfloat16 where nobody has imported ml_dtypes.
_RAW = np.dtype("V2")

_KNOWN = "bfloat16, and of the numbers that NumPy has,"


def array_over(name: str, tensor: torch.Tensor, done: str = "saved or loaded") -> Array:
    """Return the array over the memory of a tensor; complex numbers are complex in it.

    Parameters
    ----------
    tensor : torch.Tensor
        The tensor.
    done : str
        What is to be done with it, for messages.

    Raises
    ------
    TypeError
        If this process does not have its numbers, or NumPy does not know them.
    ValueError
        If it is uninitialised yet.
    """
    refuse_lazy(name, tensor)
    if is_wrapped(tensor):
        raise TypeError(
            f"{name}: of a {type(tensor).__name__} this process may have a part only: "
            "save it with torch.distributed.checkpoint"
        )
    found = None if is_freed(tensor) else _array(tensor.detach().resolve_conj().resolve_neg())
    if found is None:
        raise TypeError(f"{name}: {no_memory(tensor, done, _KNOWN)}")
    return found


def _array(tensor: torch.Tensor) -> Array | None:
    """Return the array over a tensor; None if there is no such memory, or NumPy lacks the type."""
    found = reader().array_of(tensor)
    if found is not None:
        return found.view(numpy_dtype(tensor.dtype))[..., 0] if tensor.is_complex() else found
    try:
        # which forbids for ever to free the storage: so it comes last
        return tensor.numpy()
    except (TypeError, RuntimeError):
        return None


def tensor_of(key: str, array: Array) -> torch.Tensor:
    """Return a tensor over the memory of an array that was read from a file.

    Raises
    ------
    ValueError
        If there are no such tensors.
    """
    if not array.flags.writeable:
        array = array.copy()
    if array.dtype == _RAW or is_bfloat16(array.dtype):
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    try:
        return torch.from_numpy(array)
    except TypeError as error:
        raise ValueError(f"{key!r} has the dtype {array.dtype} in the file: {error}") from error


def widened(array: Array, dtype: np.dtype[Any]) -> Array:
    """Return what was read as it is, or raw bfloat16 as float32 where it goes to another dtype.

    Parameters
    ----------
    array : array
        What was read.
    dtype : numpy.dtype
        Of what it is loaded into.
    """
    if array.dtype != _RAW or is_bfloat16(dtype):
        return array
    return tensor_of("", array).float().numpy()


def numpy_dtype(dtype: torch.dtype) -> np.dtype[Any]:
    """Return what NumPy calls a dtype of moments: one of real or complex numbers."""
    return torch.empty(0, dtype=dtype, device="cpu").numpy().dtype


def stored_value(key: str, value: Any) -> Array:
    """Return the array that is saved for something in a state.

    Parameters
    ----------
    value : torch.Tensor, number, str or None
        The value.

    Raises
    ------
    TypeError
        If it is something else.
    """
    if isinstance(value, torch.Tensor):
        return array_over(f"cannot save {key!r}", value)
    return storable_array(key, value)


def stored_number(key: str, value: Any) -> Array:
    """Return the array that is saved for the value of a group.

    Parameters
    ----------
    value : number, tensor of one element, tuple or list of these, str or None
        The value.

    Raises
    ------
    TypeError
        If it is something else.
    """
    if isinstance(value, tuple | list):
        found = [stored_number(key, each) for each in value]
        if any(each.shape != () or each.dtype.kind not in "biuf" for each in found):
            raise TypeError(
                f"cannot save {key!r}: it is {value!r}, and of tuples and lists only those of "
                "numbers are saved"
            )
        return np.array([each.item() for each in found])
    if isinstance(value, torch.Tensor):
        if value.numel() != 1 or value.is_complex():
            raise TypeError(
                f"cannot save {key!r}: it is a tensor of {value.dtype} and shape "
                f"{tuple(value.shape)}; of tensors in groups only those of one number are saved"
            )
        widens = value.dtype == torch.bfloat16 and not is_freed(value)
        wide = value.float() if widens else value
        return array_over(f"cannot save {key!r}", wide).reshape(())
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        raise TypeError(
            f"cannot save {key!r}: {value} has more than 64 bits, as no integer in a file has; "
            "keep it as a string"
        )
    if value is None or isinstance(value, numbers.Real | np.bool_ | str):
        return storable_array(key, value)
    raise TypeError(
        f"cannot save {key!r}: it is of type {type(value).__name__}, and of groups only numbers, "
        "strings, None, and tuples and lists of numbers are saved"
    )


class TensorFills:
    """Numbers that a load writes into tensors of groups: these stay, for whoever else has them.

    Parameters
    ----------
    prepared : PreparedLoad
        What writes them.
    """

    def __init__(self, prepared: PreparedLoad) -> None:
        self._prepared = prepared
        self._numbers: dict[int, Any] = {}
        self.tensors: list[torch.Tensor] = []

    def value(self, key: str, stored: Array, now: Any) -> Any:
        """Return what the value of a group becomes, which was saved as `stored_number` says.

        Parameters
        ----------
        stored : array
            What the file has.
        now : object
            What the group has; None for nothing.

        Raises
        ------
        ValueError
            If the file has no such value, or a tensor cannot hold it.
        """
        if is_none(stored):
            return None
        text = text_of(stored)
        if text is not None:
            return text
        if stored.dtype.kind not in "biuf" or stored.ndim > 1:
            raise ValueError(
                f"{key!r} has the dtype {stored.dtype} and the shape {stored.shape} in the file; a "
                "group has numbers, strings, and tuples of numbers"
            )
        if stored.ndim == 0:
            return self._number(key, stored.item(), now)
        several = isinstance(now, tuple | list) and len(now) == len(stored)
        olds = now if several else [None] * len(stored)
        pairs = zip(stored.tolist(), olds, strict=True)
        made = [self._number(key, number, old) for number, old in pairs]
        return made if isinstance(now, list) else tuple(made)

    def _number(self, key: str, number: Any, now: Any) -> Any:
        """Return one number; or the tensor that it is written into, if there is one."""
        if not isinstance(now, torch.Tensor) or now.numel() != 1:
            return number
        target = array_over(repr(key), now)
        with np.errstate(all="ignore"):
            cast = np.full(target.shape, number).astype(target.dtype)
        if cast.item() != number or self._numbers.setdefault(id(now), number) != number:
            raise ValueError(
                f"{key!r} is {number!r} in the file, and the tensor of {now.dtype} that is there "
                "cannot hold it, or is there for another number, too"
            )
        self._prepared.copy(target, cast, key)
        self.tensors.append(now)
        return now
