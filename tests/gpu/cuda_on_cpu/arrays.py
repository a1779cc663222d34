"""Arrays on a GPU as CuPy has them: what an optimizer needs, and nothing that CuPy refuses."""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from cuda_on_cpu.late import running_late, wait
from cuda_on_cpu.memory import Memory, MemoryPointer
from cuda_on_cpu.state import CUDARuntimeError, counts, state
from cuda_on_cpu.streams import do, get_current_stream, refuse_unsafe

__all__ = ["Flags", "change", "elementwise", "host_of", "made_by", "ndarray", "on_gpu"]


class Flags:
    """The layout of an array; CuPy has no flag for what may be written."""

    __slots__ = ("c_contiguous", "f_contiguous", "fnc", "forc", "owndata")

    def __init__(self, c: bool, f: bool, owndata: bool) -> None:
        self.c_contiguous, self.f_contiguous, self.owndata = c, f, owndata
        self.forc, self.fnc = c or f, f and not c

    def __getitem__(self, name: str) -> bool:
        return bool(getattr(self, name.lower()))


def refuse_capture() -> None:
    """Refuse what a graph of the stand-in does not record, and one of CUDA's could not."""
    if get_current_stream().is_capturing():
        raise CUDARuntimeError("cudaErrorStreamCaptureUnsupported: only kernels and fills are")


def host_of(x: Any) -> Any:
    """Return the memory of an array as NumPy's; numbers as they are; refuse NumPy's arrays."""
    if isinstance(x, ndarray):
        if x.data.device_id != state.device:
            # CuPy copies between devices for some operations only
            raise ValueError(
                f"an array on device {x.data.device_id} is used with device {state.device} current"
            )
        return x._host
    if isinstance(x, np.ndarray) and x.ndim:
        raise TypeError(f"Unsupported type {type(x)}")
    return x


def made_by(function: Callable[..., Any], *hosts: Any, order: str | None = None) -> ndarray:
    """Return, on the current device, what a function of NumPy's will make of memory."""
    with np.errstate(all="ignore"):
        # only its shape and type are known by now
        like = np.asarray(function(*hosts))
    layout = np.empty_like(like, order=order or "K", subok=False)
    made = ndarray(layout.shape, layout.dtype, strides=layout.strides)
    if running_late() or get_current_stream().is_capturing():
        change(made._host, function, *hosts)
    else:
        made._host[...] = like
    return made


def change(host: np.ndarray, function: Callable[..., Any], *hosts: Any) -> None:
    """Write, on the current stream, what a function of NumPy's makes of memory to other memory."""

    def write() -> None:
        with np.errstate(all="ignore"):
            host[...] = function(*hosts)

    do(write)


def on_gpu(array: Any, order: str = "K") -> ndarray:
    """Return an array of NumPy's, as it is now, in the memory of the current device."""
    taken = np.array(array, order=order, copy=True, subok=False)
    return made_by(lambda: taken, order=order)


def elementwise(function: Callable[..., Any], *operands: Any) -> Any:
    """Apply a function of NumPy's to arrays on the current device."""
    refuse_capture()
    return made_by(function, *map(host_of, operands))


