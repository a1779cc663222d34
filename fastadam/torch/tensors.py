"""PyTorch's tensors as NumPy's arrays.

What refuses a tensor takes as ``name`` what that is called in messages.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.parameter import is_lazy

from fastadam.kernels.arrays import overlaps_itself
from fastadam.kernels.backend import CPU
from fastadam.torch._reading import Reader
from fastadam.torch.gpu import array_at
from fastadam.update.overrides import class_overrides

__all__ = [
    "Array",
    "computing",
    "is_dense",
    "is_freed",
    "is_sharded",
    "local_of",
    "named",
    "named_params",
    "new_reader",
    "no_memory",
    "reader",
    "refuse_freed",
    "refuse_lazy",
    "refuse_tensor",
    "zeros_like",
]

Array = npt.NDArray[Any]

# In the order of the kinds that _tensors.pyx knows.
_KINDS = [torch.float16, torch.float32, torch.float64, torch.bfloat16]
_REAL = {torch.complex64: torch.float32, torch.complex128: torch.float64}

_STEPPED = "float32, float64, float16, bfloat16 and complex numbers"

_reader: Reader | None = None


def computing(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of the moments of a parameter: float32 for half precision, else its own."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def zeros_like(param: torch.Tensor) -> torch.Tensor:
    """Return zeros for a moment: the parameter's shape and layout, and what it is computed in."""
    return torch.zeros_like(
        param,
        dtype=computing(param.dtype),
        memory_format=torch.preserve_format,
        requires_grad=False,
    )


def is_dense(tensor: torch.Tensor) -> bool:
    """Tell whether the elements of a tensor fill one block of memory, in some order of the axes."""
    if tensor.is_contiguous():
        return True
    expected = 1
    for stride, n in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if n != 1:
            if stride != expected:
                return False
            expected *= n
    return True


def reader() -> Reader:
    """Return what reads tensors, which is made once."""
    global _reader
    if _reader is None:
        _reader = new_reader(True)
    return _reader


def new_reader(fast: bool, library: Any = torch) -> Reader:
    """Return a reader.

    Parameters
    ----------
    fast : bool
        Whether DLPack's C exchange API is used where PyTorch has it.
    library : module
        PyTorch.
    """
    dtypes = [*map(np.dtype, ("f2", "f4", "f8")), _bfloat16()]
    # it makes tensors to look at, and the default device may be another one
    with torch.device("cpu"):
        return Reader(library, dtypes, _described, array_at, fast)


def _bfloat16() -> np.dtype[Any] | None:
    """Return NumPy's bfloat16, if somebody can give it."""
    try:
        import ml_dtypes
    except ImportError:
        return None
    return np.dtype(ml_dtypes.bfloat16)


