"""A thin stand-in for the part of CuPy that fastadam and its tests use, stricter than CuPy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from cuda_on_cpu.arrays import change, host_of, made_by, ndarray, on_gpu, refuse_capture
from cuda_on_cpu.cuda import CUDARuntimeError, RawKernel, RawModule, cuda
from cuda_on_cpu.elementwise import ElementwiseKernel
from cuda_on_cpu.state import counts, state
from cuda_on_cpu.streams import do

__all__ = ["idle_launches", "make_cupy", "thread_order"]


@contextmanager
def thread_order(order: str, seed: int = 0) -> Iterator[None]:
    """Run the threads and blocks of all launches inside in an order."""
    before = state.order, state.seed
    state.order, state.seed = order, seed
    try:
        yield
    finally:
        state.order, state.seed = before


@contextmanager
def idle_launches() -> Iterator[None]:
    """Count the launches inside, and do not run them."""
    state.idle = True
    try:
        yield
    finally:
        state.idle = False


def array(
    obj: Any,
    dtype: Any = None,
    copy: bool = True,
    order: str = "K",
    subok: bool = False,
    ndmin: int = 0,
) -> ndarray:
    """Make an array on the current device."""
    if isinstance(obj, ndarray):
        dtype = obj.dtype if dtype is None else np.dtype(dtype)
        laid_out = order == "K" or obj.flags[f"{order}_contiguous"]
        here = obj.data.device_id == state.device
        if not copy and dtype == obj.dtype and laid_out and here:
            return obj
        # other devices' arrays are copied over, and nothing is waited for
        return made_by(lambda host: np.array(host, dtype, order=order), obj._host, order=order)
    refuse_capture()
    counts.uploads += 1
    # by way of memory of CuPy's own: what is given may change or go
    return on_gpu(np.array(np.asarray(obj), dtype, order=order), order)


def asarray(a: Any, dtype: Any = None, order: str | None = None) -> ndarray:
    """Make an array on the current device, unless it is one."""
    if not isinstance(a, ndarray) and hasattr(a, "__dlpack__") and not isinstance(a, np.ndarray):
        a = from_dlpack(a)
    return array(a, dtype, copy=False, order=order or "K")


def from_dlpack(x: Any) -> ndarray:
    """Take over an array of another library."""
    kind, _ = x.__dlpack_device__()
    if kind != 2:
        raise TypeError("CPU arrays cannot be directly imported to CuPy")
    capsule = x.__dlpack__()
    if not isinstance(capsule, ndarray):
        raise TypeError("the stand-in shares memory with itself alone")
    return capsule._view(capsule._host)


def asnumpy(a: Any, stream: Any = None, order: str = "C", out: Any = None) -> Any:
    """Return an array in the host's memory."""
    return a.get(stream, order, out) if isinstance(a, ndarray) else np.asarray(a, order=order)


def empty(shape: Any, dtype: Any = float, order: str = "C") -> ndarray:
    """Make an array of what has been in the memory: NaN."""
    return ndarray(shape, dtype, order=order)


def full(shape: Any, fill_value: Any, dtype: Any = None, order: str = "C") -> ndarray:
    """Make an array of one value."""
    made = ndarray(shape, np.result_type(fill_value) if dtype is None else dtype, order=order)
    made.fill(fill_value)
    return made


def empty_like(
    a: Any, dtype: Any = None, order: str = "K", subok: Any = None, shape: Any = None
) -> ndarray:
    """Make an array as another, on the current device."""
    host = a._host if isinstance(a, ndarray) else a
    like = np.empty_like(host, dtype, order=order, subok=False, shape=shape)
    return ndarray(like.shape, like.dtype, strides=like.strides)


def full_like(a: Any, fill_value: Any, dtype: Any = None, **kwargs: Any) -> ndarray:
    """Make an array as another, of one value."""
    made = empty_like(a, dtype, **kwargs)
    made.fill(fill_value)
    return made


def copyto(dst: Any, src: Any, casting: Any = "same_kind", where: Any = None) -> None:
    """Copy an array into another, from another device too."""
    if not isinstance(dst, ndarray):
        raise TypeError("dst must be a cupy.ndarray")
    if isinstance(src, np.ndarray) and src.ndim:
        raise TypeError("src must be a cupy.ndarray: cupy.asarray(x)")
    source = src._host if isinstance(src, ndarray) else src
    host, chosen = dst._host, True if where is None else where._host
    if not np.can_cast(getattr(source, "dtype", source), host.dtype, casting):
        raise TypeError(f"cannot be cast to {host.dtype}")
    do(lambda: np.copyto(host, source, casting=casting, where=chosen))