class ndarray:  # noqa: N801
    """An array on a GPU."""

    __slots__ = (
        "__weakref__",
        "_c_contiguous",
        "_f_contiguous",
        "_host",
        "base",
        "data",
        "dtype",
        "flags",
        "nbytes",
        "shape",
        "size",
        "strides",
    )
    __hash__ = None  # type: ignore[assignment]

    def __init__(
        self,
        shape: Any,
        dtype: Any = float,
        memptr: MemoryPointer | None = None,
        strides: Any = None,
        order: str = "C",
    ) -> None:
        dtype = np.dtype(dtype)
        shape = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
        size = int(np.prod(shape, dtype=np.int64))
        memptr = memptr or MemoryPointer(Memory(size * dtype.itemsize), 0)
        first = memptr.ptr - memptr.mem.ptr
        buffer = memptr.mem._whole[memptr.mem._first + first :]
        self._describe(np.ndarray(shape, dtype, buffer, 0, strides, order), memptr, None)

    def _describe(self, host: np.ndarray, data: MemoryPointer, base: Any) -> None:
        self._host, self.data, self.base = host, data, base
        self.shape, self.dtype, self.size = host.shape, host.dtype, host.size
        self.strides, self.nbytes = host.strides, host.nbytes
        self._c_contiguous = bool(host.flags.c_contiguous)
        self._f_contiguous = bool(host.flags.f_contiguous)
        self.flags = Flags(self._c_contiguous, self._f_contiguous, base is None)

    def _view(self, host: np.ndarray) -> ndarray:
        view = ndarray.__new__(ndarray)
        offset = host.ctypes.data - self.data.mem.ptr if host.size else 0
        view._describe(host, MemoryPointer(self.data.mem, offset), self)
        return view

    # what it is

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def itemsize(self) -> int:
        return self.dtype.itemsize

    @property
    def device(self) -> Any:
        from cuda_on_cpu.cuda import Device

        return Device(self.data.device_id)

    @property
    def T(self) -> ndarray:  # noqa: N802
        return self._view(self._host.T)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        strides = None if self._c_contiguous else self.strides
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.data.ptr, False),
            "strides": strides,
            "version": 3,
        }

    def __dlpack__(self, *, stream: Any = None, **_: Any) -> Any:
        return self

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, self.data.device_id

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct "
            "a NumPy array explicitly."
        )

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        out = kwargs.pop("out", None)
        if method != "__call__" or kwargs:
            return NotImplemented
        if out is None:
            return elementwise(ufunc, *inputs)
        refuse_capture()
        change(host_of(out[0]), ufunc, *map(host_of, inputs))
        return out[0]

    def __len__(self) -> int:
        return len(self._host)

    def __repr__(self) -> str:
        return repr(self._host)

    def __deepcopy__(self, memo: Any) -> ndarray:
        return self.copy()

    def __copy__(self) -> ndarray:
        return self.copy()

    def __reduce__(self) -> Any:
        return on_gpu, (self.get(),)

    # to and from the host

    def get(
        self, stream: Any = None, order: str = "C", out: Any = None, blocking: bool = True
    ) -> Any:
        refuse_capture()
        counts.downloads += 1
        if out is None:
            out = np.empty_like(self._host, order="C" if order == "A" else order)
        host = self._host

        def copy() -> None:
            out[...] = host

        with self.device:
            copied = (stream or get_current_stream()).do(copy)
        if blocking:
            refuse_unsafe("to wait")
            counts.synchronisations += 1
            wait(copied)
        return out

    def set(self, arr: Any, stream: Any = None) -> None:
        if not isinstance(arr, np.ndarray):
            raise TypeError(f"Only numpy.ndarray can be set to cupy.ndarray, not {type(arr)}")
        if arr.dtype != self.dtype or arr.shape != self.shape:
            raise TypeError(
                f"{arr.dtype} of {arr.shape} cannot be set to {self.dtype} {self.shape}"
            )
        if not self.flags.forc:
            raise RuntimeError("Cannot set to non-contiguous array")
        refuse_capture()
        counts.uploads += 1
        counts.uploaded_bytes += arr.nbytes
        host, source = self._host, arr[...]

        def copy() -> None:
            # CUDA may read the host's memory late, and nobody keeps it
            if _is_freed(source):
                host.reshape(-1, order="A").view(np.uint8)[...] = 0xA5
            else:
                host[...] = source

        with self.device:
            (stream or get_current_stream()).do(copy)

    def item(self) -> Any:
        return self.get().item()

    def tolist(self) -> Any:
        return self.get().tolist()

    def __bool__(self) -> bool:
        return bool(self.get())

    def __float__(self) -> float:
        return float(self.get())

    def __int__(self) -> int:
        return int(self.get())

    def __index__(self) -> int:
        return operator.index(self.get()[()])

    # other arrays

    def copy(self, order: str = "C") -> ndarray:
        from cuda_on_cpu.cuda import Device

        with Device(self.data.device_id):
            return made_by(np.array, self._host, order=order)

    def astype(
        self,
        dtype: Any,
        order: str = "K",
        casting: Any = None,
        subok: Any = None,
        copy: bool = True,
    ) -> ndarray:
        if not copy and np.dtype(dtype) == self.dtype:
            return self
        return made_by(lambda host: host.astype(dtype, order=order), host_of(self))

    def view(self, dtype: Any = None) -> ndarray:
        return self._view(self._host.view(dtype or self.dtype))

    def reshape(self, *shape: Any, order: str = "C") -> ndarray:
        reshaped = self._host.reshape(*shape, order=order)
        if np.may_share_memory(reshaped, self._host):
            return self._view(reshaped)
        return made_by(lambda host: host.reshape(*shape, order=order), self._host)

    def ravel(self, order: str = "C") -> ndarray:
        ravelled = self._host.ravel(order)
        if np.may_share_memory(ravelled, self._host):
            return self._view(ravelled)
        return made_by(lambda host: host.ravel(order), self._host)

    def transpose(self, *axes: Any) -> ndarray:
        return self._view(self._host.transpose(*axes))

    def fill(self, value: Any) -> None:
        host, value = self._host, host_of(value)

        def fill() -> None:
            host.fill(value)

        # CUDA records it as a memset
        do(fill)

    def __getitem__(self, key: Any) -> ndarray:
        if _is_mask(key):
            # how many there are is waited for
            get_current_stream().synchronize()
        host = self._host[_key(key)]
        if isinstance(host, np.ndarray) and np.may_share_memory(host, self._host):
            return self._view(host)
        if isinstance(host, np.ndarray):
            key = _key(key)
            return made_by(lambda own: own[key], self._host)
        # an element is an array without axes that shares the memory
        return self._view(self._host[(*_tuple(_key(key)), ...)])

    def __setitem__(self, key: Any, value: Any) -> None:
        refuse_capture()
        if isinstance(value, np.ndarray) and value.ndim:
            raise TypeError("CuPy takes no numpy.ndarray here: cupy.asarray(x)")
        host, key = self._host, _key(key)
        value = value._host if isinstance(value, ndarray) else value

        def write() -> None:
            host[key] = value

        do(write)