def _described(
    tensor: torch.Tensor,
) -> tuple[int, int, tuple[int, ...], tuple[int, ...], bool, int] | None:
    """Return kind, address, shape, strides in bytes, whether it is complex, and device.

    None if there is no such memory.
    """
    dtype = tensor.dtype
    real = _REAL.get(dtype, dtype)
    place = tensor.device
    if (
        tensor.layout is not torch.strided
        or place.type not in ("cpu", "cuda")
        or real not in _KINDS
    ):
        return None
    device = CPU if place.type == "cpu" else place.index
    shape = tuple(tensor.shape)
    strides = tuple(step * tensor.element_size() for step in tensor.stride())
    if real is not dtype:
        shape, strides = (*shape, 2), (*strides, tensor.element_size() // 2)
    return _KINDS.index(real), tensor.data_ptr(), shape, strides, real is not dtype, device


def refuse_tensor(name: str, param: torch.Tensor, anywhere: bool = False) -> Array:
    """Return the array over a parameter; refuse one on which no step can be made.

    Parameters
    ----------
    param : torch.Tensor
        The parameter.
    anywhere : bool
        Whether it may be on a GPU.

    Raises
    ------
    RuntimeError
        If it is an inference tensor, or elements share memory.
    ValueError
        If it is uninitialised yet.
    TypeError
        If its memory is not known here.
    """
    refuse_lazy(f"parameter {name!r}", param)
    if param.is_inference():
        raise RuntimeError(
            f"parameter {name!r} is an inference tensor, which must not be written; step a clone "
            "of it that was made outside of torch.inference_mode()"
        )
    if is_wrapped(param) and not is_sharded(param):
        raise TypeError(
            f"parameter {name!r} is a {type(param).__name__}, a class with a __torch_dispatch__ of "
            "its own, of which it is not known here where its numbers lie"
        )
    if param.is_neg() or param.is_conj():
        raise TypeError(
            f"parameter {name!r} is a view with its conjugate or negative bit set; step a clone of "
            "param.resolve_conj().resolve_neg()"
        )
    array = reader().array_of(param, anywhere)
    if array is None:
        raise TypeError(f"parameter {name!r}: {no_memory(local_of(param))}")
    if overlaps_itself(array):
        raise RuntimeError(
            f"parameter {name!r}: elements of it share memory (strides {param.stride()} for shape "
            f"{tuple(param.shape)}); step a clone"
        )
    return array


def is_freed(tensor: torch.Tensor) -> bool:
    """Tell whether elements lie beyond the storage, which somebody has freed or shrunk, as FSDP.

    PyTorch itself does not look, neither in ``numpy()`` nor where it copies: it reads whatever is
    there.
    """
    if (
        tensor.layout is not torch.strided
        or tensor.device.type != "cpu"
        or is_wrapped(tensor)
        or tensor._is_zerotensor()
    ):
        return False
    return _end(tensor) > tensor.untyped_storage().nbytes()


def _end(tensor: torch.Tensor) -> int:
    """Return how many bytes of its storage a tensor takes, from the first of the storage on."""
    if tensor.numel() == 0:
        return 0
    steps = zip(tensor.shape, tensor.stride(), strict=True)
    last = sum((n - 1) * stride for n, stride in steps)
    return (tensor.storage_offset() + last + 1) * tensor.element_size()


def refuse_freed(name: str, tensor: torch.Tensor) -> None:
    """Refuse a tensor whose memory was freed, or that never had any, before it is read.

    Raises
    ------
    RuntimeError
        If it has none.
    """
    # what has an array has memory, and that is known sooner
    if reader().array_of(tensor) is None and (tensor.is_meta or is_freed(tensor)):
        raise RuntimeError(f"{name} has no memory of its own: {no_memory(tensor)}")


def refuse_lazy(name: str, tensor: torch.Tensor) -> None:
    """Refuse a tensor that has no shape yet, as those of ``LazyLinear`` before its first call.

    Raises
    ------
    ValueError
        If it has none.
    """
    if is_lazy(tensor):
        raise ValueError(f"{name}: it is uninitialised yet: call the module once, which makes it")


def is_wrapped(tensor: torch.Tensor) -> bool:
    """Tell whether a tensor's class has made its own what tensors do."""
    return class_overrides(type(tensor), ("__torch_dispatch__",), torch.Tensor)


def is_sharded(tensor: torch.Tensor) -> bool:
    """Tell whether a tensor is a DTensor, of which each process has a part."""
    return is_wrapped(tensor) and hasattr(tensor, "_local_tensor")


def local_of(tensor: torch.Tensor) -> torch.Tensor:
    """Return the part of a tensor that this process has: all of it, but for a DTensor."""
    if not is_sharded(tensor):
        return tensor
    local: torch.Tensor = tensor._local_tensor
    return local


def no_memory(tensor: torch.Tensor, done: str = "stepped", kinds: str = _STEPPED) -> str:
    """Say why a tensor has no memory for what is to be done, and dense tensors of which kinds have.

    By default it is to be stepped.
    """
    if is_freed(tensor):
        return (
            f"its memory was freed or shrunk: its elements take {_end(tensor)} bytes, and its "
            f"storage has {tensor.untyped_storage().nbytes()}"
        )
    if tensor.dtype == torch.bfloat16 and tensor.device.type in ("cpu", "cuda"):
        return (
            "for bfloat16 there must be ml_dtypes, by which NumPy knows it: pip install ml_dtypes"
        )
    return (
        f"a tensor of {tensor.dtype} ({tensor.layout}, on {tensor.device}) cannot be {done} here; "
        f"dense tensors of {kinds} can, on the CPU, and for the steps of fastadam.torch on a CUDA "
        "GPU, too"
    )


def named(groups: list[dict[str, Any]], number: int, i: int) -> str:
    """Return what a parameter is called in messages: its name, or where it is."""
    names = groups[number].get("param_names")
    if names:
        return str(names[i])
    return f"param_groups[{number}]['params'][{i}]"


def named_params(optimizer: Any) -> list[tuple[int, str, torch.Tensor]]:
    """Return group, name and tensor of every parameter: the name in ``param_names``, or its number.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        The optimizer.

    Raises
    ------
    ValueError
        If two of them have one name.
    """
    found: list[tuple[int, str, torch.Tensor]] = []
    for number, group in enumerate(optimizer.param_groups):
        places = range(len(found), len(found) + len(group["params"]))
        names = map(str, group.get("param_names") or places)
        found += [(number, *each) for each in zip(names, group["params"], strict=True)]
    seen: set[str] = set()
    for _, name, _ in found:
        if name in seen:
            raise ValueError(
                f"two parameters of this {type(optimizer).__name__} are called {name!r}, and files "
                "and comparisons know parameters by their names: give it names that differ"
            )
        seen.add(name)
    return found