def shares_memory(a: Any, b: Any, max_work: Any = None) -> bool:
    """Tell whether two arrays share an element."""
    if not (isinstance(a, ndarray) and isinstance(b, ndarray)):
        return False
    return bool(np.shares_memory(a._host, b._host))


def may_share_memory(a: Any, b: Any, max_work: Any = None) -> bool:
    """Tell whether the memory of two arrays meets."""
    if not (isinstance(a, ndarray) and isinstance(b, ndarray)):
        return False
    return bool(np.may_share_memory(a._host, b._host))


def get_array_module(*args: Any) -> Any:
    """Return this module if one of the arguments is an array of it."""
    import sys

    return sys.modules["cupy"] if any(isinstance(a, ndarray) for a in args) else np


class _Random:
    """CuPy's module ``random``; its numbers are others than NumPy's."""

    def __init__(self) -> None:
        self._generator = np.random.default_rng(1)

    def seed(self, seed: int | None = None) -> None:
        self._generator = np.random.default_rng(seed)

    def normal(self, loc: Any = 0.0, scale: Any = 1.0, size: Any = None, dtype: Any = float) -> Any:
        drawn = np.asarray(self._generator.normal(size=size))
        made = made_by(lambda a, b: a + b * drawn, *map(host_of, (loc, scale)))
        return made.astype(dtype)

    def standard_normal(self, size: Any = None, dtype: Any = float) -> Any:
        return self.normal(0, 1, size, dtype)


def make_cupy() -> ModuleType:
    """Make a module to be put in the place of CuPy."""
    cupy = ModuleType("cupy")
    cupy.__version__ = "14.0.0"  # type: ignore[attr-defined]
    own = (
        array,
        asarray,
        asnumpy,
        copyto,
        empty,
        empty_like,
        from_dlpack,
        full,
        full_like,
        get_array_module,
        may_share_memory,
        ndarray,
        shares_memory,
        RawKernel,
        RawModule,
    )
    for each in own:
        setattr(cupy, each.__name__, each)
    named = {
        "cuda": cuda,
        "random": _Random(),
        "generic": np.generic,
        "ascontiguousarray": lambda a, dtype=None: array(a, dtype, copy=False, order="C"),
        "asfortranarray": lambda a, dtype=None: array(a, dtype, copy=False, order="F"),
        "zeros": lambda shape, dtype=float, order="C": full(shape, 0, dtype, order),
        "ones": lambda shape, dtype=float, order="C": full(shape, 1, dtype, order),
        "zeros_like": lambda a, dtype=None, **kwargs: full_like(a, 0, dtype, **kwargs),
        "ones_like": lambda a, dtype=None, **kwargs: full_like(a, 1, dtype, **kwargs),
        "arange": lambda *args, **kwargs: array(np.arange(*args, **kwargs)),
        "ElementwiseKernel": ElementwiseKernel,
        "get_default_memory_pool": lambda: SimpleNamespace(
            free_bytes=lambda: 0, free_all_blocks=lambda: None
        ),
        "exceptions": SimpleNamespace(CUDARuntimeError=CUDARuntimeError),
    }
    for name, value in named.items():
        setattr(cupy, name, value)
    for name in [
        "abs",
        "add",
        "all",
        "any",
        "array_equal",
        "broadcast_to",
        "clip",
        "concatenate",
        "divide",
        "exp",
        "isfinite",
        "isinf",
        "isnan",
        "log",
        "matmul",
        "max",
        "maximum",
        "mean",
        "min",
        "minimum",
        "multiply",
        "sign",
        "sqrt",
        "square",
        "subtract",
        "sum",
        "tanh",
        "where",
    ]:
        setattr(cupy, name, _function(getattr(np, name)))
    for name in [
        "float16",
        "float32",
        "float64",
        "int8",
        "int16",
        "int32",
        "int64",
        "uint8",
        "uint16",
        "uint32",
        "uint64",
        "bool_",
        "nan",
        "inf",
    ]:
        setattr(cupy, name, getattr(np, name))
    cupy.dtype = np.dtype  # type: ignore[attr-defined]
    return cupy


def _function(function: Any) -> Any:
    """Return a function of NumPy's for arrays on the current device."""

    def call(*args: Any, **kwargs: Any) -> Any:
        out = kwargs.pop("out", None)
        args = tuple(
            list(map(host_of, a)) if isinstance(a, (list, tuple)) else host_of(a) for a in args
        )

        def apply(*hosts: Any) -> Any:
            return function(*hosts, **kwargs)

        refuse_capture()
        if out is None:
            return made_by(apply, *args)
        change(host_of(out), apply, *args)
        return out

    call.__name__ = function.__name__
    return call