def _is_mask(key: Any) -> bool:
    return any(isinstance(each, ndarray) and each.dtype == bool for each in _tuple(key))


def _is_freed(view: np.ndarray) -> bool:
    """Tell whether the memory of a view is nobody's but the view's."""
    owner: Any = view.base
    while isinstance(owner, np.ndarray) and owner.base is not None:
        owner = owner.base
    # a view, this name and the call; of bytes, an array
    return sys.getrefcount(owner) <= 3


def _tuple(key: Any) -> tuple[Any, ...]:
    return key if isinstance(key, tuple) else (key,)


def _key(key: Any) -> Any:
    if isinstance(key, tuple):
        return tuple(map(_key, key))
    return key._host if isinstance(key, ndarray) else key


def _add_operators() -> None:
    """Give the class operators, and the reductions, of NumPy's arrays."""
    names = [
        "add",
        "sub",
        "mul",
        "truediv",
        "floordiv",
        "mod",
        "pow",
        "lt",
        "le",
        "gt",
        "ge",
        "eq",
        "ne",
        "and",
        "or",
        "xor",
    ]
    for name in names:
        function = getattr(np.ndarray, f"__{name}__")

        def operate(self: Any, other: Any, function: Any = function) -> Any:
            one, other = host_of(self), host_of(other)
            with np.errstate(all="ignore"):
                if function(one, other) is NotImplemented:
                    return NotImplemented
            return made_by(function, one, other)

        setattr(ndarray, f"__{name}__", operate)
    for name in ["add", "sub", "mul", "truediv", "pow", "and", "or"]:
        function = getattr(np.ndarray, f"__r{name}__")

        def reflected(self: Any, other: Any, function: Any = function) -> Any:
            return made_by(function, host_of(self), host_of(other))

        setattr(ndarray, f"__r{name}__", reflected)
        in_place = getattr(np.ndarray, f"__i{name}__")

        def changed(self: Any, other: Any, in_place: Any = in_place) -> Any:
            refuse_capture()
            one, other = host_of(self), host_of(other)
            # what NumPy refuses is refused at once
            np.result_type(one, other)

            def change_it() -> None:
                with np.errstate(all="ignore"):
                    in_place(one, other)

            do(change_it)
            return self

        setattr(ndarray, f"__i{name}__", changed)
    for name in ["neg", "abs", "invert"]:
        unary = getattr(np.ndarray, f"__{name}__")
        setattr(ndarray, f"__{name}__", lambda self, unary=unary: made_by(unary, host_of(self)))
    for name in ["sum", "min", "max", "any", "all", "mean"]:
        reduce = getattr(np.ndarray, name)

        def reduced(self: Any, *args: Any, reduce: Any = reduce, **kwargs: Any) -> Any:
            return made_by(lambda host: reduce(host, *args, **kwargs), host_of(self))

        setattr(ndarray, name, reduced)


_add_operators()
