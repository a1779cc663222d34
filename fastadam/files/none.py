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


class _Replay:
    """The stack and memo of a pickle, with calls kept as tuples instead of made.

    ValueError says that it holds an instruction or a name that a pickled None does not.
    """

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, opcode: str, argument: Any) -> None:
        """Replay one instruction."""
        if opcode in _NO_EFFECT:
            return
        if opcode in _LITERALS:
            self.stack.append(argument)
        elif opcode in _CONSTANTS:
            self.stack.append(_CONSTANTS[opcode])
        elif opcode in _TUPLE_SIZES:
            self.stack.append(tuple(self._pop(_TUPLE_SIZES[opcode])))
        elif opcode in {"GLOBAL", "STACK_GLOBAL"}:
            names = argument.split(" ", 1) if opcode == "GLOBAL" else self._pop(2)
            name = ("global", *names)
            if name not in _GLOBALS:
                raise ValueError(name)
            self.stack.append(name)
        elif opcode in {"PUT", "BINPUT", "LONG_BINPUT"}:
            self.memo[argument] = self.stack[-1]
        elif opcode == "MEMOIZE":
            self.memo[len(self.memo)] = self.stack[-1]
        elif opcode in {"GET", "BINGET", "LONG_BINGET"}:
            self.stack.append(self.memo[argument])
        else:
            self._run_structure(opcode)

    def _run_structure(self, opcode: str) -> None:
        """Replay an instruction that puts values together."""
        if opcode == "MARK":
            self.stack.append(_MARK)
        elif opcode == "TUPLE":
            self.stack.append(tuple(self._pop_to_mark()))
        elif opcode in {"LIST", "EMPTY_LIST"}:
            self.stack.append(self._pop_to_mark() if opcode == "LIST" else [])
        elif opcode in {"APPEND", "APPENDS"}:
            items = self._pop(1) if opcode == "APPEND" else self._pop_to_mark()
            if not isinstance(self.stack[-1], list):
                raise ValueError(opcode)
            self.stack[-1].extend(items)
        elif opcode == "REDUCE":
            function, arguments = self._pop(2)
            # Bytes are spelled as a call in protocols 0 to 2.
            encodes = function == _ENCODE and arguments == ("b", "latin1")
            self.stack.append(b"b" if encodes else ("call", function, arguments))
        elif opcode == "BUILD":
            self.stack.append(("build", *self._pop(2)))
        else:
            raise ValueError(opcode)

    def _pop(self, count: int) -> list[Any]:
        """Take the last `count` values."""
        if len(self.stack) < count:
            raise ValueError("stack underflow")
        values = self.stack[-count:]
        del self.stack[-count:]
        return values

    def _pop_to_mark(self) -> list[Any]:
        """Take the values above the last mark, and the mark."""
        for index in range(len(self.stack) - 1, -1, -1):
            if self.stack[index] is _MARK:
                values = self.stack[index + 1 :]
                del self.stack[index:]
                return values
        raise ValueError("no mark")


def is_pickled_none(data: bytes) -> bool:
    """Tell whether bytes are the pickle of a 0-dim NumPy array that holds None.

    They are what follows the header of a ``.npy`` member with dtype object. It is true only if all
    of them are such a pickle, as any NumPy writes it; false for everything else.
    """
    if len(data) > MAX_LENGTH:
        return False
    replay = _Replay()
    try:
        for opcode, argument, position in pickletools.genops(data):
            if opcode.name == "STOP":
                (found,) = replay.stack
                return position == len(data) - 1 and _is_none_array(found)
            replay.run(opcode.name, argument)
        return False
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
