"""Recognise a pickled 0-dim array that holds None, without unpickling anything.

NumPy writes an object array as a pickle, and an uninitialised parameter is saved as an array that
holds None. The pickle's instructions are read here with `pickletools` and replayed on plain tuples
that stand for the calls: no name is looked up and nothing is called.
"""

from __future__ import annotations

import pickletools
from typing import Any

__all__ = ["MAX_LENGTH", "is_pickled_none"]

# Such a pickle takes under 400 bytes in every protocol.
MAX_LENGTH = 4096

# In tuples, not sets: a crafted pickle nests values so deeply that to hash one takes for ever,
# while a comparison with strings ends at once.
_RECONSTRUCT = (
    ("global", "numpy.core.multiarray", "_reconstruct"),
    ("global", "numpy._core.multiarray", "_reconstruct"),
)
_NDARRAY = ("global", "numpy", "ndarray")
_DTYPE = ("global", "numpy", "dtype")
_ENCODE = ("global", "_codecs", "encode")
_GLOBALS = (*_RECONSTRUCT, _NDARRAY, _DTYPE, _ENCODE)

_NO_EFFECT = {"PROTO", "FRAME"}
_LITERALS = {
    *("INT", "BININT", "BININT1", "STRING", "BINSTRING", "SHORT_BINSTRING"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINBYTES", "SHORT_BINBYTES"),
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_TUPLE_SIZES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_MARK = object()


def _replayed(data: bytes) -> Any:
    """Return what a pickle stands for, with calls kept as tuples instead of made.

    A ValueError says that it holds an instruction or a name that a pickled None does not, or that
    something follows it.
    """
    stack: list[Any] = []
    memo: dict[int, Any] = {}

    def pop(count: int) -> list[Any]:
        """Take the last values."""
        if len(stack) < count:
            raise ValueError("stack underflow")
        values = stack[len(stack) - count :]
        del stack[len(stack) - count :]
        return values

    def pop_to_mark() -> list[Any]:
        """Take the values above the last mark, and the mark."""
        values = pop(stack[::-1].index(_MARK))
        stack.pop()
        return values

    argument: Any
    for instruction, argument, position in pickletools.genops(data):
        opcode = instruction.name
        if opcode in _NO_EFFECT:
            continue
        if opcode in _LITERALS:
            stack.append(argument)
        elif opcode in _CONSTANTS:
            stack.append(_CONSTANTS[opcode])
        elif opcode in {"GLOBAL", "STACK_GLOBAL"}:
            name = ("global", *(argument.split(" ", 1) if opcode == "GLOBAL" else pop(2)))
            if name not in _GLOBALS:
                raise ValueError(name)
            stack.append(name)
        elif opcode in {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}:
            memo[len(memo) if opcode == "MEMOIZE" else argument] = stack[-1]
        elif opcode in {"GET", "BINGET", "LONG_BINGET"}:
            stack.append(memo[argument])
        elif opcode == "MARK":
            stack.append(_MARK)
        elif opcode == "TUPLE" or opcode in _TUPLE_SIZES:
            sized = _TUPLE_SIZES.get(opcode)
            stack.append(tuple(pop_to_mark() if sized is None else pop(sized)))
        elif opcode in {"LIST", "EMPTY_LIST"}:
            stack.append(pop_to_mark() if opcode == "LIST" else [])
        elif opcode in {"APPEND", "APPENDS"}:
            items = pop(1) if opcode == "APPEND" else pop_to_mark()
            if not isinstance(stack[-1], list):
                raise ValueError(opcode)
            stack[-1].extend(items)
        elif opcode == "REDUCE":
            function, arguments = pop(2)
            # Bytes are spelled as a call in protocols 0 to 2.
            encodes = function == _ENCODE and arguments == ("b", "latin1")
            stack.append(b"b" if encodes else ("call", function, arguments))
        elif opcode == "BUILD":
            stack.append(("build", *pop(2)))
        elif opcode == "STOP" and position == len(data) - 1:
            (found,) = stack
            return found
        else:
            raise ValueError(opcode)
    raise ValueError("no end")


def is_pickled_none(data: bytes) -> bool:
    """Tell whether bytes are the pickle of a 0-dim NumPy array that holds None.

    They are what follows the header of a ``.npy`` member with dtype object. It is true only if all
    of them are such a pickle, as any NumPy writes it; false for everything else.
    """
    if len(data) > MAX_LENGTH:
        return False
    try:
        return _is_none_array(_replayed(data))
    except (ValueError, LookupError, TypeError, AttributeError):
        return False


def _is_none_array(value: Any) -> bool:
    """Tell whether a replayed value stands for ``numpy.asarray(None)``."""
    match value:
        case (
            "build",
            ("call", reconstruct, (array_type, (0,), b"b" | "b")),
            (1, (), ("build", ("call", dtype_type, (dtype_name, *_)), _), _, [None]),
        ):
            return (
                reconstruct in _RECONSTRUCT
                and array_type == _NDARRAY
                and dtype_type == _DTYPE
                and dtype_name in ("O", "O4", "O8")
            )
    return False
